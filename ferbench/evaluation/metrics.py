"""Scores of saved predictions, by scikit-learn; METRICS is the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from ferbench.evaluation.predictions import Predictions
from ferbench.registry import Registry

Codes = npt.NDArray[np.integer]


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
    compute: Callable[[Codes, Codes, int], float]
    """(true codes [N], predicted codes [N], K) -> score."""


def _accuracy(true: Codes, predicted: Codes, k: int) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(true, predicted))


def _balanced_accuracy(true: Codes, predicted: Codes, k: int) -> float:
    from sklearn.metrics import recall_score

    # over the classes that occur, as balanced_accuracy_score does, without its warning for the others
    present = np.unique(true)
    return float(recall_score(true, predicted, labels=present, average="macro", zero_division=0))


def _macro_f1(true: Codes, predicted: Codes, k: int) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, labels=range(k), average="macro", zero_division=0))


def _weighted_f1(true: Codes, predicted: Codes, k: int) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, labels=range(k), average="weighted", zero_division=0))


METRICS: Registry[Metric] = Registry(
    "metric",
    [
        Metric("accuracy", "accuracy", "share of images classified correctly", True, _accuracy),
        Metric("balanced_accuracy", "balanced accuracy", "mean recall over classes", True, _balanced_accuracy),
        Metric("macro_f1", "macro-F1", "mean F1 over classes, each class alike", True, _macro_f1),
        Metric("weighted_f1", "weighted F1", "mean F1 over classes, weighted by support", True, _weighted_f1),
    ],
)


class ClassScores(BaseModel):
    """One class's scores."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    precision: float
    recall: float
    f1: float
    support: int
    """Images of the class."""


class Scores(BaseModel):
    """All scores of one split."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    n: int
    """Images."""
    values: dict[str, float]
    """METRICS by name, on the 0-1 scale."""
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
        values={m.name: m.compute(true, predicted, k) for m in METRICS},
        per_class=per_class,
        confusion=confusion_matrix(true, predicted, labels=range(k)).tolist(),
    )
