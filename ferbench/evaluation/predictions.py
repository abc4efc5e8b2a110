"""What a run hands on: class probabilities with image ids. Every score is computed from these, never from a model."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ferbench.errors import InputError


@dataclass(frozen=True, eq=False)
class Predictions:
    """One model's probabilities on one split.

    Raises:
        InputError: shapes disagree, an id or class appears twice, a label is no class, or a row is no distribution.
    """

    split: str
    """"val", "test", or "honest": test at the epoch that val would have chosen, where test chose."""
    classes: tuple[str, ...]
    """[K] class names."""
    ids: npt.NDArray[np.str_]
    """[N] image ids, as `data.dataset.image_ids`."""
    labels: npt.NDArray[np.uint8]
    """[N] true class codes."""
    probabilities: npt.NDArray[np.float32]
    """[N, K], rows sum to 1."""

    def __post_init__(self) -> None:
        n, k = len(self.ids), len(self.classes)
        kinds = self.ids.dtype.kind, self.labels.dtype.kind, self.probabilities.dtype.kind
        if self.ids.ndim != 1 or kinds[0] not in "US" or kinds[1] not in "iu" or kinds[2] != "f":
            types = f"{self.ids.dtype}, {self.labels.dtype}, {self.probabilities.dtype}"
            raise InputError(
                f"predictions on {self.split}: ids, labels and probabilities ({types}) are no texts, whole numbers and "
                "floats"
            )
        if self.probabilities.shape != (n, k) or self.labels.shape != (n,):
            raise InputError(
                f"predictions on {self.split}: {n} ids, {k} classes, labels {list(self.labels.shape)}, "
                f"probabilities {list(self.probabilities.shape)} do not agree"
            )
        if len(set(self.classes)) < k or len(np.unique(self.ids)) < n:
            raise InputError(f"predictions on {self.split}: a class or an image id appears twice")
        strange = self.labels[~np.isin(self.labels, np.arange(k))]
        if len(strange):
            raise InputError(f"predictions on {self.split}: label {strange[0]} is none of {k} classes")
        sums = self.probabilities.sum(1, dtype=np.float64)
        bad = np.flatnonzero(~(np.abs(sums - 1) < 1e-3) | (self.probabilities < 0).any(1))
        if len(bad):
            raise InputError(f"predictions on {self.split}: {self.ids[bad[0]]} is no distribution (sum {sums[bad[0]]})")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """[N] most probable class codes."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """[N] probabilities of those."""
        return self.probabilities.max(1)

    @property
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """[N, K], finite: a probability of 0 is one too small for float32."""
        return np.log(np.maximum(self.probabilities, np.finfo(np.float32).tiny), dtype=np.float64)

    def take(self, chosen: npt.NDArray) -> Predictions:
        """The predictions on some of the images, by index or mask."""
        return replace(self, ids=self.ids[chosen], labels=self.labels[chosen], probabilities=self.probabilities[chosen])

    def to_bytes(self) -> bytes:
        """The .npz file's content."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            split=np.array(self.split),
            classes=np.array(self.classes),
            ids=self.ids,
            labels=self.labels,
            probabilities=self.probabilities,
        )
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """The predictions in a .npz file.

        Raises:
            InputError: the file is missing, damaged or not consistent.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(
                    str(stored["split"]),
                    tuple(map(str, stored["classes"])),
                    stored["ids"],
                    stored["labels"],
                    stored["probabilities"],
                )
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception as error:
            raise InputError(f"{path}: not readable as predictions ({type(error).__name__}: {error})") from None


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Probabilities `[N, K]` of logits `[N, K]`."""
    exp = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
    return (exp / exp.sum(1, keepdims=True)).astype(np.float32)


def predictions_of(
    split: str, classes: Sequence[str], ids: Sequence[str], labels: npt.NDArray[np.uint8], logits: npt.NDArray
) -> Predictions:
    """Predictions from a network's logits `[N, K]`."""
    return Predictions(split, tuple(classes), np.array(ids), np.asarray(labels, np.uint8), softmax(logits))


def same_images(predictions: Iterable[Predictions]) -> bool:
    """Whether predictions are of the same classes and images in the same order."""
    first, *others = predictions
    return all(
        p.classes == first.classes and np.array_equal(p.ids, first.ids) and np.array_equal(p.labels, first.labels)
        for p in others
    )


def average(members: Sequence[Predictions], weights: npt.NDArray) -> Predictions:
    """Predictions with the weighted mean of the members' probabilities."""
    mean = sum(w * p.probabilities.astype(np.float64) for w, p in zip(weights, members, strict=True)) / weights.sum()
    return replace(members[0], probabilities=mean.astype(np.float32))
