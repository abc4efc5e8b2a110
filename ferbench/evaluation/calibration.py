"""Temperature scaling: one number, fitted on val, that makes probabilities say how often they are right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ferbench.evaluation.metrics import Array, calibration_bins
from ferbench.evaluation.predictions import Predictions, softmax

_LIMITS = (0.05, 20.0)
"""Temperatures that are tried."""


def fit_temperature(val: Predictions) -> float:
    """The temperature with the least negative log-likelihood on val (Guo et al. 2017, arXiv 1706.04599)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logs = val.log_probabilities
    true = logs[np.arange(len(val)), val.labels]

    def nll(log_temperature: float) -> float:
        cold = np.exp(-log_temperature)
        return float((logsumexp(cold * logs, axis=1) - cold * true).mean())

    found = minimize_scalar(nll, bounds=np.log(_LIMITS), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def at_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """The predictions with their logits divided by a temperature; the most probable classes stay."""
    return replace(predictions, probabilities=softmax(predictions.log_probabilities / temperature))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Equally filled bins of images by confidence, lowest first."""

    confidence: Array
    """[bins] mean confidence."""
    accuracy: Array
    """[bins] share that is right."""
    counts: npt.NDArray[np.intp]
    """[bins] images."""


def reliability(predictions: Predictions) -> Reliability:
    """How often predictions of each confidence are right; bins without an image are left out."""
    bins = calibration_bins(predictions)
    counts = np.bincount(bins)
    used = counts > 0
    right = predictions.predicted == predictions.labels
    means = [np.bincount(bins, v)[used] / counts[used] for v in (predictions.confidence, right)]
    return Reliability(means[0], means[1], counts[used])
