"""How sure a score is: intervals from resampled test images and seeds, and tests of two entries on the same images.

An entry is one way of training, its predictions one for each seed. Two things could have come out otherwise: which
images are in the test split, and the seed. The bootstrap (Efron & Tibshirani 1993) draws both again; images are drawn
within their class, the same for every entry, so that differences between entries are paired.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
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
    means: dict[str, float]
    """Metric -> mean over seeds of the score on the images as they are."""
    of_images: dict[str, Array]
    """Metric -> [B]: mean over the seeds of the scores on the drawn images."""
    of_seeds: dict[str, Array]
    """Metric -> [B]: how far drawing seeds moves that mean; 0 for a single seed, which says nothing of others."""

    def scores(self, metric: str) -> Array:
        """[B] means over drawn seeds on drawn images."""
        return self.of_images[metric] + self.of_seeds[metric]

    def interval(self, metric: str) -> Interval:
        """The percentile interval of a score."""
        return percentile_interval(self.scores(metric))


def resample(
    entries: Sequence[Sequence[Predictions]],
    trainings: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Draws]:
    """The scores of each entry on the same resamples of the images.

    Args:
        entries: for each entry its predictions by seed; all on the same images in the same order.
        trainings: what each entry's seeds were trained as; entries with equal ones (a run and other views of it) have
            the same seeds drawn. None: no two are the same.
        resamples: how many.
        seed: of the draws.

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
    shifts: dict[Hashable, Array] = {}
    draws = []
    for seeds, training in zip(entries, trainings or range(len(entries)), strict=True):
        drawn = [next(joined) for _ in seeds]
        if training not in shifts:
            shifts[training] = seed_shifts(len(seeds), resamples, random)
        draws.append(_draws(seeds, drawn, shifts[training]))
    return draws


def _draws(seeds: Sequence[Predictions], drawn: list[dict[str, Array]], shifts: Array) -> Draws:
    points = [compute(p) for p in seeds]
    means, of_images, of_seeds = {}, {}, {}
    for metric in points[0]:
        own, on_images = np.array([p[metric] for p in points]), np.stack([d[metric] for d in drawn])
        means[metric], of_images[metric] = float(own.mean()), on_images.mean(0)
        of_seeds[metric] = own @ shifts * seed_share(own, on_images)
    return Draws(seeds, means, of_images, of_seeds)


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


def seed_shifts(seeds: int, resamples: int, random: np.random.Generator) -> Array:
    """[seeds, resamples] by how much each seed counts more or less in a mean over seeds drawn with replacement.

    The mean of n drawn seeds varies by (n - 1)/n of what it should (Rao & Wu 1988), so the shifts are stretched by as
    much. A single seed has none.
    """
    if seeds == 1:
        return np.zeros((1, resamples))
    counts = random.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).T
    return (counts - 1) / seeds * (seeds / (seeds - 1)) ** 0.5


def seed_share(scores: Array, on_images: Array) -> float:
    """What of the spread between seeds is the seeds' own and not the images', as a share of its standard deviation.

    Seeds answer some images differently by chance, which spreads their scores even where none is better; drawing the
    images has that in it already.

    Args:
        scores: [S] on the images as they are.
        on_images: [S, B] on drawn images.
    """
    if len(scores) == 1:
        return 0.0
    spread = scores.var(ddof=1)
    by_images = (on_images - on_images.mean(0)).var(axis=1).sum() / (len(scores) - 1)
    return float(max(spread - by_images, 0.0) / spread) ** 0.5 if spread > 0 else 0.0


def percentile_interval(scores: Array) -> Interval:
    """The middle LEVEL of resampled scores."""
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def rank_intervals(scores: Array) -> list[tuple[int, int]]:
    """For each of E entries the middle LEVEL of its ranks over resamples [E, B], the best of a draw being 1.

    Equal scores share the best rank of theirs.
    """
    ordered = np.sort(-scores, axis=0)
    ranks = np.stack([1 + (ordered < row).sum(0) for row in -scores])
    limits = np.quantile(ranks, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1, method="inverted_cdf")
    return [(int(low), int(high)) for low, high in limits.T]


