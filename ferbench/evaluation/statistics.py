"""Tests of two entries on the same images, of many pairs at once, and the groups they leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ferbench.evaluation.metrics import METRICS
from ferbench.evaluation.predictions import Predictions
from ferbench.evaluation.resampling import LEVEL, Draws, Interval, Spread, percentile_interval, seed_spread

_DOUBT = 0.5
"""How much of the images' part counts as uncertainty of the seeds' own part, which is a difference from it: of
simulated equals with three paired seeds, 5 to 15 % were told apart with none of it, 2 to 11 % with half, 0 to 3 % with
all (at 5 %)."""
_LEAST_FREEDOM = 2.0
"""With a single degree of freedom, that of two seeds, an interval of a score reaches beyond all scores."""
_MANY = 5
"""Entries from which a median says something."""


class Pooled(NamedTuple):
    """How seeds vary, from several entries whose seeds are taken to vary alike."""

    spread: Spread
    """Variance between seeds."""
    freedom: int
    """Its degrees of freedom; 0: no entry has several seeds."""


def pooled_spread(entries: Sequence[Draws], metric: str) -> Pooled:
    """How the seeds vary of entries that share no training.

    The mean of their variances; of many entries the median, as one that has gone astray must not widen all.
    """
    from scipy.stats import chi2

    several = [d for d in entries if len(d.predictions) > 1]
    if not several:
        return Pooled(Spread(0.0, 0.0), 0)
    degrees = np.array([len(d.predictions) - 1 for d in several])
    variances = np.array([d.own[metric].var(ddof=1) for d in several])
    if len(degrees) >= _MANY:
        # the median of a variance is less than its mean
        typical = float(np.median(variances * degrees / chi2.median(degrees)))
    else:
        typical = float(np.average(variances, weights=degrees))
    by_images = [seed_spread(d.own[metric], d.on_images[metric]).images for d in several]
    images = float(np.average(by_images, weights=degrees))
    return Pooled(Spread(max(typical - images, 0.0), images), int(degrees.sum()))


def interval(draws: Draws, metric: str) -> Interval:
    """The interval of an entry's mean score over other test images and, with several seeds, other seeds.

    Of one seed the middle of its resampled scores. Of several Student's, as in `compare`: seeds drawn with replacement
    reach no further than the two or three that there are, and intervals of two that differ by 3 points then held 71 %
    instead of 84 (docs/statistics.md).
    """
    own, on_images = draws.own[metric], draws.on_images[metric]
    n = len(own)
    if n == 1:
        return percentile_interval(on_images[0])
    error, freedom = welch(float(on_images.mean(0).var(ddof=1)), [(seed_spread(own, on_images), n, n - 1)])
    low, high = _student(draws.means[metric], error, freedom)
    # no score is negative, and what is the better the higher is a share
    return Interval(max(low, 0.0), min(high, 1.0) if METRICS[metric].higher_is_better else high)


def _student(middle: float, error: float, freedom: float) -> Interval:
    from scipy.stats import t

    reach = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Interval(middle - reach, middle + reach)


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


def compare(a: Draws, b: Draws, metric: str, pooled: Pooled | None = None) -> Comparison:
    """Two entries of one `resample`: where they share trainings, over those alone.

    The interval is Student's: with the variance of the difference over resamples, and with that between seeds, of which
    two or three say little. Over shared trainings that is the variance of their differences; else each one's own, or
    the pooled one if that is larger or there is a single seed. p is of the same; of one seed's accuracy each, where
    nobody says how seeds vary, it is McNemar's mid-p.

    Args:
        pooled: of the entries beside them; None takes these two.
    """
    from scipy.stats import t

    shared = [t for t in a.trainings if t in b.trainings]
    if shared and a.trainings != b.trainings:
        a, b = a.of(shared), b.of(shared)
    difference = a.means[metric] - b.means[metric]
    differences = a.on_images[metric].mean(0) - b.on_images[metric].mean(0)
    of_seeds = _of_seeds(a, b, metric, pooled)
    error, freedom = welch(float(differences.var(ddof=1)), of_seeds)
    # two single seeds, and nobody who says how seeds vary
    if metric == "accuracy" and not any(known for _, _, known in of_seeds):
        p, test = mcnemar(*discordant(a.predictions[0], b.predictions[0])), "McNemar, mid-p"
    else:
        p = float(2 * t.sf(abs(difference) / error, freedom)) if error > 0 else float(difference == 0)
        test = "paired bootstrap"
    return Comparison(difference, _student(difference, error, freedom), p, test)


def _of_seeds(a: Draws, b: Draws, metric: str, pooled: Pooled | None) -> list[tuple[Spread, int, int]]:
    """What seeds add to the variance of a difference, as `welch` takes it."""
    if a.trainings == b.trainings:
        spread = seed_spread(a.own[metric] - b.own[metric], a.on_images[metric] - b.on_images[metric])
        return [(spread, len(a.predictions), len(a.predictions) - 1)]
    pooled = pooled or pooled_spread((a, b), metric)
    own, images = 0.0, 0.0
    for d in (a, b):
        n = len(d.predictions)
        # a single seed says nothing of how others would vary
        spread = seed_spread(d.own[metric], d.on_images[metric]) if n > 1 else pooled.spread
        own += max(spread.own, pooled.spread.own) / (n * d.averaged)
        images += spread.images / (n * d.averaged)
    # the same doubt is in both
    return [(Spread(own, images), 1, pooled.freedom)]


def welch(of_images: float, of_seeds: Sequence[tuple[Spread, int, int]]) -> tuple[float, float]:
    """Standard error of a difference and its degrees of freedom (Satterthwaite 1946, Welch 1947).

    Args:
        of_images: its variance over drawn images, known as well as one likes.
        of_seeds: for each mean in it the spread of its seeds, their number, and the degrees of freedom of that spread.
    """
    total = of_images + sum(spread.own / n for spread, n, _ in of_seeds)
    doubt = sum(((s.own + _DOUBT * s.images) / n) ** 2 / freedom for s, n, freedom in of_seeds if freedom)
    return total**0.5, max(total**2 / doubt, _LEAST_FREEDOM) if doubt > 0 else float("inf")


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


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's two-sided mid-p for two classifiers on the same images (McNemar 1947; Fagerland et al. 2013).

    The observed outcome counts half, which is less conservative than the exact p.

    Args:
        only_a: images that only A has right.
        only_b: images that only B has right.
    """
    from scipy.stats import binom

    n, fewer = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    observed = float(binom.pmf(fewer, n, 0.5))
    # where both counts are equal, the two tails meet in the observed one
    return 1 - observed / 2 if only_a == only_b else 2 * float(binom.cdf(fewer, n, 0.5)) - observed


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of m tests, adjusted so that any error among them is as unlikely as one was (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    m = len(order)
    steps = np.minimum(np.asarray(p_values, float)[order] * (m - np.arange(m)), 1)
    adjusted = np.empty(m)
    adjusted[order] = np.maximum.accumulate(steps) if m else steps
    return adjusted.tolist()


def rank_intervals(n: int, separable: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """For each of n ranked entries the ranks that it may have: behind all that are better, before all that are worse.

    All of them hold where no pair is told apart by mistake (Al Mohamad, Goeman, van Zwet: Simultaneous confidence
    intervals for ranks).

    Args:
        n: entries, numbered by rank from 0.
        separable: pairs (i, j) that can be told apart, of which i is better.
    """
    better, worse = Counter(j for _, j in separable), Counter(i for i, _ in separable)
    return [(1 + better[i], n - worse[i]) for i in range(n)]


def groups(n: int, separable: set[tuple[int, int]]) -> list[str]:
    """For each of n ranked entries its letters; two entries share one unless they can be told apart.

    Compact letter display by insertion and absorption (Piepho 2004).

    Args:
        n: entries, numbered by rank from 0.
        separable: pairs (i, j), in any order.
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
