from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ferbench.environment import Arithmetic
from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.models import MAIN_MODELS, MODELS, build, head_name
from ferbench.training.attention import AttentionConsistency

CPU = Arithmetic(torch.device("cpu"), "fp32")


class Toy(nn.Module):
    """One filter for two maps, then mean and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.filter(images).mean((2, 3)))


def test_difference_of_the_maps_by_hand():
    network, images = Toy(), torch.randn(5, 1, 8, 8)
    consistency = AttentionConsistency(network, "head", np.array([1.0, 3.0]), 0.1, 8)
    network(images)
    value = consistency(network, images, CPU)
    with torch.no_grad():
        maps = [torch.einsum("nfhw,kf->nkhw", network.filter(x), network.head.weight) for x in (images, images.flip(3))]
        gaps = ((maps[0] - maps[1].flip(3)) ** 2).mean((0, 2, 3))
    assert value.item() == pytest.approx(0.1 * (gaps[0] + 3 * gaps[1]).item(), rel=1e-5)
    value.backward()
    assert network.filter.weight.grad.any()


def test_symmetric_filters_are_consistent():
    network, images = Toy(), torch.randn(5, 1, 8, 8)
    network.filter.weight.data += network.filter.weight.data.flip(3)
    consistency = AttentionConsistency(network, "head", np.ones(2), 1.0, 8)
    network(images)
    assert consistency(network, images, CPU).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("name", MAIN_MODELS)
def test_every_model_has_such_maps(name):
    network = build(load_recipe(name).model, 7).eval()
    consistency = AttentionConsistency(network, head_name(MODELS[name], network), np.ones(7), 1.0, 48)
    images = torch.randn(2, 1, 48, 48)
    network(images)
    value = consistency(network, images, CPU)
    assert value.isfinite() and value > 0


def test_network_for_one_size_of_images():
    class Picky(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[-1] == 48, "Input height doesn't match model"
            return super().forward(images)

    network = Picky(nn.Conv2d(1, 8, 3, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7))
    consistency = AttentionConsistency(network, "3", np.ones(7), 1.0, size=48)
    images = torch.rand(2, 1, 48, 48)
    network(images)
    assert consistency(network, images, CPU) > 0
    # a fault of its own is told as it is
    with pytest.raises(AssertionError, match="Input height"):
        AttentionConsistency(network, "3", np.ones(7), 1.0, size=32)


def test_network_without_maps():
    with pytest.raises(InputError, match="strategy mek needs a network that pools a map"):
        AttentionConsistency(nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 7)), "1", np.ones(7), 1.0, 48)
