from __future__ import annotations

import numpy as np
import pytest

from ferbench.data.dataset import FER2013_COUNTS
from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.knobs import strategy_defaults
from ferbench.training.formulas import (
    effective_number_weights,
    inverse_weights,
    log_prior,
    margins,
    power_probabilities,
    repeat_factor_probabilities,
    smoothing_by_class,
)
from ferbench.training.imbalance import STRATEGIES
from ferbench.training.losses import InfluenceLoss
from ferbench.training.strategies import check_corrections, select_strategies, strategy_of
from ferbench.training.treatment import Treatment

TRAIN = np.array(FER2013_COUNTS["train"])


def inverse(power: float, clip: float = 0.0, counts: np.ndarray = TRAIN) -> np.ndarray:
    return inverse_weights(counts, {"power": power, "clip": clip})


def effective(beta: float, clip: float = 0.0, counts: np.ndarray = TRAIN) -> np.ndarray:
    return effective_number_weights(counts, {"beta": beta, "clip": clip})


# worked out apart from this code for FER2013's counts, to three digits
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (inverse(1.0), [0.480, 4.398, 0.468, 0.266, 0.397, 0.605, 0.386]),
        (inverse(0.5), [0.806, 2.439, 0.796, 0.600, 0.733, 0.904, 0.723]),
        (effective(0.999), [0.799, 2.219, 0.798, 0.785, 0.791, 0.819, 0.790]),
        (effective(0.9999), [0.528, 4.077, 0.517, 0.338, 0.454, 0.640, 0.444]),
        (log_prior(TRAIN), [-1.972, -4.187, -1.947, -1.381, -1.782, -2.203, -1.755]),
    ],
)
def test_weights_of_fer2013(weights, expected):
    np.testing.assert_allclose(weights, expected, atol=5.1e-4)


def test_small_betas_treat_all_classes_alike():
    # 0.99^436 = 0.0125, all that is left to tell disgust from the rest
    np.testing.assert_allclose(effective(0.99), 1, atol=0.012)
    np.testing.assert_array_equal(effective(0.0), np.ones(7))


def test_power_is_between_none_and_inverse():
    np.testing.assert_array_equal(inverse(0.0), np.ones(7))
    # 1/9, 1/3 and 1 to the power given, over their mean
    np.testing.assert_allclose(inverse(1.0, counts=np.array([9, 3, 1])), np.array([1, 3, 9]) * 3 / 13)
    np.testing.assert_allclose(inverse(0.5, counts=np.array([9, 4, 1])), np.array([2, 3, 6]) * 3 / 11)


@pytest.mark.parametrize("weights", [inverse, effective])
def test_clip_limits_the_rarest_class(weights):
    knob = 1.0 if weights is inverse else 0.9999
    free, clipped = weights(knob), weights(knob, 2.0)
    assert clipped.mean() == pytest.approx(1)
    # 2.0 before the mean is made 1 again; the other classes keep their proportions
    np.testing.assert_allclose(clipped[1] / clipped[0], 2.0 / free[0])
    np.testing.assert_allclose(clipped[2:] / clipped[0], free[2:] / free[0])
    np.testing.assert_allclose(weights(knob, 100.0), free)


@pytest.mark.parametrize(
    ("strategy", "knob", "value"),
    [("effective_number", "beta", v) for v in (1.0, 1.5, -0.1)] + [("label_aware_smoothing", "head", 1.0)],
)
def test_impossible_knobs_are_refused_before_anything_is_computed(strategy, knob, value):
    with pytest.raises(InputError, match=rf"imbalance\.params: {knob} = {value}"):
        load_recipe("plain_cnn", strategy=strategy, overrides={f"imbalance.params.{knob}": value})


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_class_without_images_is_refused(name):
    with pytest.raises(InputError, match="class 1 has no training image"):
        Treatment(STRATEGIES[name], np.array([5, 0, 3]), strategy_defaults()[name], np.zeros(1, int))


# 16^-1/4 = 1/2 and 81^-1/4 = 1/3 of the margin of a class of one image
def test_margins_by_hand():
    np.testing.assert_allclose(margins(np.array([81, 16, 1]), {"max_margin": 0.6}), [0.2, 0.3, 0.6])
    # FER2013's, from (436 / n_c)^(1/4) / 2
    expected = [0.287, 0.5, 0.286, 0.248, 0.274, 0.304, 0.272]
    np.testing.assert_allclose(margins(TRAIN, {"max_margin": 0.5}), expected, atol=5.1e-4)


# sampling


@pytest.mark.parametrize(
    ("power", "expected"),
    # 30, 9.4868 and 3.1623 over their sum of 42.6491
    [(0.0, [1 / 3, 1 / 3, 1 / 3]), (1.0, [0.9, 0.09, 0.01]), (0.5, [0.703415, 0.222440, 0.074146])],
)
def test_share_of_draws_by_class(power, expected):
    np.testing.assert_allclose(power_probabilities(np.array([900, 90, 10]), {"power": power}), expected, rtol=1e-4)


