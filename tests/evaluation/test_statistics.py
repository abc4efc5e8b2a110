from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ferbench.evaluation.metrics import METRICS
from ferbench.evaluation.predictions import Predictions, predictions_of
from ferbench.evaluation.resampling import Spread, percentile_interval, resample, seed_spread
from ferbench.evaluation.statistics import (
    compare,
    discordant,
    groups,
    holm,
    interval,
    mcnemar,
    pooled_spread,
    rank_intervals,
    welch,
)

LABELS = np.repeat(np.arange(3, dtype=np.uint8), (60, 30, 10))


def model(seed: int, skill: float = 1.0, labels: np.ndarray = LABELS) -> Predictions:
    random = np.random.Generator(np.random.PCG64(seed))
    logits = random.normal(size=(len(labels), 3)) + skill * np.eye(3)[labels]
    return predictions_of("test", ("a", "b", "c"), [f"test-{i:05d}" for i in range(len(labels))], labels, logits)


def given(predicted: list[int], labels: list[int]) -> Predictions:
    return predictions_of("test", ("a", "b"), [f"{i}" for i in range(len(labels))], np.array(labels, np.uint8),
                          5.0 * np.eye(2)[predicted])  # fmt: skip


def test_draws_are_the_same_every_time_and_for_every_entry():
    a, b = model(0), model(1)
    first, again = resample([[a], [b]], resamples=300), resample([[a], [b]], resamples=300)
    assert np.array_equal(first[1].on_images["macro_f1"], again[1].on_images["macro_f1"])
    # an entry does not depend on who else is drawn: the images are, not the answers
    (alone,) = resample([[b]], resamples=300)
    assert np.array_equal(alone.on_images["accuracy"], first[1].on_images["accuracy"])
    # and equal answers are never different
    twice = resample([[a], [a]], resamples=300)
    assert compare(twice[0], twice[1], "macro_f1").interval == (0, 0)


