"""Scores on resampled test images, and how seeds vary beyond that.

An entry is one way of training, its predictions one for each seed. Two things could have come out otherwise: which
images are in the test split, and the seed. The bootstrap (Efron & Tibshirani 1993) draws images again, within their
class, the same for every entry, so that differences between entries are paired; `statistics` adds the seeds.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ferbench.evaluation.metrics import Array, compute, resampled_scores, terms
from ferbench.evaluation.predictions import Predictions, same_images

RESAMPLES = 10_000
LEVEL = 0.95
_CHUNK = 500
"""Resamples at a time: their weights for 3,589 images take 14 MB."""


class Interval(NamedTuple):
    """Limits of a score."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Draws:
    """One entry's scores on every resample; draw `b` of any two entries has the same images."""

    predictions: Sequence[Predictions]
    """By seed."""
    trainings: tuple[Hashable, ...]
    """What each seed was trained as: entries that share some are paired over those."""
    own: dict[str, Array]
    """Metric -> [S] scores on the images as they are."""
    on_images: dict[str, Array]
    """Metric -> [S, B] scores on the drawn images."""
    averaged: int = 1
    """How many trainings each prediction is the average of: an ensemble's members."""

    @property
    def means(self) -> dict[str, float]:
        """Metric -> mean over seeds of the score on the images as they are."""
        return {metric: float(scores.mean()) for metric, scores in self.own.items()}

    def of(self, trainings: Sequence[Hashable]) -> Draws:
        """The seeds of those trainings alone, in that order."""
        kept = [self.trainings.index(t) for t in trainings]
        return replace(
            self,
            predictions=[self.predictions[i] for i in kept],
            trainings=tuple(trainings),
            own={m: scores[kept] for m, scores in self.own.items()},
            on_images={m: scores[kept] for m, scores in self.on_images.items()},
        )


def resample(
    entries: Sequence[Sequence[Predictions]],
    trainings: Sequence[Sequence[Hashable]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    averaged: Sequence[int] | None = None,
) -> list[Draws]:
    """The scores of each entry on the same resamples of the images.

    Args:
        entries: for each entry its predictions by seed; all on the same images in the same order.
        trainings: for each entry what its seeds were trained as, since a run and other views of it are paired; entries
            with all of them equal have the same seeds drawn. None: no two are the same.
        resamples: how many.
        seed: of the draws.
        averaged: how many trainings each entry's predictions are the average of; None: one.

    Raises:
        ValueError: the predictions are of different images.
    """
    everything = [p for seeds in entries for p in seeds]
    labels = everything[0].labels
    if not same_images(everything):
        raise ValueError("predictions on different images cannot be compared")
    random = np.random.Generator(np.random.PCG64(seed))
    summed = [terms(p) for p in everything]
    chunks: list[list[dict[str, Array]]] = [[] for _ in everything]
    for start in range(0, resamples, _CHUNK):
        weights = stratified_weights(labels, min(_CHUNK, resamples - start), random)
        for found, scores in zip(chunks, resampled_scores(summed, weights), strict=True):
            found.append(scores)
    joined = iter([{m: np.concatenate([c[m] for c in parts]) for m in parts[0]} for parts in chunks])
    trainings = trainings or [[(i, s) for s in range(len(seeds))] for i, seeds in enumerate(entries)]
    draws = []
    for seeds, trained, members in zip(entries, trainings, averaged or [1] * len(entries), strict=True):
        own, drawn = [compute(p) for p in seeds], [next(joined) for _ in seeds]
        draws.append(
            Draws(
                predictions=seeds,
                trainings=tuple(trained),
                own={m: np.array([scores[m] for scores in own]) for m in own[0]},
                on_images={m: np.stack([scores[m] for scores in drawn]) for m in own[0]},
                averaged=members,
            )
        )
    return draws


def stratified_weights(labels: npt.NDArray, resamples: int, random: np.random.Generator) -> Array:
    """[resamples, N] how often each image is drawn, with replacement; each class keeps its number of images."""
    weights = np.empty((resamples, len(labels)))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        drawn = random.integers(0, len(members), (resamples, len(members)))
        drawn += np.arange(resamples)[:, None] * len(members)
        counts = np.bincount(drawn.reshape(-1), minlength=drawn.size)
        weights[:, members] = counts.reshape(resamples, -1)
    return weights


class Spread(NamedTuple):
    """The variance between an entry's seeds."""

    own: float
    """What of it is the seeds' own and not the images'.

    Seeds answer some images differently by chance, which spreads their scores even where none is better; drawing the
    images has that in it already.
    """
    images: float
    """What chance answers alone would give."""


def seed_spread(scores: Array, on_images: Array) -> Spread:
    """The spread of the scores [S] on the images as they are, given those on drawn images, [S, B]; 0 for one seed."""
    if len(scores) == 1:
        return Spread(0.0, 0.0)
    by_images = float((on_images - on_images.mean(0)).var(axis=1).sum() / (len(scores) - 1))
    return Spread(max(float(scores.var(ddof=1)) - by_images, 0.0), by_images)


def percentile_interval(scores: Array) -> Interval:
    """The middle LEVEL of resampled scores."""
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
