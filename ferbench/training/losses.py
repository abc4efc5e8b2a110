"""Losses of logits `[N, K]` and target distributions `[N, K]`, so that label smoothing and mixing work with each.

A loss returns one number, the mean over the batch, and is computed in float32 whatever the logits' type.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ferbench.training.imbalance import Counts, Params, effective_number_weights, inverse_weights, log_prior

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [N, K], targets [N, K]) -> mean loss []."""


class _OnDevice:
    """A vector that follows the logits to their device, copied once."""

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        self._tensor = torch.tensor(values, dtype=torch.float32)

    def like(self, logits: Tensor) -> Tensor:
        if self._tensor.device != logits.device:
            self._tensor = self._tensor.to(logits.device)
        return self._tensor


def cross_entropy(counts: Counts, params: Params) -> Loss:
    """Cross-entropy with soft targets."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets * torch.log_softmax(logits.float(), 1)).sum(1).mean()

    return loss


def _weighted(weights: npt.NDArray[np.float64]) -> Loss:
    """Weighted cross-entropy divided by the batch's weight sum, as torch does for class codes."""
    vector = _OnDevice(weights)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        weighted = targets * vector.like(logits)
        return -(weighted * torch.log_softmax(logits.float(), 1)).sum() / weighted.sum()

    return loss


def inverse_weighted(counts: Counts, params: Params) -> Loss:
    """Cross-entropy weighted by a power of the inverse class counts."""
    return _weighted(inverse_weights(counts, params))


def effective_number_weighted(counts: Counts, params: Params) -> Loss:
    """Cross-entropy weighted by the effective number of images (arXiv 1901.05555)."""
    return _weighted(effective_number_weights(counts, params))


def focal(counts: Counts, params: Params) -> Loss:
    """Softmax focal loss (arXiv 1708.02002), each class's term focused by its own probability."""
    gamma = params["gamma"]

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits.float(), 1)
        # 1 - p through expm1 keeps its gradient exact where p is near 1
        focus = (-torch.expm1(log_p)).clamp_min(1e-12) ** gamma
        return -(targets * focus * log_p).sum(1).mean()

    return loss


def logit_adjusted(counts: Counts, params: Params) -> Loss:
    """Cross-entropy of logits plus tau times the log prior (arXiv 2007.07314); prediction uses the logits alone."""
    shift = _OnDevice(params["tau"] * log_prior(counts))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets * torch.log_softmax(logits.float() + shift.like(logits), 1)).sum(1).mean()

    return loss