class Comparison(NamedTuple):
    """Entry A against entry B in one metric."""

    difference: float
    """A - B on the images as they are, means over seeds."""
    interval: Interval
    """Of the difference, paired."""
    p: float
    """Two-sided, of no difference."""
    test: str
    """Which test gave it."""


def compare(a: Draws, b: Draws, metric: str) -> Comparison:
    """Two entries of one `resample`; accuracy of one seed each by McNemar's mid-p, all else by the bootstrap."""
    difference, differences = a.means[metric] - b.means[metric], a.scores(metric) - b.scores(metric)
    if metric == "accuracy" and len(a.predictions) == len(b.predictions) == 1:
        p, test = mcnemar(*discordant(a.predictions[0], b.predictions[0]), mid=True), "McNemar, mid-p"
    else:
        p, test = bootstrap_p(difference, differences), "paired bootstrap"
    return Comparison(difference, percentile_interval(differences), p, test)


def bootstrap_p(difference: float, differences: Array) -> float:
    """Two-sided p of no difference, normal with the resampled differences' standard deviation (Wald)."""
    from scipy.stats import norm

    error = float(differences.std(ddof=1))
    return float(2 * norm.sf(abs(difference) / error)) if error > 0 else float(difference == 0)


def expected_best(values: Sequence[float]) -> list[float]:
    """The best of n values drawn with replacement, as one expects it, for n = 1 to all (Dodge et al. 2019, 1909.03004).

    What a search of n trials would have found, were its trials independent.
    """
    ordered, count = np.sort(np.asarray(values, float)), len(values)
    ranks = np.arange(count + 1) / count
    return [float((ordered * np.diff(ranks**n)).sum()) for n in range(1, count + 1)]


def discordant(a: Predictions, b: Predictions) -> tuple[int, int]:
    """Images that only A has right, and that only B has right."""
    right_a, right_b = a.predicted == a.labels, b.predicted == b.labels
    return int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())


def mcnemar(only_a: int, only_b: int, *, mid: bool = False) -> float:
    """McNemar's exact two-sided p for two classifiers on the same images (McNemar 1947).

    Args:
        only_a: images that only A has right.
        only_b: images that only B has right.
        mid: count the observed outcome half (mid-p; Fagerland et al. 2013), which is less conservative.
    """
    from scipy.stats import binom

    n, fewer = only_a + only_b, min(only_a, only_b)
    exact = min(2 * float(binom.cdf(fewer, n, 0.5)), 1.0)
    if not mid or n == 0:
        return exact
    observed = float(binom.pmf(fewer, n, 0.5))
    # where both counts are equal, the two tails meet in the observed one
    return 1 - observed / 2 if only_a == only_b else exact - observed


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of m tests, adjusted so that any error among them is as unlikely as one was (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    m = len(order)
    steps = np.minimum(np.asarray(p_values, float)[order] * (m - np.arange(m)), 1)
    adjusted = np.empty(m)
    adjusted[order] = np.maximum.accumulate(steps) if m else steps
    return adjusted.tolist()


def groups(n: int, separable: set[tuple[int, int]]) -> list[str]:
    """For each of n ranked entries its letters; two entries share one unless they can be told apart.

    Compact letter display by insertion and absorption (Piepho 2004).

    Args:
        n: entries, numbered by rank from 0.
        separable: pairs (i, j), i < j.
    """
    columns: list[set[int]] = [set(range(n))]
    for i, j in sorted(separable):
        split = [c - {dropped} for c in columns if {i, j} <= c for dropped in (i, j)]
        rest = [c for c in columns if not {i, j} <= c]
        kept: list[set[int]] = []
        for column in sorted([*rest, *split], key=len, reverse=True):
            if not any(column <= other for other in kept):
                kept.append(column)
        columns = kept
    ordered = sorted(map(sorted, columns))
    return ["".join(_letter(c) for c, column in enumerate(ordered) if i in column) for i in range(n)]


def _letter(number: int) -> str:
    text = ""
    while number >= 0:
        text = chr(ord("a") + number % 26) + text
        number = number // 26 - 1
    return text
