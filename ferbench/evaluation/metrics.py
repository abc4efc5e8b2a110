"""Scores of saved predictions; METRICS is the table of them.

Every score is a function of sums over the images: counts of (true, predicted), of log-likelihoods, of gaps between
confidence and correctness. So its value on any resample of the images is that function of one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ferbench.evaluation.predictions import Predictions
from ferbench.registry import Registry

Array = npt.NDArray[np.float64]
Summed = npt.NDArray[np.floating]

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Metric:
    """One score of predictions."""

    name: str
    """Key in records."""
    title: str
    """Column heading."""
    description: str
    """What it measures, in a line."""
    higher_is_better: bool
    """Direction for sorting."""
    terms: Callable[[Predictions], Summed]
    """Predictions on N images -> [N, m], what is summed over the images."""
    of_sums: Callable[[Array], Array]
    """Those sums over some images [..., m], the first of them the number of images -> scores [...]."""


def confusion_terms(predictions: Predictions) -> Summed:
    """[N, 1 + K²]: 1, and which cell of the confusion matrix (true, predicted) the image is in."""
    n, k = len(predictions), len(predictions.classes)
    # counts are exact in single precision, and their products take half the time
    terms = np.zeros((n, 1 + k * k), np.float32)
    terms[:, 0] = 1
    terms[np.arange(n), 1 + predictions.labels.astype(np.intp) * k + predictions.predicted] = 1
    return terms


def confusions(sums: Array) -> Array:
    """Confusion matrices [..., K, K], true class by row, of sums of `confusion_terms`."""
    k = round((sums.shape[-1] - 1) ** 0.5)
    return sums[..., 1:].reshape(*sums.shape[:-1], k, k)


def recalls(counts: Array) -> Array:
    """[..., K] of confusion matrices [..., K, K]; 0 for a class without images."""
    return _ratio(_right(counts), counts.sum(-1))


def f1s(counts: Array) -> Array:
    """[..., K] F1 of each class of confusion matrices [..., K, K]; 0 for one neither present nor predicted."""
    return _ratio(2 * _right(counts), counts.sum(-1) + counts.sum(-2))


def _right(counts: Array) -> Array:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def _accuracy(sums: Array) -> Array:
    return _right(confusions(sums)).sum(-1) / sums[..., 0]


def _balanced(sums: Array) -> Array:
    # over the classes that occur: the others have no recall
    counts = confusions(sums)
    return recalls(counts).sum(-1) / (counts.sum(-1) > 0).sum(-1)


def _macro_f1(sums: Array) -> Array:
    return f1s(confusions(sums)).mean(-1)


def _weighted_f1(sums: Array) -> Array:
    counts = confusions(sums)
    return (f1s(counts) * counts.sum(-1)).sum(-1) / sums[..., 0]


def _rarest_f1(sums: Array) -> Array:
    counts = confusions(sums)
    images = counts.sum(-1)
    # stratified resamples leave every class its number of images, so this is one class in all of them
    rarest = np.argmin(np.where(images > 0, images, np.inf), -1)
    return np.take_along_axis(f1s(counts), rarest[..., None], -1)[..., 0]


def _with_count(values: Array) -> Array:
    return np.column_stack([np.ones(len(values)), values])


def _nll_terms(predictions: Predictions) -> Array:
    return _with_count(-predictions.log_probabilities[np.arange(len(predictions)), predictions.labels])


def _brier_terms(predictions: Predictions) -> Array:
    truth = np.eye(len(predictions.classes))[predictions.labels]
    return _with_count(((predictions.probabilities - truth) ** 2).sum(1))


def _mean(sums: Array) -> Array:
    return sums[..., 1] / sums[..., 0]


def calibration_bins(predictions: Predictions) -> npt.NDArray[np.intp]:
    """[N] which of CALIBRATION_BINS equally filled bins, by confidence, each image is in (arXiv 1904.01685)."""
    n = len(predictions)
    bins = np.empty(n, np.intp)
    # equal confidences in the order of the ids, so that the order of the rows does not matter
    bins[np.lexsort((predictions.ids, predictions.confidence))] = np.arange(n) * CALIBRATION_BINS // n
    return bins


def _ece_terms(predictions: Predictions) -> Array:
    n = len(predictions)
    gaps = np.zeros((n, 1 + CALIBRATION_BINS))
    gaps[:, 0] = 1
    right = predictions.predicted == predictions.labels
    gaps[np.arange(n), 1 + calibration_bins(predictions)] = predictions.confidence - right
    return gaps


def _ece(sums: Array) -> Array:
    return np.abs(sums[..., 1:]).sum(-1) / sums[..., 0]


_BINS = f"expected calibration error, {CALIBRATION_BINS} equally filled bins"

METRICS: Registry[Metric] = Registry(
    "metric",
    [
        Metric(*row)
        for row in (
            ("accuracy", "accuracy", "share of images classified correctly", True, confusion_terms, _accuracy),
            ("balanced_accuracy", "balanced accuracy", "mean recall over classes", True, confusion_terms, _balanced),
            ("macro_f1", "macro-F1", "mean F1 over classes, each class alike", True, confusion_terms, _macro_f1),
            ("weighted_f1", "weighted F1", "mean F1 over classes, by support", True, confusion_terms, _weighted_f1),
            (
                "rarest_f1",
                "F1 of the rarest class",
                "F1 of the class with the fewest images",
                True,
                confusion_terms,
                _rarest_f1,
            ),
            ("nll", "NLL", "mean negative log-likelihood of the true class, nats", False, _nll_terms, _mean),
            ("brier", "Brier score", "mean squared distance from the truth, 0 to 2", False, _brier_terms, _mean),
            ("ece", "ECE", _BINS, False, _ece_terms, _ece),
        )
    ],
)

Terms = dict[Callable[[Predictions], Summed], Summed]
Sums = dict[Callable[[Predictions], Summed], Array]


def terms(predictions: Predictions, *names: str) -> Terms:
    """What metrics sum over the images, each kind once; all metrics where none is named."""
    return {of: of(predictions) for of in dict.fromkeys(METRICS[n].terms for n in names or METRICS.names)}


def scores_of(sums: Sums) -> dict[str, Array]:
    """Every metric by name, [...], of sums [..., m] of its terms over images; those whose sums are there."""
    return {m.name: m.of_sums(sums[m.terms]) for m in METRICS if m.terms in sums}


def resampled_scores(sets: Sequence[Terms], weights: Array) -> list[dict[str, Array]]:
    """For each set of terms of the same N images every metric by name, [B].

    Args:
        sets: each with the same kinds of terms.
        weights: [B, N] how often each image counts in each of B resamples.
    """
    sums: list[Sums] = [{} for _ in sets]
    for of in sets[0]:
        # one product for all sets: many narrow ones would spend their time on reading the weights
        widths = [own[of].shape[1] for own in sets]
        stacked = np.concatenate([own[of] for own in sets], axis=1)
        products = (weights.astype(stacked.dtype) @ stacked).astype(np.float64)
        for own, part in zip(sums, np.split(products, np.cumsum(widths)[:-1], axis=1), strict=True):
            own[of] = part
    return [scores_of(own) for own in sums]


def compute(predictions: Predictions, *names: str) -> dict[str, float]:
    """Every metric by name; where some are named, those at least."""
    sums: Sums = {of: own.sum(0, np.float64) for of, own in terms(predictions, *names).items()}
    return {name: float(value) for name, value in scores_of(sums).items()}


class ClassScores(BaseModel):
    """One class's scores."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    precision: float
    recall: float
    f1: float
    support: int
    """Images of the class."""


