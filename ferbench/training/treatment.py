"""A strategy at work: what is minimised, which images are drawn and how they are mixed, epoch by epoch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ferbench.errors import InputError
from ferbench.training.attention import AttentionConsistency
from ferbench.training.formulas import Counts, Params, Vector, power_probabilities
from ferbench.training.imbalance import Strategy
from ferbench.training.losses import InfluenceLoss, Loss, Terms, cross_entropy, mean_loss, weighted_loss


@dataclass(frozen=True)
class Remix:
    """Mixup that gives the label of a pair to the rarer class (arXiv 2007.03943)."""

    counts: Tensor
    """[K] images by class."""
    alpha: float
    """Of the shares' Beta distribution."""
    kappa: float
    """Ratio of counts from which one class is the rarer."""
    tau: float
    """The label is the rarer class's where the other one's share of the image is below this."""


@dataclass(frozen=True)
class Pasting:
    """CutMix of patches of rarer images onto the batch (arXiv 2112.00412)."""

    partners: Tensor
    """[N] chance of each image to be a patch."""
    alpha: float
    share: float
    """Of the batches."""


class Treatment:
    """A strategy for a set of training images.

    Args:
        counts: [K] images by class.
        labels: [N] class codes.

    Raises:
        InputError: a class has no training image.
    """

    def __init__(self, strategy: Strategy, counts: Counts, params: Params, labels: npt.NDArray) -> None:
        if (counts == 0).any():
            raise InputError(f"class {int(np.argmin(counts))} has no training image: no strategy can treat it")
        self._strategy, self._counts, self._params, self._labels = strategy, counts, params, labels
        terms = _terms(strategy, counts, params)
        self._early: Loss = mean_loss(terms)
        self._late = self._late_loss(terms)

    def _late_loss(self, terms: Terms) -> Loss:
        if self._strategy.weights is None:
            return self._early
        weights = self._strategy.weights(self._counts, self._params)
        return InfluenceLoss(terms, weights) if self._strategy.influence else weighted_loss(terms, weights)

    def loss(self, epoch: int = 1, epochs: int = 1) -> Loss:
        """What is minimised in an epoch, from 1."""
        return self._late if self.has_started(epoch, epochs) else self._early

    def image_weights(self, epoch: int = 1, epochs: int = 1) -> Tensor | None:
        """[N] chance of each image to be drawn in an epoch, from 1; None: every image comes once."""
        sampling = self._strategy.sampling
        if sampling is None or not self.has_started(epoch, epochs):
            return None
        shares = sampling(self._counts, self._params)
        if self._strategy.progressive:
            t = (epoch - 1) / max(epochs - 1, 1)
            shares = (1 - t) * self._counts / self._counts.sum() + t * shares
        return self._by_image(shares)

    def has_started(self, epoch: int, epochs: int) -> bool:
        """Whether all of the strategy is at work in an epoch, from 1; in the last one it always is."""
        start = self._params["start"] if "start" in self._params else 0.0  # noqa: SIM401 - a test notes what is read
        return epoch == epochs or (epoch - 1) / epochs >= start - 1e-9

    def _by_image(self, shares: Vector) -> Tensor:
        return torch.from_numpy((shares / self._counts)[self._labels])

    def watch(self, classifier: nn.Module) -> None:
        """Note what the classifier is given, where the loss asks for it."""
        loss = self._late
        if isinstance(loss, InfluenceLoss):

            def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                loss.features = inputs[0].detach()

            classifier.register_forward_pre_hook(note)

    def consistency(self, network: nn.Module, head: str, size: int) -> AttentionConsistency | None:
        """What is added to the loss for how a network looks at images of that side."""
        weigh = self._strategy.consistency
        if weigh is None:
            return None
        return AttentionConsistency(network, head, weigh(self._counts, self._params), self._params["weight"], size)

    def mixing(self, device: torch.device) -> Remix | Pasting | None:
        """How images are mixed with an eye on their classes."""
        params = self._params
        if self._strategy.mixing == "remix":
            counts = torch.tensor(self._counts, dtype=torch.float32, device=device)
            return Remix(counts, params["alpha"], params["kappa"], params["tau"])
        if self._strategy.mixing == "cmo":
            partners = self._by_image(power_probabilities(self._counts, params))
            return Pasting(partners, params["alpha"], params["share"])
        return None


def _terms(strategy: Strategy, counts: Counts, params: Params) -> Terms:
    if not strategy.loss:
        return cross_entropy(counts, params)
    module, function = strategy.loss.split(":")
    terms: Terms = getattr(importlib.import_module(module), function)(counts, params)
    return terms