def test_interval_of_a_single_seeds_accuracy_is_that_of_scipys_bootstrap():
    labels = np.zeros(400, np.uint8)
    predictions = model(3, 0.8, labels)
    right = predictions.predicted == 0
    (draws,) = resample([[predictions]])
    theirs = stats.bootstrap((right,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert interval(draws, "accuracy") == pytest.approx(theirs, abs=0.004)
    assert draws.means["accuracy"] == right.mean()


def test_interval_of_several_seeds_is_students():
    """Where images say nothing, that of the seeds alone: mean, n - 1 degrees of freedom, but two at least."""
    (three, two) = resample([[model(0)] * 3, [model(0)] * 2], resamples=20)
    scores = np.array([0.60, 0.63, 0.66])
    known = replace(three, own={"accuracy": scores}, on_images={"accuracy": np.tile(scores[:, None], 20)})
    assert interval(known, "accuracy") == pytest.approx(stats.t.interval(0.95, 2, scores.mean(), stats.sem(scores)))
    known = replace(two, own={"accuracy": scores[:2]}, on_images={"accuracy": np.tile(scores[:2, None], 20)})
    assert interval(known, "accuracy") == pytest.approx(stats.t.interval(0.95, 2, 0.615, stats.sem(scores[:2])))


def test_intervals_reach_beyond_no_score():
    good, better = given([0] * 97 + [1] * 3, [0] * 100), given([0] * 100, [0] * 100)
    (draws,) = resample([[good, better]])
    low, high = interval(draws, "accuracy")
    assert low < 0.97 and high == 1.0
    low, high = interval(draws, "nll")
    assert low == 0.0 and high > draws.means["nll"]


def test_interval_of_seeds_that_are_alike_is_of_the_images():
    (draws,) = resample([[model(5)] * 3])
    alone = percentile_interval(draws.on_images["accuracy"][0])
    assert interval(draws, "accuracy") == pytest.approx(alone, abs=0.004)


def test_every_metric_has_an_interval_around_it():
    """ECE is pushed up by any noise, so its interval may lie above it."""
    (draws,) = resample([[model(5)]], resamples=2000)
    for name in METRICS.names:
        low, high = interval(draws, name)
        assert low < high
        assert low <= draws.means[name] <= high or name == "ece"


def test_welch_by_hand_and_by_scipy():
    # variances 4/8 and 9/12 of the means of 8 and 12: (1.25)² / (.5²/7 + .75²/11)
    error, freedom = welch(0.0, [(Spread(4, 0), 8, 7), (Spread(9, 0), 12, 11)])
    assert (error, freedom) == pytest.approx((1.25**0.5, 1.25**2 / (0.25 / 7 + 0.5625 / 11)))
    theirs = stats.ttest_ind_from_stats(1, 2, 8, 0, 3, 12, equal_var=False)
    assert 2 * stats.t.sf(1 / error, freedom) == pytest.approx(theirs.pvalue)
    # what is known of the images alone has no end of them
    assert welch(4.0, [(Spread(0, 0), 3, 2)]) == welch(4.0, []) == (2.0, np.inf)
    # 3 + 2/2; half of the images' 2 is as uncertain as the seeds' own 2: 4² / ((2 + 1)/2)²
    assert welch(3.0, [(Spread(2, 2), 2, 1)]) == pytest.approx((2.0, 16 / 2.25))
    # two seeds alone have one degree of freedom
    assert welch(0.0, [(Spread(2, 0), 2, 1)]) == (1.0, 2.0)


def test_seeds_of_all_entries_say_how_seeds_vary():
    """Means .6 and .7 of two seeds that are 2 and 6 points apart; ten more entries have seeds 2 points apart."""
    a, b = [answers(590), answers(610)], [answers(670), answers(730)]
    others = [[answers(500 + i), answers(520 + i)] for i in range(10)]
    draws = resample([a, b, *others], resamples=2000)
    pooled = pooled_spread(draws, "accuracy")
    # s² is .02²/2 in all but one; half of the variances of two seeds are below .455 of their mean; less the images
    images = np.mean([seed_spread(d.own["accuracy"], d.on_images["accuracy"]).images for d in draws])
    assert (*pooled.spread, pooled.freedom) == pytest.approx((0.0002 / 0.4549 - images, images, 12), rel=1e-3)
    few = pooled_spread(draws[:2], "accuracy")
    assert few.freedom == 2
    assert few.spread.own == pytest.approx((0.0002 + 0.0018) / 2 - images, rel=0.1)
    alone, among = compare(draws[0], draws[1], "accuracy"), compare(draws[0], draws[1], "accuracy", pooled)
    assert among.p < alone.p and among.difference == alone.difference


def test_a_single_seed_is_taken_to_vary_as_others_do():
    one, other, three = resample(
        [[answers(590)], [answers(650)], [answers(n) for n in (630, 670, 710)]], resamples=2000
    )
    pooled = pooled_spread([three], "accuracy")
    # .04² between the three, less what 80 images that not all have right explain: (80 x 2/3 / 1000 - .0032) / 1000 / 2
    assert pooled.spread.own == pytest.approx(0.0016 - 0.000025, rel=0.01) and pooled.freedom == 2
    images = (one.on_images["accuracy"][0] - three.on_images["accuracy"].mean(0)).var(ddof=1)
    error, freedom = welch(images, [(Spread(*(4 / 3 * part for part in pooled.spread)), 1, 2)])
    against_three = compare(one, three, "accuracy")
    assert against_three.p == pytest.approx(2 * stats.t.sf(0.08 / error, freedom))
    # so of two of them, if anybody says how; else McNemar's test knows the images, and is far too sure
    alone, among = compare(one, other, "accuracy"), compare(one, other, "accuracy", pooled)
    assert (alone.test, among.test) == ("McNemar, mid-p", "paired bootstrap")
    assert alone.p < 0.001 < 0.05 < among.p
    # averaged over many trainings, they would not vary
    sure = compare(*(replace(d, averaged=10_000) for d in (one, other)), "macro_f1", pooled)
    assert sure.interval == pytest.approx(compare(one, other, "macro_f1").interval, abs=1e-3)


def answers(right: int) -> Predictions:
    """Of 1,000 images of one class the first ones right."""
    labels, predicted = np.zeros(1000, np.uint8), np.where(np.arange(1000) < right, 0, 1)
    return predictions_of("test", ("a", "b"), [f"{i:04d}" for i in range(1000)], labels, 5.0 * np.eye(2)[predicted])


def test_other_views_of_the_same_trainings_are_paired_by_seed():
    """Three seeds a point apart, and each better by ten images where it looks twice: no seed is any different."""
    run, views = [answers(n) for n in (600, 610, 620)], [answers(n + 10) for n in (600, 610, 620)]
    apart = compare(*resample([run, views], resamples=2000), "accuracy")
    together = compare(*resample([run, views], [range(3)] * 2, resamples=2000), "accuracy")
    assert apart.difference == together.difference == pytest.approx(-0.01)
    assert together.p < 0.01 < 0.05 < apart.p
    # over the seeds that both have, in whatever order
    fewer = resample([run, [*views[2:0:-1], answers(900)]], [range(3), (2, 1, "another")], resamples=2000)
    both = resample([run[1:], views[1:]], [(1, 2)] * 2, resamples=2000)
    assert compare(*fewer, "accuracy") == compare(*both, "accuracy")
    # three times ten images, a third each: variance (.03 / 9 - .01²) / 1000 = 3.23e-6; chance gains of ten images would
    # vary by 1.5 x (.01 x 4/9 + .02 / 9) / 1000 = 1e-5, so 3.23e-6² / ((.5 x 1e-5 / 3)² / 2) = 7.5 degrees of freedom
    reach = stats.t.ppf(0.975, 7.5) * 3.23e-6**0.5
    assert together.interval == pytest.approx((-0.01 - reach, -0.01 + reach), abs=0.0005)


def test_gains_that_differ_by_seed_are_not_taken_for_one_of_them_all():
    """Gains of 0, 10 and 35 images: chance answers of ten images explain a part of that spread, and not the most."""
    run, views = [answers(600)] * 3, [answers(600 + gain) for gain in (0, 10, 35)]
    result = compare(*resample([views, run], [range(3)] * 2, resamples=2000), "accuracy")
    assert result.difference == pytest.approx(0.015)
    assert result.p == pytest.approx(stats.ttest_1samp([0, 10, 35], 0).pvalue, abs=0.1) and result.p > 0.1
    low, high = result.interval
    assert low < 0 < high and low + high == pytest.approx(2 * result.difference)


def test_mcnemar_by_hand_and_by_scipy():
    # 1 against 5 of 6: 2 (C(6,0) + C(6,1)) / 2^6 = 14/64; mid-p takes one C(6,1)/64 away
    assert mcnemar(5, 1) == mcnemar(1, 5) == pytest.approx(8 / 64)
    assert mcnemar(0, 0) == 1
    # 3 against 3: 1 - C(6,3)/2^7
    assert mcnemar(3, 3) == pytest.approx(1 - 20 / 128)
    for b, c in ((12, 30), (100, 140), (0, 9)):
        exact, observed = stats.binomtest(b, b + c).pvalue, stats.binom.pmf(b, b + c, 0.5)
        assert mcnemar(b, c) == pytest.approx(exact - observed)


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
    assert (result.p, result.test) == (mcnemar(*discordant(a, b)), "McNemar, mid-p")
    assert result.difference == pytest.approx((np.sum(a.predicted == LABELS) - np.sum(b.predicted == LABELS)) / 100)
    assert result.interval.low < result.difference < result.interval.high
    assert compare(one, other, "macro_f1").test == "paired bootstrap"
    two, three = resample([[a, model(2)], [b, model(3)]], resamples=500)
    assert compare(two, three, "accuracy").test == "paired bootstrap"
    # the other way round it is the same, with the sign changed
    back = compare(other, one, "accuracy")
    assert (back.difference, back.p) == (-result.difference, result.p)


def test_p_and_interval_of_single_seeds_are_normal():
    result = compare(*resample([[model(0, 2.0)], [model(1, 1.0)]], resamples=500), "macro_f1")
    error = (result.interval.high - result.interval.low) / 2 / stats.norm.ppf(0.975)
    assert result.p == pytest.approx(2 * stats.norm.sf(abs(result.difference) / error))


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


def test_rank_intervals_by_hand():
    assert rank_intervals(3, set()) == [(1, 3)] * 3
    assert rank_intervals(3, {(0, 1), (0, 2), (1, 2)}) == [(1, 1), (2, 2), (3, 3)]
    # the first is better than the last, the middle can be told from neither
    assert rank_intervals(3, {(0, 2)}) == [(1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_entries_share_a_letter_exactly_where_they_cannot_be_told_apart(seed):
    random = np.random.default_rng(seed)
    n = 7
    separable = {(i, j) for i in range(n) for j in range(i + 1, n) if random.random() < 0.2 * (j - i)}
    letters = groups(n, separable)
    for i in range(n):
        for j in range(i + 1, n):
            assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in separable)
