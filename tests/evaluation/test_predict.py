from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.environment import Arithmetic
from ferbench.evaluation.predict import predict_logits

CPU = Arithmetic(torch.device("cpu"), "fp32")


class Sums(nn.Module):
    """Logits that tell the images apart and whether dropout is on."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(images.sum((1, 2, 3))[:, None] * self.scale)


def test_logits_of_every_image_in_order():
    images = torch.arange(7.0)[:, None, None, None].expand(7, 1, 2, 2)
    network = Sums().train()
    logits = predict_logits(network, images.split(3), CPU)
    np.testing.assert_array_equal(logits, np.repeat(4.0 * np.arange(7)[:, None], 2, 1))
    assert logits.dtype == np.float32


def test_logits_are_float32_whatever_the_arithmetic():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    logits = predict_logits(network, [torch.randn(5, 1, 2, 2)], Arithmetic(torch.device("cpu"), "bf16"))
    assert logits.dtype == np.float32 and logits.shape == (5, 3)
    # they went through 8 bits of mantissa
    assert torch.equal(torch.from_numpy(logits).bfloat16().float(), torch.from_numpy(logits))


def test_batch_size_does_not_matter():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    images = torch.randn(10, 1, 4, 4)
    one, many = (predict_logits(network, images.split(n), CPU) for n in (10, 1))
    np.testing.assert_allclose(one, many, atol=1e-5)
