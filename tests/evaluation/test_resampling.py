from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from ferbench.evaluation.metrics import resampled_scores, terms
from ferbench.evaluation.predictions import Predictions, predictions_of
from ferbench.evaluation.resampling import (
    percentile_interval,
    resample,
    seed_spread,
    stratified_weights,
)

LABELS = np.repeat(np.arange(3, dtype=np.uint8), (60, 30, 10))


def model(seed: int, skill: float = 1.0, labels: np.ndarray = LABELS) -> Predictions:
    random = np.random.Generator(np.random.PCG64(seed))
    logits = random.normal(size=(len(labels), 3)) + skill * np.eye(3)[labels]
    return predictions_of("test", ("a", "b", "c"), [f"test-{i:05d}" for i in range(len(labels))], labels, logits)


def test_weights_draw_each_class_as_often_as_it_has_images():
    weights = stratified_weights(LABELS, 50, np.random.default_rng(0))
    for label in range(3):
        assert (weights[:, label == LABELS].sum(1) == (label == LABELS).sum()).all()
    # each image is expected once; the variance of a count is 1 - 1/n
    many = stratified_weights(LABELS, 20_000, np.random.default_rng(1))
    assert many.mean(0) == pytest.approx(np.ones(100), abs=0.04)
    assert many[:, 0].var() == pytest.approx(1 - 1 / 60, rel=0.05)


@pytest.mark.parametrize("which", [0, 1])
def test_scores_of_a_resample_are_those_of_its_images(which):
    predictions = model(which)
    weights = stratified_weights(LABELS, 20, np.random.default_rng(0))
    scores = resampled_scores([terms(model(0)), terms(model(1))], weights)[which]
    for draw, row in enumerate(weights):
        rows = np.repeat(np.arange(100), row.astype(int))
        true, predicted = LABELS[rows], predictions.predicted[rows]
        probabilities = predictions.probabilities[rows].astype(float)
        probabilities /= probabilities.sum(1, keepdims=True)
        expected = {
            "accuracy": sklearn_metrics.accuracy_score(true, predicted),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(true, predicted),
            "macro_f1": sklearn_metrics.f1_score(true, predicted, average="macro"),
            "weighted_f1": sklearn_metrics.f1_score(true, predicted, average="weighted"),
            "nll": sklearn_metrics.log_loss(true, probabilities, labels=range(3)),
        }
        assert {m: scores[m][draw] for m in expected} == pytest.approx(expected, rel=1e-6)


def test_predictions_on_other_images_are_refused():
    with pytest.raises(ValueError, match="different images"):
        resample([[model(0)], [model(0).take(np.arange(50))]])


# two seeds, spread .02²/2; their difference on drawn images varies by 2 x .005² about its mean, half of which is theirs
def test_the_seeds_own_part_of_their_spread_by_hand():
    noise = 0.005 * np.array([1.0, -1.0, 1.0, -1.0])
    on_images = np.stack([0.70 + noise, 0.72 - noise])
    # by images: 2 x .005² over (2 - 1)
    assert seed_spread(np.array([0.70, 0.72]), on_images) == pytest.approx((0.0002 - 0.00005, 0.00005))
    # images explain all
    assert seed_spread(np.array([0.70, 0.702]), on_images) == pytest.approx((0, 0.00005))
    assert seed_spread(np.array([0.7]), on_images[:1]) == (0, 0)


def test_percentile_interval_is_the_middle_95_percent():
    assert percentile_interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))
