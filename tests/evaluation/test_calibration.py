from __future__ import annotations

import numpy as np
import pytest

from ferbench.evaluation.calibration import at_temperature, fit_temperature, reliability
from ferbench.evaluation.metrics import CALIBRATION_BINS, compute
from ferbench.evaluation.predictions import Predictions, predictions_of


def drawn(n: int, temperature: float, seed: int = 0) -> Predictions:
    """Labels drawn from a model's own probabilities, whose logits are then multiplied by `temperature`."""
    random = np.random.Generator(np.random.PCG64(seed))
    logits = random.normal(scale=1.5, size=(n, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (p.cumsum(1) > random.random((n, 1))).argmax(1).astype(np.uint8)
    return predictions_of("val", "abcd", [f"{i:05d}" for i in range(n)], labels, temperature * logits)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_that_was_put_in_is_found(temperature):
    predictions = drawn(20_000, temperature)
    assert fit_temperature(predictions) == pytest.approx(temperature, rel=0.04)
    scaled = at_temperature(predictions, fit_temperature(predictions))
    assert (scaled.predicted == predictions.predicted).all()
    assert compute(scaled)["nll"] <= compute(predictions)["nll"] + 1e-6
    assert compute(scaled)["ece"] < 0.02


def test_no_other_temperature_has_less_nll():
    predictions = drawn(500, 3.0)
    best = fit_temperature(predictions)
    nll = [compute(at_temperature(predictions, t))["nll"] for t in (0.97 * best, best, 1.03 * best)]
    assert nll[1] == min(nll)


def test_certain_and_wrong_is_finite():
    predictions = predictions_of(
        "val", "ab", ["0", "1"], np.array([0, 1], np.uint8), np.array([[0, 500.0], [0, 500.0]])
    )
    assert np.isfinite(compute(predictions)["nll"])
    assert fit_temperature(predictions) > 10


# 30 images, two in each of 15 bins; confidence .9 throughout, one of each two right: |.9 - .5| in every bin
def test_reliability_and_ece_by_hand():
    labels = np.zeros(30, np.uint8)
    probabilities = np.tile(np.array([[0.9, 0.1], [0.1, 0.9]], np.float32), (15, 1))
    predictions = Predictions("test", ("a", "b"), np.array([f"{i:02d}" for i in range(30)]), labels, probabilities)
    bins = reliability(predictions)
    assert bins.counts.tolist() == [2] * CALIBRATION_BINS
    assert bins.confidence == pytest.approx(np.full(15, 0.9))
    assert bins.accuracy == pytest.approx(np.full(15, 0.5))
    scores = compute(predictions)
    assert scores["ece"] == pytest.approx(0.4)
    assert scores["brier"] == pytest.approx((2 * 0.1**2 + 2 * 0.9**2) / 2)
    assert scores["nll"] == pytest.approx(-(np.log(0.9) + np.log(0.1)) / 2)


def test_fewer_images_than_bins():
    predictions = drawn(4, 1.0)
    bins = reliability(predictions)
    assert bins.counts.tolist() == [1] * 4
    gaps = np.abs(np.sort(predictions.confidence) - bins.accuracy)
    assert compute(predictions)["ece"] == pytest.approx(gaps.mean())
