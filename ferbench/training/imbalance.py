"""What can be done about rare classes: the STRATEGIES rows and their formulas. No torch here; losses.py has the rest.

n_c is the number of training images of class c, N their sum, K the number of classes, pi_c = n_c / N.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ferbench.errors import InputError
from ferbench.registry import Registry

if TYPE_CHECKING:
    from ferbench.training.losses import Loss

Counts = npt.NDArray[np.int64]
Params = Mapping[str, float]


@dataclass(frozen=True)
class Strategy:
    """One way to treat rare classes; its knobs are in baselines/strategies.toml."""

    name: str
    title: str
    paper: str
    formula: str
    """In a line, for `ferbench list strategies`."""
    loss: str = "ferbench.training.losses:cross_entropy"
    """"module:function" of (counts, params) -> Loss."""
    posthoc: str = ""
    """"module:function" of (val predictions, counts, params) -> [K] shift of log-probabilities, for what is done after
    training; "" trains. Names of such rows begin with `recipe.POSTHOC`."""
    class_probabilities: Callable[[Counts, Params], npt.NDArray[np.float64]] | None = None
    """(counts, params) -> [K] share of draws by class; None: every image once an epoch."""


def inverse_weights(counts: Counts, params: Params) -> npt.NDArray[np.float64]:
    """[K] weights (N / (K n_c))^power, clipped, with mean 1."""
    return _normalised((counts.sum() / (len(counts) * counts)) ** params["power"], params["clip"])


def effective_number_weights(counts: Counts, params: Params) -> npt.NDArray[np.float64]:
    """[K] weights (1 - b) / (1 - b^n_c), clipped, with mean 1 (Cui et al. 2019, arXiv 1901.05555)."""
    beta = params["beta"]
    if not 0 <= beta < 1:
        raise InputError(f"imbalance.params.beta = {beta} must be at least 0 and below 1")
    return _normalised((1 - beta) / (1 - beta ** counts.astype(float)), params["clip"])


def log_prior(counts: Counts) -> npt.NDArray[np.float64]:
    """[K] log pi_c."""
    return np.log(counts / counts.sum())


def power_probabilities(counts: Counts, params: Params) -> npt.NDArray[np.float64]:
    """[K] share of draws in proportion to n_c^power (Kang et al. 2020, arXiv 1910.09217)."""
    shares = counts.astype(float) ** params["power"]
    return shares / shares.sum()


def repeat_factor_probabilities(counts: Counts, params: Params) -> npt.NDArray[np.float64]:
    """[K] share of draws in proportion to n_c max(1, sqrt(t / pi_c)) (LVIS, arXiv 1908.03195)."""
    shares = counts * np.maximum(1, np.sqrt(params["threshold"] * counts.sum() / counts))
    return shares / shares.sum()


def smoothing_by_class(counts: Counts, params: Params) -> npt.NDArray[np.float64]:
    """[K] label smoothing from `tail` for the smallest class to `head` for the largest, by a quarter of a sine."""
    head, tail = params["head"], params["tail"]
    if not (0 <= head < 1 and 0 <= tail < 1):
        raise InputError(f"imbalance.params.head = {head} and tail = {tail} must be at least 0 and below 1")
    place = (counts - counts.min()) / max(counts.max() - counts.min(), 1)
    return tail + (head - tail) * np.sin(place * np.pi / 2)


def _normalised(weights: npt.NDArray[np.float64], clip: float) -> npt.NDArray[np.float64]:
    """Weights scaled to mean 1, none above `clip` times the mean before clipping (0: no limit)."""
    weights = weights / weights.mean()
    if clip:
        weights = np.minimum(weights, clip)
        weights = weights / weights.mean()
    return weights


STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    [
        Strategy("none", "none", "", "cross-entropy as it is"),
        Strategy(
            "inverse",
            "inverse class weights",
            "classic",
            "w_c = (N / (K n_c))^power, clipped, mean 1",
            "ferbench.training.losses:inverse_weighted",
        ),
        Strategy(
            "sqrt_inverse",
            "square-root class weights",
            "classic",
            "w_c = (N / (K n_c))^power with power 1/2, clipped, mean 1",
            "ferbench.training.losses:inverse_weighted",
        ),
        Strategy(
            "effective_number",
            "effective-number class weights",
            "Cui et al. 2019, arXiv 1901.05555",
            "w_c = (1 - b) / (1 - b^n_c), clipped, mean 1",
            "ferbench.training.losses:effective_number_weighted",
        ),
        Strategy(
            "balanced_sampling",
            "balanced sampling",
            "Kang et al. 2020, arXiv 1910.09217",
            "classes drawn in proportion to n_c^power",
            class_probabilities=power_probabilities,
        ),
        Strategy(
            "focal",
            "focal loss",
            "Lin et al. 2017, arXiv 1708.02002",
            "-(1 - p_y)^gamma log p_y",
            "ferbench.training.losses:focal",
        ),
        Strategy(
            "class_balanced_focal",
            "class-balanced focal loss",
            "Cui et al. 2019, arXiv 1901.05555",
            "-w_y (1 - p_y)^gamma log p_y, w_c = (1 - b) / (1 - b^n_c), clipped, mean 1",
            "ferbench.training.losses:class_balanced_focal",
        ),
        Strategy(
            "balanced_softmax",
            "balanced softmax",
            "Ren et al. 2020, arXiv 2007.10740",
            "cross-entropy of z + tau log pi with tau 1",
            "ferbench.training.losses:logit_adjusted",
        ),
        Strategy(
            "vector_scaling",
            "vector-scaling loss",
            "Kini et al. 2021, arXiv 2103.01550",
            "cross-entropy of (n_c / n_max)^gamma z_c + tau log pi_c",
            "ferbench.training.losses:vector_scaling",
        ),
        Strategy(
            "seesaw",
            "Seesaw loss",
            "Wang et al. 2021, arXiv 2008.10032",
            "softmax terms times min(1, (n_j / n_i)^p) max(1, (p_j / p_i)^q)",
            "ferbench.training.losses:seesaw",
        ),
        Strategy(
            "label_aware_smoothing",
            "label-aware smoothing",
            "Zhong et al. 2021, arXiv 2104.00466",
            "label smoothing from tail to head with the class's size",
            "ferbench.training.losses:label_aware_smoothed",
        ),
        Strategy(
            "repeat_factor",
            "repeat-factor sampling",
            "Gupta et al. 2019, arXiv 1908.03195",
            "classes drawn in proportion to n_c max(1, sqrt(t / pi_c))",
            class_probabilities=repeat_factor_probabilities,
        ),
        Strategy(
            "logit_adjusted",
            "logit-adjusted loss",
            "Menon et al. 2021, arXiv 2007.07314",
            "cross-entropy of z + tau log pi",
            "ferbench.training.losses:logit_adjusted",
        ),
        Strategy(
            "posthoc_logit_adjustment",
            "post-hoc logit adjustment",
            "Menon et al. 2021, arXiv 2007.07314",
            "z - tau log pi after training, tau chosen on val",
            posthoc="ferbench.posthoc:logit_adjustment",
        ),
        Strategy(
            "posthoc_class_bias",
            "post-hoc class biases",
            "classic",
            "z + b after training, b chosen on val for macro-F1",
            posthoc="ferbench.posthoc:class_bias",
        ),
    ],
)


def build_loss(strategy: Strategy, counts: Counts, params: Params) -> Loss:
    """The loss of a strategy for these class counts.

    Raises:
        InputError: a class has no training image.
    """
    if (counts == 0).any():
        raise InputError(f"class {int(np.argmin(counts))} has no training image: no strategy can treat it")
    module, function = strategy.loss.split(":")
    loss: Loss = getattr(importlib.import_module(module), function)(counts, params)
    return loss


def image_weights(strategy: Strategy, counts: Counts, params: Params, labels: npt.NDArray) -> npt.NDArray | None:
    """[N] chance of each training image to be drawn, or None where every image comes once an epoch."""
    if strategy.class_probabilities is None:
        return None
    weights: npt.NDArray = (strategy.class_probabilities(counts, params) / counts)[labels]
    return weights