# pi = .9 .09 .01 and t = .25: 1, sqrt(2.7778) = 1.6667 and sqrt(25) = 5 times, so 900, 150 and 50 of 1100
def test_repeat_factors_by_hand():
    shares = repeat_factor_probabilities(np.array([900, 90, 10]), {"threshold": 0.25})
    np.testing.assert_allclose(shares, [900 / 1100, 150 / 1100, 50 / 1100])
    # no class is below a share of 0: everything comes once
    np.testing.assert_allclose(repeat_factor_probabilities(np.array([9, 1]), {"threshold": 0.0}), [0.9, 0.1])


def test_smoothing_rises_with_the_class():
    # of counts 10, 20 and 30 the middle one is half-way: sin 45 degrees
    smoothing = smoothing_by_class(np.array([10, 20, 30]), {"head": 0.4, "tail": 0.1})
    np.testing.assert_allclose(smoothing, [0.1, 0.1 + 0.3 * 2**-0.5, 0.4])
    np.testing.assert_allclose(smoothing_by_class(np.array([5, 5]), {"head": 0.4, "tail": 0.1}), 0.1)


LABELS = np.repeat([0, 1, 2], [6, 3, 1])[np.random.default_rng(0).permutation(10)]


def treatment(name: str) -> Treatment:
    knobs = {k: v for part in name.split("+") for k, v in strategy_defaults()[part].items()}
    return Treatment(strategy_of(name), np.bincount(LABELS), knobs, LABELS)


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_image_weights_follow_the_class_shares(name):
    counts, weights = np.bincount(LABELS), treatment(name).image_weights(10, 10)
    sampling = STRATEGIES[name].sampling
    if sampling is None:
        assert weights is None
        return
    by_class = [weights[c == LABELS].sum() for c in range(3)]
    np.testing.assert_allclose(by_class, sampling(counts, strategy_defaults()[name]))
    assert all(len(set(weights[c == LABELS].tolist())) == 1 for c in range(3))


# schedules


def test_deferred_weights_begin_after_their_share_of_the_epochs():
    """Of ten epochs a start of .8 leaves the last two; of five the last."""
    deferred = treatment("drw")
    plain, weighted = deferred.loss(1, 10), deferred.loss(10, 10)
    assert plain is not weighted
    assert [deferred.loss(e, 10) is weighted for e in range(1, 11)] == [False] * 8 + [True] * 2
    assert [deferred.loss(e, 5) is weighted for e in range(1, 6)] == [False] * 4 + [True]
    # 160 epochs or one, it is never left out
    for epochs in (1, 2, 3, 4):
        assert [deferred.loss(e, epochs) is weighted for e in range(1, epochs + 1)] == [False] * (epochs - 1) + [True]


def test_deferred_sampling_begins_after_its_share_of_the_epochs():
    deferred = treatment("drs")
    assert [deferred.image_weights(e, 10) is not None for e in range(1, 11)] == [False] * 8 + [True] * 2


def test_progressive_sampling_goes_from_all_images_alike_to_all_classes_alike():
    sampling = treatment("progressive_sampling")
    shares = [[float(sampling.image_weights(epoch, 5)[c == LABELS].sum()) for c in range(3)] for epoch in (1, 3, 5)]
    np.testing.assert_allclose(shares[0], [0.6, 0.3, 0.1])
    np.testing.assert_allclose(shares[1], [(0.6 + 1 / 3) / 2, (0.3 + 1 / 3) / 2, (0.1 + 1 / 3) / 2])
    np.testing.assert_allclose(shares[2], [1 / 3] * 3)


def test_influence_comes_on_half_way():
    loss = [type(treatment("influence_balanced").loss(e, 4)) is InfluenceLoss for e in range(1, 5)]
    assert loss == [False, False, True, True]


# several as one


def test_sum_of_strategies_has_the_parts_of_each():
    both = strategy_of("ldam+drw")
    assert (both.name, both.head, both.weights) == ("ldam+drw", "normalised", effective_number_weights)
    assert both.loss == STRATEGIES["ldam"].loss
    check_corrections(both)
    assert [s.name for s in select_strategies("none, ldam+drw ,foc*,none")] == ["none", "ldam+drw", "focal"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("focal+ldam", "both have loss of their own"),
        ("drw+inverse", "both have weights of their own"),
        ("drs+repeat_factor", "both have sampling of their own"),
        ("remix+cmo", "both have mixing of their own"),
        ("none+drw", "none goes with no other"),
        ("drw+posthoc_class_bias", "posthoc_class_bias goes with no other"),
        ("drw+focl", "did you mean focal"),
    ],
)
def test_sums_that_make_no_strategy(name, said):
    with pytest.raises(InputError, match=said):
        strategy_of(name)


@pytest.mark.parametrize(
    ("name", "twice"),
    [
        ("balanced_sampling+inverse", "class weights and by sampling"),
        ("balanced_softmax+drs", "sampling and by a loss with the class prior in it"),
        ("logit_adjusted+effective_number", "class weights and by a loss"),
        ("ldam+drw", ""),
        ("focal+drs", ""),
        ("cmo+balanced_softmax", ""),
        ("label_aware_smoothing+drw", ""),
    ],
)
def test_correcting_twice_is_refused(name, twice):
    if not twice:
        check_corrections(strategy_of(name))
        return
    with pytest.raises(InputError, match=f"corrects twice, by {twice}.*--allow-double-correction"):
        check_corrections(strategy_of(name))


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_no_strategy_corrects_twice(name):
    check_corrections(STRATEGIES[name])
