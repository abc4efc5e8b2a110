"""A whole split resident on the device as uint8, handed out in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ferbench.training.augment import augmented, mixed, pasted, remixed
from ferbench.training.treatment import Pasting, Remix

if TYPE_CHECKING:
    from ferbench.data.dataset import Split
    from ferbench.environment import Arithmetic
    from ferbench.recipe import AugmentRecipe, ModelRecipe, TrainingRecipe


EVALUATED_AT_ONCE = 512 * 48**2
"""Pixels on a GPU, where a batch that learns nothing leaves more room."""

AUGMENTED_AT_ONCE = 2**21
"""Pixels on a GPU, 7 batches of 128 images at 48, so that some 70 kernels are launched for all of them at once."""


@dataclass(frozen=True, eq=False)
class Batches:
    """One split on the device."""

    images: Tensor
    """[N, 1, H, W] uint8."""
    targets: Tensor
    """[N, K] float32 label distributions, smoothed."""
    batch_size: int
    mean: float
    std: float
    memory_format: torch.memory_format
    augmented_at_once: int = 0
    """Pixels of as many whole batches as are augmented together; one batch at least."""

    @classmethod
    def of(
        cls,
        split: Split,
        n_classes: int,
        model: ModelRecipe,
        training: TrainingRecipe,
        arithmetic: Arithmetic,
        batch_size: int = 0,
    ) -> Batches:
        """A split's images and smoothed targets, now on the device.

        Args:
            batch_size: in place of the recipe's; 0 leaves it.
        """
        labels = torch.from_numpy(np.array(split.labels, dtype=np.int64))
        targets = (
            F.one_hot(labels, n_classes).float()
            if split.votes is None
            else torch.from_numpy(np.array(split.votes, dtype=np.float32))
        )
        images = torch.from_numpy(np.array(split.images))[:, None]
        smoothed = targets * (1 - training.label_smoothing) + training.label_smoothing / n_classes
        return cls(
            images.to(arithmetic.device),
            smoothed.to(arithmetic.device),
            batch_size or training.batch_size,
            model.mean,
            model.std,
            arithmetic.memory_format,
            AUGMENTED_AT_ONCE if arithmetic.device.type == "cuda" else 0,
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_train_batches(self) -> int:
        """Updates per epoch: the last, smaller batch counts unless it would hold a single image."""
        full, rest = divmod(len(self), self.batch_size)
        return full + (rest > 1)

    def evaluation(self, size: int) -> Iterator[Tensor]:
        """Inputs `[B, 1, size, size]` in order, unchanged but for resize and normalisation."""
        at_once = max(self.batch_size, EVALUATED_AT_ONCE // size**2) if self.images.is_cuda else self.batch_size
        for chunk in self.images.split(at_once):
            images = chunk.float().div_(255)
            if images.shape[2:] != (size, size):
                images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
            yield self._normalised(images)

    def training(
        self,
        order: Tensor,
        size: int,
        recipe: AugmentRecipe,
        generator: torch.Generator,
        coins: list[float],
        mixing: Remix | Pasting | None = None,
        partners: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented inputs `[B, 1, size, size]` and smoothed targets `[B, K]`.

        Args:
            order: indices into the split on the device, one epoch long; a last batch without a coin is left out.
            size: side of the inputs, which may be smaller than in evaluation.
            generator: every random number drawn on the device.
            coins: a number in [0, 1) for each batch, drawn on the host so that the device never waits.
            mixing: a strategy's: Remix in the place of the recipe's own, pasting in its share of the batches.
            partners: with `Pasting`, the images that patches come from, as `order`.
        """
        at = 0
        drawn = self._augmented(order, size, recipe, generator)
        # in this order: what has no coin is not drawn
        for coin, batch in zip(coins, drawn, strict=False):
            n = len(batch[0])
            if isinstance(mixing, Remix):
                images, targets = remixed(*batch, mixing, generator)
            elif isinstance(mixing, Pasting) and partners is not None and coin < mixing.share:
                patches = next(self._augmented(partners[at : at + n], size, recipe, generator))
                images, targets = pasted(*batch, patches, mixing.alpha, generator)
            else:
                # what is left of the coin where patches have had their share of it
                rest = (coin - mixing.share) / (1 - mixing.share) if isinstance(mixing, Pasting) else coin
                images, targets = mixed(*batch, recipe, generator, rest)
            at += n
            yield self._normalised(images), targets

    def _augmented(
        self, order: Tensor, size: int, recipe: AugmentRecipe, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images `[B, 1, size, size]` on the 0-1 scale, and their targets."""
        together = max(self.augmented_at_once // (self.batch_size * size**2), 1)
        for index in order.split(together * self.batch_size):
            images = augmented(self.images[index].float().div_(255), size, recipe, generator)
            yield from zip(images.split(self.batch_size), self.targets[index].split(self.batch_size), strict=True)

    def _normalised(self, images: Tensor) -> Tensor:
        return images.sub_(self.mean).div_(self.std).contiguous(memory_format=self.memory_format)
