"""Losses of logits `[N, K]` and target distributions `[N, K]`, so that label smoothing and mixing work with each.

A loss returns one number, the mean over the batch, and is computed in float32 whatever the logits' type.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ferbench.training.imbalance import (
    Counts,
    Params,
    effective_number_weights,
    inverse_weights,
    log_prior,
    smoothing_by_class,
)

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
        return -(targets * _focused(logits, gamma)).sum(1).mean()

    return loss


def _focused(logits: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma log p of every class."""
    log_p = torch.log_softmax(logits.float(), 1)
    # 1 - p through expm1 keeps its gradient exact where p is near 1
    return (-torch.expm1(log_p)).clamp_min(1e-12) ** gamma * log_p


def class_balanced_focal(counts: Counts, params: Params) -> Loss:
    """Focal loss weighted by the effective number of images (arXiv 1901.05555), over the batch's weight sum.

    The probability that focuses is the logits' own: a weight inside it would focus on the rare classes once more.
    """
    gamma, weights = params["gamma"], _OnDevice(effective_number_weights(counts, params))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        weighted = targets * weights.like(logits)
        return -(weighted * _focused(logits, gamma)).sum() / weighted.sum()

    return loss


def vector_scaling(counts: Counts, params: Params) -> Loss:
    """Cross-entropy of logits scaled by (n_c / n_max)^gamma and shifted by tau log pi_c (arXiv 2103.01550)."""
    scale = _OnDevice((counts / counts.max()) ** params["gamma"])
    shift = _OnDevice(params["tau"] * log_prior(counts))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        scaled = logits.float() * scale.like(logits) + shift.like(logits)
        return -(targets * torch.log_softmax(scaled, 1)).sum(1).mean()

    return loss


def seesaw(counts: Counts, params: Params) -> Loss:
    """Seesaw loss (arXiv 2008.10032): rarer classes get less of the gradient that pushes them down.

    Against true class i, the term of class j in the softmax's sum is multiplied by min(1, (n_j / n_i)^p), and by
    max(1, (p_j / p_i)^q) where j is mistaken for i.
    """
    # [K, K], true class by row
    mitigation = np.log(np.minimum(1, (counts[None] / counts[:, None]) ** params["p"]))
    fixed, q = _OnDevice(mitigation), params["q"]

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        z = logits.float()
        # a factor is how hard a mistake counts, nothing to learn
        log_p = torch.log_softmax(z.detach(), 1)
        compensation = (q * (log_p[:, None, :] - log_p[:, :, None])).clamp_min(0)
        # [N, K, K]; class i against itself has factor 1
        sums = torch.logsumexp(z[:, None, :] + fixed.like(z) + compensation, 2)
        return -(targets * (z - sums)).sum(1).mean()

    return loss


def label_aware_smoothed(counts: Counts, params: Params) -> Loss:
    """Cross-entropy with more label smoothing for larger classes (MiSLAS, arXiv 2104.00466)."""
    smoothing = _OnDevice(smoothing_by_class(counts, params))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        eps = smoothing.like(logits)
        kept, spread = targets * (1 - eps), (targets * eps).sum(1, keepdim=True) / targets.shape[1]
        return -((kept + spread) * torch.log_softmax(logits.float(), 1)).sum(1).mean()

    return loss


def logit_adjusted(counts: Counts, params: Params) -> Loss:
    """Cross-entropy of logits plus tau times the log prior (arXiv 2007.07314); prediction uses the logits alone."""
    shift = _OnDevice(params["tau"] * log_prior(counts))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets * torch.log_softmax(logits.float() + shift.like(logits), 1)).sum(1).mean()

    return loss
