"""The numbers that class counts give: weights, priors, margins, shares of draws, smoothing. No torch here.

n_c is the number of training images of class c, N their sum, K the number of classes, pi_c = n_c / N.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Params = Mapping[str, float]
Vector = npt.NDArray[np.float64]


def inverse_weights(counts: Counts, params: Params) -> Vector:
    """[K] weights (N / (K n_c))^power, clipped, with mean 1."""
    return _normalised((counts.sum() / (len(counts) * counts)) ** params["power"], params["clip"])


def effective_number_weights(counts: Counts, params: Params) -> Vector:
    """[K] weights (1 - b) / (1 - b^n_c), clipped, with mean 1 (Cui et al. 2019, arXiv 1901.05555)."""
    beta = params["beta"]
    return _normalised((1 - beta) / (1 - beta ** counts.astype(float)), params["clip"])


def log_prior(counts: Counts) -> Vector:
    """[K] log pi_c."""
    return np.log(counts / counts.sum())


def margins(counts: Counts, params: Params) -> Vector:
    """[K] margins in proportion to n_c^(-1/4), the largest as given (Cao et al. 2019, arXiv 1906.07413)."""
    raw = counts.astype(float) ** -0.25
    return params["max_margin"] * raw / raw.max()


def power_probabilities(counts: Counts, params: Params) -> Vector:
    """[K] share of draws in proportion to n_c^power (Kang et al. 2020, arXiv 1910.09217)."""
    shares = counts.astype(float) ** params["power"]
    return shares / shares.sum()


def repeat_factor_probabilities(counts: Counts, params: Params) -> Vector:
    """[K] share of draws in proportion to n_c max(1, sqrt(t / pi_c)) (LVIS, arXiv 1908.03195)."""
    shares = counts * np.maximum(1, np.sqrt(params["threshold"] * counts.sum() / counts))
    return shares / shares.sum()


def smoothing_by_class(counts: Counts, params: Params) -> Vector:
    """[K] label smoothing from `tail` for the smallest class to `head` for the largest, by a quarter of a sine."""
    head, tail = params["head"], params["tail"]
    place = (counts - counts.min()) / max(counts.max() - counts.min(), 1)
    return tail + (head - tail) * np.sin(place * np.pi / 2)


def _normalised(weights: Vector, clip: float) -> Vector:
    """Weights scaled to mean 1, none above `clip` times the mean before clipping (0: no limit)."""
    weights = weights / weights.mean()
    if clip:
        weights = np.minimum(weights, clip)
        weights = weights / weights.mean()
    return weights
