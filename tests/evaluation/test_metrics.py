from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from ferbench.evaluation.metrics import METRICS, Scores, compute, score, scores_by_split
from ferbench.evaluation.predictions import Predictions


def predictions(true: list[int], predicted: list[int], k: int = 3) -> Predictions:
    probabilities = np.full((len(true), k), 0.1 / (k - 1), np.float32)
    probabilities[np.arange(len(true)), predicted] = 0.9
    classes = tuple(f"class {i}" for i in range(k))
    ids = np.array([f"test-{i:05d}" for i in range(len(true))])
    return Predictions("test", classes, ids, np.array(true, np.uint8), probabilities)


def per_class(scores: Scores, field: str) -> list[float]:
    return [getattr(c, field) for c in scores.per_class.values()]


# true 0 0 0 1 1 2, predicted 0 0 1 1 1 0
#
#           predicted 0  1  2   precision  recall  F1
#   true 0            2  1  0   2/3        2/3     2/3
#   true 1            0  2  0   2/3        1       4/5
#   true 2            1  0  0   0          0       0
def test_scores_by_hand():
    scores = score(predictions([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0]))
    assert scores.n == 6
    assert scores.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert list(scores.per_class) == ["class 0", "class 1", "class 2"]
    assert per_class(scores, "precision") == pytest.approx([2 / 3, 2 / 3, 0])
    assert per_class(scores, "recall") == pytest.approx([2 / 3, 1, 0])
    assert per_class(scores, "f1") == pytest.approx([2 / 3, 4 / 5, 0])
    assert per_class(scores, "support") == [3, 2, 1]
    assert scores.values == pytest.approx(
        {
            "accuracy": 4 / 6,
            "balanced_accuracy": (2 / 3 + 1) / 3,
            "macro_f1": (2 / 3 + 4 / 5) / 3,
            "weighted_f1": (3 * 2 / 3 + 2 * 4 / 5) / 6,
            # of class 2, which has one image
            "rarest_f1": 0.0,
            # confidence .9 throughout: right 4 times, else .9 on a wrong class and .05 on the true one
            "nll": -(4 * np.log(0.9) + 2 * np.log(0.05)) / 6,
            "brier": (4 * (0.1**2 + 2 * 0.05**2) + 2 * (0.9**2 + 0.95**2 + 0.05**2)) / 6,
            # each image has a bin of its own: gaps .1 and .9
            "ece": (4 * 0.1 + 2 * 0.9) / 6,
        }
    )


def test_rarest_class_is_the_one_with_the_fewest_images_of_those_that_have_some():
    # class 1 has one of five images and is found once too often: precision 1/2, recall 1
    assert compute(predictions([0, 0, 1, 2, 2], [0, 1, 1, 2, 2]))["rarest_f1"] == pytest.approx(2 / 3)
    # class 2 has none
    assert compute(predictions([0, 0, 0, 1], [0, 0, 2, 1]))["rarest_f1"] == 1


def test_class_that_is_never_present():
    """It counts in macro-F1, which is over all classes, and not in balanced accuracy, which has no recall for it."""
    scores = score(predictions([0, 0, 1, 1], [0, 2, 1, 1]))
    assert scores.per_class["class 2"].support == 0
    assert per_class(scores, "recall") == [0.5, 1, 0]
    assert scores.values["balanced_accuracy"] == pytest.approx(0.75)
    assert scores.values["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.values["weighted_f1"] == pytest.approx((2 * 2 / 3 + 2 * 1) / 4)
    # also where it is never predicted, so that runs on the same data are told the same
    assert score(predictions([0, 0, 1], [0, 0, 1])).values["macro_f1"] == pytest.approx(2 / 3)


def test_one_class_for_all():
    scores = score(predictions([0, 0, 1, 2], [0, 0, 0, 0]))
    assert scores.confusion == [[2, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert per_class(scores, "precision") == [0.5, 0, 0]
    assert scores.values["balanced_accuracy"] == pytest.approx(1 / 3)
    assert scores.values["macro_f1"] == pytest.approx(2 / 9)


def random_codes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    true = np.concatenate([np.arange(7), random.choice(7, 300, p=[0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17])])
    guess = random.integers(0, 7, len(true))
    return true, np.where(random.random(len(true)) < 0.6, true, guess)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn_and_with_the_confusion_matrix(seed):
    true, predicted = random_codes(seed)
    scores = score(predictions(true.tolist(), predicted.tolist(), 7))
    table = np.array(scores.confusion)
    right, rows, columns = np.diag(table), table.sum(1), table.sum(0)
    f1 = 2 * right / (rows + columns)
    expected = {
        "accuracy": (right.sum() / 307, sklearn_metrics.accuracy_score(true, predicted)),
        "balanced_accuracy": ((right / rows).mean(), sklearn_metrics.balanced_accuracy_score(true, predicted)),
        "macro_f1": (f1.mean(), sklearn_metrics.f1_score(true, predicted, average="macro")),
        "weighted_f1": (f1 @ rows / 307, sklearn_metrics.f1_score(true, predicted, average="weighted")),
    }
    for name, values in expected.items():
        assert [scores.values[name]] * 2 == pytest.approx(values), name
    assert per_class(scores, "precision") == pytest.approx(right / columns)


def test_every_metric_knows_its_direction_and_not_the_order_of_the_images():
    true, predicted = random_codes(5)
    better = predicted.copy()
    better[np.flatnonzero(true != predicted)[0]] = true[np.flatnonzero(true != predicted)[0]]
    as_is, improved, right, wrong = (
        compute(predictions(true.tolist(), codes.tolist(), 7)) for codes in (predicted, better, true, (true + 1) % 7)
    )
    order = np.random.default_rng(0).permutation(len(true))
    shuffled = compute(predictions(true.tolist(), predicted.tolist(), 7).take(order))
    for metric in METRICS:
        values = [scores[metric.name] for scores in (wrong, as_is, improved, right)]
        assert values == sorted(values, reverse=not metric.higher_is_better), metric.name
        assert len(set(values)) == 4, metric.name
        assert shuffled[metric.name] == pytest.approx(as_is[metric.name], rel=1e-9), metric.name
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"):
        assert (wrong[name], right[name]) == (0, 1)


def test_scores_have_every_metric_and_survive_json():
    scores = score(predictions([0, 1, 2], [0, 1, 1]))
    assert list(scores.values) == METRICS.names
    assert Scores.model_validate_json(scores.model_dump_json()) == scores


def test_clean_scores_are_of_the_images_without_a_twin():
    test = predictions([0, 1, 2, 2], [0, 1, 1, 2])
    scores = scores_by_split([test], np.array([True, False, True, True]))
    assert scores["clean"].n == 3
    assert scores["clean"].values["accuracy"] == pytest.approx(2 / 3)
    # nothing to tell apart, or nothing left
    for is_clean in (np.ones(4, bool), np.zeros(4, bool), None):
        assert scores_by_split([test], is_clean) == {"test": score(test)}
    val = dataclasses.replace(test, split="val")
    assert scores_by_split([val], np.array([True, False, True, True])) == {"val": score(val)}
