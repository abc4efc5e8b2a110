"""Losses of logits `[N, K]` and target distributions `[N, K]`, so that label smoothing and mixing work with each.

What a strategy minimises is given as terms: for every image and class, what it costs if the image is of that class. The
loss is their mean under the targets, weighted by class and by image where a strategy has weights. All is computed in
float32 whatever the logits' type.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ferbench.training.formulas import (
    Counts,
    Params,
    effective_number_weights,
    log_prior,
    margins,
    smoothing_by_class,
)

Terms = Callable[[Tensor], Tensor]
"""logits [N, K] float32 -> [N, K]."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [N, K], targets [N, K]) -> mean loss []."""


class OnDevice:
    """An array that follows the logits to their device, copied once."""

    def __init__(self, values: npt.NDArray) -> None:
        self._tensor = torch.tensor(values, dtype=torch.float32)

    def like(self, logits: Tensor) -> Tensor:
        """It, on the device of the logits."""
        if self._tensor.device != logits.device:
            self._tensor = self._tensor.to(logits.device)
        return self._tensor


def mean_loss(terms: Terms) -> Loss:
    """The terms' mean over the targets."""
    return lambda logits, targets: (targets * terms(logits.float())).sum(1).mean()


def weighted_loss(terms: Terms, weights: npt.NDArray[np.float64]) -> Loss:
    """The mean weighted by class, divided by the batch's weight sum, as torch does for class codes."""
    vector = OnDevice(weights)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        weighted = targets * vector.like(logits)
        return (weighted * terms(logits.float())).sum() / weighted.sum()

    return loss


class InfluenceLoss:
    """The mean weighted by class and by 1 / (|p - y|_1 |h|_1), h being what the classifier is given (arXiv 2110.02444).

    The images' weights have mean 1 in each batch, so that the learning rate keeps its meaning; the paper scales them
    by a constant of its own.
    """

    def __init__(self, terms: Terms, weights: npt.NDArray[np.float64]) -> None:
        self._terms, self._weights = terms, OnDevice(weights)
        self.features: Tensor | None = None
        """[N, F] what the classifier was given for the logits to come."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of the logits whose features were noted last."""
        assert self.features is not None
        z = logits.float()
        weighted = targets * self._weights.like(z)
        with torch.no_grad():
            distance = (torch.softmax(z, 1) - targets).abs().sum(1)
            influence = distance * self.features.float().flatten(1).abs().sum(1)
            # an image that is right beyond doubt has next to none: without a floor it would be all that counts
            by_image = 1 / influence.clamp_min(1e-3 * influence.mean().clamp_min(1e-12))
            by_image = by_image / by_image.mean()
        return (weighted * self._terms(z)).sum(1).mul(by_image).sum() / weighted.sum()


def cross_entropy(counts: Counts, params: Params) -> Terms:
    """-log p_c."""
    return _surprise


def _surprise(logits: Tensor) -> Tensor:
    return -torch.log_softmax(logits, 1)


def focal(counts: Counts, params: Params) -> Terms:
    """Softmax focal loss (arXiv 1708.02002): each class's term focused by its own probability, -(1 - p)^gamma log p.

    That probability is the logits' own, also beside class weights: a weight inside it would focus on the rare classes
    once more.
    """
    gamma = params["gamma"]

    def terms(logits: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits, 1)
        # 1 - p through expm1 keeps its gradient exact where p is near 1
        return -((-torch.expm1(log_p)).clamp_min(1e-12) ** gamma) * log_p

    return terms


def margin(counts: Counts, params: Params) -> Terms:
    """LDAM (arXiv 1906.07413): cross-entropy after the true class's logit was lowered by its margin times the scale.

    The logits are cosines times the scale: see `heads.NormalisedLinear`.
    """
    # [K, K], true class by row
    fixed = OnDevice(-params["scale"] * np.diag(margins(counts, params)))

    def terms(logits: Tensor) -> Tensor:
        lowered = logits[:, None, :] + fixed.like(logits)
        return torch.logsumexp(lowered, 2) - torch.diagonal(lowered, dim1=1, dim2=2)

    return terms


def logit_adjusted(counts: Counts, params: Params) -> Terms:
    """Cross-entropy of logits plus tau times the log prior (arXiv 2007.07314); prediction uses the logits alone."""
    shift = OnDevice(params["tau"] * log_prior(counts))
    return lambda logits: _surprise(logits + shift.like(logits))


def vector_scaling(counts: Counts, params: Params) -> Terms:
    """Cross-entropy of logits scaled by (n_c / n_max)^gamma and shifted by tau log pi_c (arXiv 2103.01550)."""
    scale = OnDevice((counts / counts.max()) ** params["gamma"])
    shift = OnDevice(params["tau"] * log_prior(counts))
    return lambda logits: _surprise(logits * scale.like(logits) + shift.like(logits))


def seesaw(counts: Counts, params: Params) -> Terms:
    """Seesaw loss (arXiv 2008.10032): rarer classes get less of the gradient that pushes them down.

    Against true class i, the term of class j in the softmax's sum is multiplied by min(1, (n_j / n_i)^p), and by
    max(1, (p_j / p_i)^q) where j is mistaken for i.
    """
    # [K, K], true class by row
    mitigation = np.log(np.minimum(1, (counts[None] / counts[:, None]) ** params["p"]))
    fixed, q = OnDevice(mitigation), params["q"]

    def terms(logits: Tensor) -> Tensor:
        # a factor is how hard a mistake counts, nothing to learn
        log_p = torch.log_softmax(logits.detach(), 1)
        compensation = (q * (log_p[:, None, :] - log_p[:, :, None])).clamp_min(0)
        # [N, K, K]; class i against itself has factor 1
        return torch.logsumexp(logits[:, None, :] + fixed.like(logits) + compensation, 2) - logits

    return terms


def rebalanced_smoothed(counts: Counts, params: Params) -> Terms:
    """Cross-entropy whose smoothing goes to the other classes by their weights (MEK, arXiv 2310.19636)."""
    weights, eps = OnDevice(effective_number_weights(counts, params)), params["smoothing"]

    def terms(logits: Tensor) -> Tensor:
        surprise, w = _surprise(logits), weights.like(logits)
        # sums over the classes but the one of the column
        others = ((w * surprise).sum(1, keepdim=True) - w * surprise) / (w.sum() - w)
        return (1 - eps) * surprise + eps * others

    return terms


def label_aware_smoothed(counts: Counts, params: Params) -> Terms:
    """Cross-entropy with more label smoothing for larger classes (MiSLAS, arXiv 2104.00466)."""
    smoothing = OnDevice(smoothing_by_class(counts, params))

    def terms(logits: Tensor) -> Tensor:
        eps, surprise = smoothing.like(logits), _surprise(logits)
        return (1 - eps) * surprise + eps * surprise.mean(1, keepdim=True)

    return terms
