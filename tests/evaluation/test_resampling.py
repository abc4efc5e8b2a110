from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from ferbench.evaluation.metrics import METRICS, compute, resampled_scores, terms
from ferbench.evaluation.predictions import Predictions, predictions_of
from ferbench.evaluation.resampling import (
    percentile_interval,
    rank_intervals,
    resample,
    seed_share,
    seed_shifts,
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


def test_interval_of_accuracy_is_that_of_scipys_bootstrap():
    labels = np.zeros(400, np.uint8)
    predictions = model(3, 0.8, labels)
    right = predictions.predicted == 0
    (draws,) = resample([[predictions]])
    ours = draws.interval("accuracy")
    theirs = stats.bootstrap((right,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert ours == pytest.approx(theirs, abs=0.004)
    assert draws.means["accuracy"] == right.mean()


def test_predictions_on_other_images_are_refused():
    with pytest.raises(ValueError, match="different images"):
        resample([[model(0)], [model(0).take(np.arange(50))]])


def test_seeds_are_drawn_with_the_variance_of_their_mean():
    shifts = seed_shifts(3, 100_000, np.random.default_rng(0))
    assert shifts.sum(0) == pytest.approx(np.zeros(100_000))
    scores = np.array([0.60, 0.63, 0.66])
    # the mean of three seeds has the variance s²/3, s² with n - 1
    assert (scores @ shifts).var() == pytest.approx(scores.var(ddof=1) / 3, rel=0.02)
    assert (seed_shifts(1, 5, np.random.default_rng(0)) == 0).all()


# two seeds, spread .02²/2; their difference on drawn images varies by 2 x .005² about its mean, half of which is theirs
def test_the_seeds_own_part_of_their_spread_by_hand():
    noise = 0.005 * np.array([1.0, -1.0, 1.0, -1.0])
    on_images = np.stack([0.70 + noise, 0.72 - noise])
    # by images: 2 x .005² over (2 - 1)
    assert seed_spread(np.array([0.70, 0.72]), on_images) == pytest.approx((0.0002 - 0.00005, 0.00005))
    assert seed_share(np.array([0.70, 0.72]), on_images) == pytest.approx(0.75**0.5)
    # images explain all
    assert seed_spread(np.array([0.70, 0.702]), on_images) == pytest.approx((0, 0.00005))
    assert seed_share(np.array([0.7, 0.7]), on_images) == 0
    assert seed_spread(np.array([0.7]), on_images[:1]) == (0, 0)


def test_an_interval_does_not_depend_on_who_stands_before_it():
    seeds = [model(i, 1.0 + 0.3 * i) for i in range(3)]
    other = [model(i, 2.0) for i in range(3, 6)]
    first, second = (
        resample(pair, ids, 500) for pair, ids in (([seeds, other], ["abc", "def"]), ([other, seeds], ["def", "abc"]))
    )
    assert first[0].interval("macro_f1") == second[1].interval("macro_f1")


def test_interval_of_several_seeds_is_wider_by_their_spread():
    seeds = [model(i, 1.0 + 0.3 * i) for i in range(3)]
    (draws,) = resample([seeds])
    scores = [compute(p)["accuracy"] for p in seeds]
    assert draws.means["accuracy"] == pytest.approx(np.mean(scores))
    of_images = draws.on_images["accuracy"].mean(0)
    assert draws.scores("accuracy").var() > of_images.var() + 0.4 * np.var(scores, ddof=1) / 3


def test_percentile_interval_is_the_middle_95_percent():
    assert percentile_interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))


# three entries, four draws; ranks by draw: 1 1 2 1, 2 2 1 2, and the third always last
def test_rank_intervals_by_hand():
    scores = np.array([[0.9, 0.8, 0.7, 0.9], [0.8, 0.7, 0.8, 0.8], [0.1, 0.2, 0.3, 0.1]])
    assert rank_intervals(scores) == [(1, 2), (1, 2), (3, 3)]
    assert rank_intervals(np.ones((2, 10))) == [(1, 1), (1, 1)]


def test_every_metric_has_an_interval_around_it():
    """ECE is pushed up by any noise, so its interval may lie above it."""
    (draws,) = resample([[model(5)]], resamples=2000)
    for name in METRICS.names:
        low, high = draws.interval(name)
        assert low < high
        assert low <= draws.means[name] <= high or name == "ece"
