from __future__ import annotations

import pytest
import torch
from torch import nn

from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.models import MAIN_MODELS, MODELS, head_name
from ferbench.runner import build_network
from ferbench.training.heads import NormalisedLinear, ScaledLinear, last_linear, replace_head


def test_logits_are_cosines_times_the_scale():
    head = NormalisedLinear(torch.tensor([[3.0, 4.0], [0.0, 0.1]]), 10.0)
    # (1, 0) and (0, 7) against (.6, .8) and (0, 1), whatever their lengths
    torch.testing.assert_close(head(torch.tensor([[1.0, 0.0], [0.0, 7.0]])), torch.tensor([[6.0, 0.0], [8.0, 10.0]]))
    assert head(torch.randn(3, 2, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("name", MAIN_MODELS)
def test_every_model_can_have_one(name):
    network = build_network(load_recipe(name, strategy="ldam", overrides={"model.input_size": 32}), 7)
    head = network.get_submodule(head_name(MODELS[name], network))
    assert [type(m) for m in head.modules() if isinstance(m, nn.Linear | NormalisedLinear)][-1] is NormalisedLinear
    logits = network.eval()(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 7) and logits.abs().max() <= 30.001


def test_factors_of_one_change_nothing_and_weights_do_not_learn():
    linear = nn.Linear(3, 2)
    head = ScaledLinear(linear)
    inputs = torch.randn(4, 3)
    torch.testing.assert_close(head(inputs), linear(inputs))
    assert [name for name, _ in head.named_parameters()] == ["factor"]
    with torch.no_grad():
        head.factor.copy_(torch.tensor([2.0, 0.0]))
    # the biases stay
    expected = torch.stack([2 * (linear(inputs)[:, 0] - linear.bias[0]) + linear.bias[0], linear.bias[1].expand(4)], 1)
    torch.testing.assert_close(head(inputs), expected)


def test_the_classifier_is_not_another_module_whose_name_begins_likewise():
    network = nn.Module()
    network.head, network.head_dist = nn.Linear(4, 7), nn.Linear(4, 7)
    name, linear = last_linear(network, "head")
    assert name == "head" and linear is network.head
    # where both are heads, as timm says of networks for distillation
    network.pretrained_cfg = {"classifier": ("head", "head_dist")}
    with pytest.raises(InputError, match="a strategy needs a single classifier; this network has head and head_dist"):
        last_linear(network, "head")


def test_network_without_a_linear_classifier():
    network = nn.Sequential(nn.Conv2d(1, 7, 3), nn.Flatten())
    with pytest.raises(InputError, match="'0' of this network has none"):
        replace_head(network, "0", "normalised", {"scale": 30.0})
