"""Test-time augmentation (TTA): a network that looks at several views of each image and averages its probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CROP = 7 / 8
"""Side of ten-crop's crops as a share of the image's."""
RANDOM_SHIFT, RANDOM_DEGREES, RANDOM_ZOOM = 0.05, 10.0, 0.1
"""Largest changes of a random view: a share of the side, degrees, a factor less 1."""


class Views(nn.Module):
    """Logs of the mean probabilities `[N, K]` over affine views of images `[N, 1, H, W]`."""

    def __init__(self, network: nn.Module, maps: Tensor) -> None:
        """Wrap a network.

        Args:
            network: gives logits `[N, K]`.
            maps: `[V, 2, 3]`, a map from output to input coordinates for each view.
        """
        super().__init__()
        self.network = network
        self.register_buffer("maps", maps)

    maps: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities of a batch."""
        total = torch.zeros((), device=images.device)
        for view in self.maps:
            # half precision would place pixels a tenth of one wrong
            with torch.autocast(images.device.type, enabled=False):
                grid = F.affine_grid(view.expand(len(images), 2, 3), list(images.shape), align_corners=False)
                seen = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
            total = total + self.network(seen).float().softmax(1)
        return (total / len(self.maps)).log()


def view_maps(tta: str) -> Tensor:
    """The maps `[V, 2, 3]` of a kind of TTA.

    flip: the image and its mirror image. ten-crop: the four corners and the middle, each also mirrored. random:N: N
    views shifted, turned, zoomed and half of them mirrored, the same ones for every image and network.

    Args:
        tta: as in `RunSpec`, other than "none".
    """
    if tta == "flip":
        return torch.stack([_map(mirror=m) for m in (1.0, -1.0)])
    if tta == "ten-crop":
        reach = 1 - CROP
        places = [(0.0, 0.0), *((x, y) for y in (-reach, reach) for x in (-reach, reach))]
        return torch.stack([_map(x, y, zoom=CROP, mirror=m) for x, y in places for m in (1.0, -1.0)])
    generator = torch.Generator().manual_seed(0)
    return torch.stack([_random_map(generator, i) for i in range(int(tta.removeprefix("random:")))])


def _map(x: float = 0.0, y: float = 0.0, *, degrees: float = 0.0, zoom: float = 1.0, mirror: float = 1.0) -> Tensor:
    cos, sin = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    return torch.tensor([[cos * mirror, -sin, x], [sin * mirror, cos, y]])


def _random_map(generator: torch.Generator, number: int) -> Tensor:
    x, y, turn, zoom = (2 * torch.rand(4, generator=generator) - 1).tolist()
    return _map(
        2 * RANDOM_SHIFT * x,
        2 * RANDOM_SHIFT * y,
        degrees=RANDOM_DEGREES * turn,
        zoom=math.exp(math.log1p(RANDOM_ZOOM) * zoom),
        mirror=-1.0 if number % 2 else 1.0,
    )
