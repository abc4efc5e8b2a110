from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ferbench.evaluation.views import CROP, Views, view_maps


class Corner(nn.Module):
    """Two logits: the mean grey of the left and of the right half."""

    def forward(self, images):
        half = images.shape[3] // 2
        return torch.stack([images[..., :half].mean((1, 2, 3)), images[..., half:].mean((1, 2, 3))], 1)


def faces(n: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand((n, 1, size, size), generator=torch.Generator().manual_seed(0))


def test_flip_is_the_mean_of_an_image_and_its_mirror_image():
    images, network = faces(), Corner()
    expected = (network(images).softmax(1) + network(images.flip(3)).softmax(1)) / 2
    assert torch.allclose(Views(network, view_maps("flip"))(images).exp(), expected, atol=1e-6)
    # a network that tells left from right no longer can
    assert torch.allclose(expected, torch.full_like(expected, 0.5), atol=1e-6)


def test_first_view_is_the_image_itself():
    images, network = faces(), Corner()
    alone = Views(network, view_maps("flip")[:1])(images)
    assert torch.allclose(alone, network(images).log_softmax(1), atol=1e-5)


def test_ten_crop_is_five_places_and_their_mirror_images():
    maps, size = view_maps("ten-crop"), 16
    assert maps.shape == (10, 2, 3)
    images = faces(1, size)
    seen = [
        F.grid_sample(images, F.affine_grid(m[None], [1, 1, size, size], align_corners=False), align_corners=False)
        for m in maps
    ]
    for one, mirrored in zip(seen[::2], seen[1::2], strict=True):
        assert torch.allclose(one, mirrored.flip(3), atol=1e-5)
    # crops of 14 of 16 pixels: the second view is the top left one, scaled up
    crop = images[:, :, : int(CROP * size), : int(CROP * size)]
    assert torch.allclose(
        seen[2][..., 1:-1, 1:-1], F.interpolate(crop, (size, size), mode="bilinear")[..., 1:-1, 1:-1], atol=1e-5
    )


@pytest.mark.parametrize("n", [1, 7])
def test_random_views_are_the_same_every_time(n):
    maps = view_maps(f"random:{n}")
    assert maps.shape == (n, 2, 3)
    assert torch.equal(maps, view_maps(f"random:{n}"))
    assert torch.equal(maps, view_maps("random:8")[:n])
    assert (maps[:, :, 2].abs() <= 0.1).all()


def test_views_are_placed_in_full_precision_under_autocast():
    images, seen = faces(1, 48), []

    class Looking(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images.mean((1, 2, 3))[:, None] * torch.ones(1, 2)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        Views(Looking(), view_maps("flip"))(images)
    # bf16 would be off by some hundredths
    assert torch.allclose(seen[0], images, atol=1e-4)
    assert torch.allclose(seen[1], images.flip(3), atol=1e-4)