class Scores(BaseModel):
    """All scores of one split."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    n: int
    """Images."""
    values: dict[str, float]
    """METRICS by name."""
    per_class: dict[str, ClassScores]
    """By class name, in the order of the codes."""
    confusion: list[list[int]]
    """[K][K] counts: true class by row, predicted by column."""


def score(predictions: Predictions) -> Scores:
    """All scores of predictions; a class that is never predicted has precision and F1 of 0."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    true, predicted, k = predictions.labels, predictions.predicted, len(predictions.classes)
    columns = precision_recall_fscore_support(true, predicted, labels=range(k), zero_division=0)
    per_class = {
        name: ClassScores(precision=float(p), recall=float(r), f1=float(f), support=int(s))
        for name, p, r, f, s in zip(predictions.classes, *columns, strict=True)
    }
    return Scores(
        n=len(predictions),
        values=compute(predictions),
        per_class=per_class,
        confusion=confusion_matrix(true, predicted, labels=range(k)).tolist(),
    )


def scores_by_split(splits: Sequence[Predictions], is_clean: npt.NDArray[np.bool_] | None) -> dict[str, Scores]:
    """Scores by split, and as "clean" those of the test images without a twin in train or val, unless all or none are.

    Args:
        splits: predictions.
        is_clean: [N], for the test images as `data.protocol.clean_test`; None: not known.
    """
    scores = {p.split: score(p) for p in splits}
    test = next((p for p in splits if p.split == "test"), None)
    if test is not None and is_clean is not None and is_clean.any() and not is_clean.all():
        scores["clean"] = score(test.take(is_clean))
    return scores
