from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from ferbench.evaluation.metrics import METRICS, compute, resampled_scores, terms
from ferbench.evaluation.predictions import Predictions, predictions_of
from ferbench.evaluation.statistics import (
    bootstrap_p,
    compare,
    discordant,
    groups,
    holm,
    mcnemar,
    percentile_interval,
    rank_intervals,
    resample,
    seed_share,
    seed_shifts,
    stratified_weights,
)

LABELS = np.repeat(np.arange(3, dtype=np.uint8), (60, 30, 10))


def model(seed: int, skill: float = 1.0, labels: np.ndarray = LABELS) -> Predictions:
    random = np.random.Generator(np.random.PCG64(seed))
    logits = random.normal(size=(len(labels), 3)) + skill * np.eye(3)[labels]
    return predictions_of("test", ("a", "b", "c"), [f"test-{i:05d}" for i in range(len(labels))], labels, logits)


def given(predicted: list[int], labels: list[int]) -> Predictions:
    return predictions_of("test", ("a", "b"), [f"{i}" for i in range(len(labels))], np.array(labels, np.uint8),
                          5.0 * np.eye(2)[predicted])  # fmt: skip


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


def test_draws_are_the_same_every_time_and_for_every_entry():
    a, b = model(0), model(1)
    first, again = resample([[a], [b]], resamples=300), resample([[a], [b]], resamples=300)
    assert np.array_equal(first[1].scores("macro_f1"), again[1].scores("macro_f1"))
    # an entry does not depend on who else is drawn: the images are, not the answers
    (alone,) = resample([[b]], resamples=300)
    assert np.array_equal(alone.scores("accuracy"), first[1].scores("accuracy"))
    # and equal answers are never different
    twice = resample([[a], [a]], resamples=300)
    assert compare(twice[0], twice[1], "macro_f1").interval == (0, 0)


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
def test_share_of_the_spread_that_is_the_seeds_own_by_hand():
    noise = 0.005 * np.array([1.0, -1.0, 1.0, -1.0])
    on_images = np.stack([0.70 + noise, 0.72 - noise])
    # by images: 2 x .005² over (2 - 1)
    assert seed_share(np.array([0.70, 0.72]), on_images) == pytest.approx(((0.0002 - 0.00005) / 0.0002) ** 0.5)
    # images explain all
    assert seed_share(np.array([0.70, 0.702]), on_images) == 0
    assert seed_share(np.array([0.7, 0.7]), on_images) == 0
    assert seed_share(np.array([0.7]), on_images[:1]) == 0


def test_other_views_of_the_same_trainings_share_their_seeds():
    """Three seeds a point apart, and each better by the same ten images where it looks twice."""
    labels = np.zeros(1000, np.uint8)

    def answers(right: int) -> Predictions:
        predicted = np.where(np.arange(1000) < right, 0, 1)
        return predictions_of("test", ("a", "b"), [f"{i:04d}" for i in range(1000)], labels, 5.0 * np.eye(2)[predicted])

    run, views = [answers(n) for n in (600, 610, 620)], [answers(n + 10) for n in (600, 610, 620)]
    apart = resample([run, views], resamples=2000)
    together = resample([run, views], ["runs", "runs"], resamples=2000)
    spreads = [(b.scores("accuracy") - a.scores("accuracy")).std() for a, b in (apart, together)]
    assert spreads[1] < 0.7 * spreads[0]


def test_interval_of_several_seeds_is_wider_by_their_spread():
    seeds = [model(i, 1.0 + 0.3 * i) for i in range(3)]
    (draws,) = resample([seeds])
    scores = [compute(p)["accuracy"] for p in seeds]
    assert draws.means["accuracy"] == pytest.approx(np.mean(scores))
    assert draws.scores("accuracy").var() > draws.of_images["accuracy"].var() + 0.4 * np.var(scores, ddof=1) / 3
    assert (draws.of_seeds["accuracy"] != 0).any()


def test_percentile_interval_is_the_middle_95_percent():
    assert percentile_interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))


