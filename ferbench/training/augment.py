"""Augmentation of a whole batch on the device, every image with its own random parameters.

Geometry (flip, shift, rotation, zoom and the resize to the network's input) is one affine map and one interpolation.
All randomness comes from the generator that is passed in, so a run can be repeated and resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from ferbench.recipe import AugmentRecipe
    from ferbench.training.treatment import Remix

Draw = Callable[..., Tensor]


def augmented(images: Tensor, size: int, recipe: AugmentRecipe, generator: torch.Generator) -> Tensor:
    """Changed images `[N, 1, size, size]` float on the 0-1 scale, of `[N, 1, H, W]` images on that scale."""
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((n, *shape), generator=generator, device=images.device) * (high - low) + low

    grid = F.affine_grid(_affine(recipe, uniform), [n, 1, size, size], align_corners=False)
    # reflection, not zeros: black corners would tell the network the angle
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    if recipe.contrast or recipe.brightness:
        mean = images.mean((2, 3), keepdim=True)
        factor = uniform(1 - recipe.contrast, 1 + recipe.contrast, 1, 1, 1)
        shift = uniform(-recipe.brightness, recipe.brightness, 1, 1, 1)
        images = torch.addcmul(mean + shift, images - mean, factor).clamp_(0, 1)
    if recipe.erase:
        images = torch.where(_erased(size, recipe, uniform), images.mean((2, 3), keepdim=True), images)
    return images


def _affine(recipe: AugmentRecipe, uniform: Draw) -> Tensor:
    """`[N, 2, 3]` maps from output to input coordinates."""
    angle = uniform(-math.radians(recipe.rotate), math.radians(recipe.rotate))
    log_zoom = math.log1p(recipe.zoom)
    scale = torch.exp(uniform(-log_zoom, log_zoom))
    mirror = torch.where(uniform(0, 1) < recipe.flip, -1.0, 1.0)
    # the coordinates run from -1 to 1, so a share of the side is twice that
    shift_x, shift_y = uniform(-2 * recipe.shift, 2 * recipe.shift), uniform(-2 * recipe.shift, 2 * recipe.shift)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cos * mirror, -sin, shift_x], 1), torch.stack([sin * mirror, cos, shift_y], 1)]
    return torch.stack(rows, 1)


def _erased(size: int, recipe: AugmentRecipe, uniform: Draw) -> Tensor:
    """`[N, 1, size, size]` bool, true inside each image's rectangle."""
    area = uniform(min(0.02, recipe.erase_size), recipe.erase_size) * size * size
    aspect = torch.exp(uniform(-math.log(3.3), math.log(3.3)))
    height, width = torch.sqrt(area * aspect), torch.sqrt(area / aspect)
    applies = uniform(0, 1) < recipe.erase
    top, left = uniform(0, 1) * (size - height), uniform(0, 1) * (size - width)
    axis = torch.arange(size, device=area.device) + 0.5
    rows = (axis > top[:, None]) & (axis < (top + height)[:, None])
    columns = (axis > left[:, None]) & (axis < (left + width)[:, None])
    return (rows[:, :, None] & columns[:, None, :] & applies[:, None, None])[:, None]


def mixed(
    images: Tensor, targets: Tensor, recipe: AugmentRecipe, generator: torch.Generator, coin: float
) -> tuple[Tensor, Tensor]:
    """Images `[N, 1, H, W]` and targets `[N, K]`, each mixed with another of the batch by mixup or CutMix.

    Args:
        coin: a number in [0, 1) that decides between the two when both are on.
    """
    if not (recipe.mixup or recipe.cutmix):
        return images, targets
    n = len(images)
    other = torch.randperm(n, generator=generator, device=images.device)
    use_mixup = recipe.mixup > 0 and (recipe.cutmix == 0 or coin < 0.5)
    share = _beta(recipe.mixup if use_mixup else recipe.cutmix, n, generator, images.device)
    if use_mixup:
        images = torch.lerp(images[other], images, share.view(n, 1, 1, 1))
    else:
        images, share = _cut(images, images[other], share, generator)
    return images, torch.lerp(targets[other], targets, share.view(n, 1))


def remixed(images: Tensor, targets: Tensor, remix: Remix, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and targets mixed in pairs of the batch; the label of a pair may be the rarer class's alone."""
    n = len(images)
    other = torch.randperm(n, generator=generator, device=images.device)
    share = _beta(remix.alpha, n, generator, images.device)
    count = remix.counts[targets.argmax(1)]
    ratio = count / count[other]
    own = torch.where((ratio >= remix.kappa) & (share < remix.tau), torch.zeros_like(share), share)
    own = torch.where((ratio <= 1 / remix.kappa) & (1 - share < remix.tau), torch.ones_like(share), own)
    return torch.lerp(images[other], images, share.view(n, 1, 1, 1)), torch.lerp(
        targets[other], targets, own.view(n, 1)
    )


def pasted(
    images: Tensor, targets: Tensor, patches: tuple[Tensor, Tensor], alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images and targets with a rectangle of another image each; `patches` are those images and their targets."""
    share = _beta(alpha, len(images), generator, images.device)
    images, share = _cut(images, patches[0], share, generator)
    return images, torch.lerp(patches[1], targets, share.view(-1, 1))


def _beta(alpha: float, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """`[N]` draws of Beta(alpha, alpha)."""
    # from two gammas; torch.distributions.Beta takes no generator
    shape = torch.full((2, n), alpha, device=device)
    gammas = torch._standard_gamma(shape, generator=generator).clamp_min_(1e-20)
    return gammas[0] / gammas.sum(0)


def _cut(images: Tensor, others: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n, _, height, width = images.shape
    side = torch.sqrt(1 - share)
    centre = torch.rand((2, n), generator=generator, device=images.device)
    inside = []
    for length, middle in zip((height, width), centre, strict=True):
        low = ((middle - side / 2) * length).round().clamp(0, length)
        high = ((middle + side / 2) * length).round().clamp(0, length)
        axis = torch.arange(length, device=images.device)
        inside.append((axis >= low[:, None]) & (axis < high[:, None]))
    mask = inside[0][:, :, None] & inside[1][:, None, :]
    # the label follows the area that was really pasted, which the border may have cut
    return torch.where(mask[:, None], others, images), 1 - mask.float().mean((1, 2))