# three entries, four draws; ranks by draw: 1 1 2 1, 2 2 1 2, and the third always last
def test_rank_intervals_by_hand():
    scores = np.array([[0.9, 0.8, 0.7, 0.9], [0.8, 0.7, 0.8, 0.8], [0.1, 0.2, 0.3, 0.1]])
    assert rank_intervals(scores) == [(1, 2), (1, 2), (3, 3)]
    assert rank_intervals(np.ones((2, 10))) == [(1, 1), (1, 1)]


def test_mcnemar_by_hand_and_by_scipy():
    # 1 against 5 of 6: 2 (C(6,0) + C(6,1)) / 2^6 = 14/64; mid-p takes one C(6,1)/64 away
    assert mcnemar(1, 5) == pytest.approx(14 / 64)
    assert mcnemar(5, 1, mid=True) == pytest.approx(8 / 64)
    assert mcnemar(0, 0) == mcnemar(0, 0, mid=True) == mcnemar(3, 3) == 1
    # 3 against 3: 1 - C(6,3)/2^7
    assert mcnemar(3, 3, mid=True) == pytest.approx(1 - 20 / 128)
    for b, c in ((12, 30), (100, 140), (0, 9)):
        assert mcnemar(b, c) == pytest.approx(stats.binomtest(min(b, c), b + c).pvalue)


def test_discordant_images_by_hand():
    #               right: a a - b -      (both wrong on the last)
    labels = [0, 0, 1, 1, 1]
    a, b = given([0, 0, 1, 0, 0], labels), given([1, 1, 1, 1, 0], labels)
    assert discordant(a, b) == (2, 1)
    assert discordant(b, a) == (1, 2)


def test_single_seeds_are_compared_by_mcnemar_and_all_else_by_the_bootstrap():
    a, b = model(0, 2.0), model(1, 1.0)
    one, other = resample([[a], [b]], resamples=500)
    result = compare(one, other, "accuracy")
    assert (result.p, result.test) == (mcnemar(*discordant(a, b), mid=True), "McNemar, mid-p")
    assert result.difference == pytest.approx((np.sum(a.predicted == LABELS) - np.sum(b.predicted == LABELS)) / 100)
    assert result.interval.low < result.difference < result.interval.high
    assert compare(one, other, "macro_f1").test == "paired bootstrap"
    two, three = resample([[a, model(2)], [b, model(3)]], resamples=500)
    assert compare(two, three, "accuracy").test == "paired bootstrap"
    # the other way round it is the same, with the sign changed
    back = compare(other, one, "accuracy")
    assert (back.difference, back.p) == (-result.difference, result.p)


def test_bootstrap_p_is_the_normal_tail():
    differences = np.random.default_rng(0).normal(0.02, 0.01, 100_000)
    assert bootstrap_p(0.0196, differences) == pytest.approx(0.05, abs=0.002)
    assert bootstrap_p(0.0, np.zeros(10)) == 1
    assert bootstrap_p(0.1, np.full(10, 0.1)) == 0


# Holm: sorted .01 .02 .04 times 3 2 1 gives .03 .04 .04
def test_holm_by_hand():
    assert holm([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    # what a smaller p could not pass, a larger one does not
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_groups_by_hand():
    assert groups(3, set()) == ["a", "a", "a"]
    assert groups(3, {(0, 1), (0, 2), (1, 2)}) == ["a", "b", "c"]
    # the first is better than the last, the middle can be told from neither
    assert groups(3, {(0, 2)}) == ["a", "ab", "b"]


@pytest.mark.parametrize("seed", range(20))
def test_entries_share_a_letter_exactly_where_they_cannot_be_told_apart(seed):
    random = np.random.default_rng(seed)
    n = 7
    separable = {(i, j) for i in range(n) for j in range(i + 1, n) if random.random() < 0.2 * (j - i)}
    letters = groups(n, separable)
    for i in range(n):
        for j in range(i + 1, n):
            assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in separable)


def test_every_metric_has_an_interval_around_it():
    """ECE is pushed up by any noise, so its interval may lie above it."""
    (draws,) = resample([[model(5)]], resamples=2000)
    for name in METRICS.names:
        low, high = draws.interval(name)
        assert low < high
        assert low <= draws.means[name] <= high or name == "ece"
