"""What an entry's predictions say beyond its scores: intervals, ranks and groups within its track, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from ferbench.errors import InputError
from ferbench.evaluation.calibration import Reliability, at_temperature, fit_temperature, reliability
from ferbench.evaluation.metrics import METRICS, compute
from ferbench.evaluation.predictions import Predictions, same_images
from ferbench.evaluation.resampling import Draws, Interval, resample
from ferbench.evaluation.statistics import (
    Comparison,
    Pooled,
    compare,
    groups,
    holm,
    interval,
    pooled_spread,
    rank_intervals,
)
from ferbench.report.entries import family
from ferbench.report.together import done_together

if TYPE_CHECKING:
    from ferbench.records.store import Store
    from ferbench.report.entries import Entry
    from ferbench.report.leaderboard import Leaderboard, Track

ERROR_RATE = 0.05
"""Of any pair of a track that is told apart: the chance that one of them is not different, by Holm's correction."""

GAINS = ("accuracy", "macro_f1", "rarest_f1", "ece")
"""What an imbalance strategy is judged by."""

WEIGHED = 100
"""Entries of a track, from the best, that are weighed: those that tables show."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far probabilities can be taken at their word, means over seeds."""

    temperature: float
    """Fitted on val."""
    after: dict[str, float]
    """Metric -> test score at that temperature."""
    before_bins: Reliability
    after_bins: Reliability
    """Of the test images of all seeds."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the predictions of an entry's seeds say."""

    intervals: dict[str, Interval]
    """Metric -> 95 % interval of the mean test score, over other test images and, with several seeds, other seeds."""
    ranks: tuple[int, int]
    """The ranks by accuracy among those entries that the pairs told apart leave it, 95 % sure for all of them."""
    group: str
    """Letters; entries of a track that share one cannot be told apart by accuracy."""
    calibration: Calibration
    gains: dict[str, Comparison]
    """Metric of GAINS -> the entry less its own model and recipe without a strategy; empty where there is none."""


def weigh_all(board: Leaderboard, store: Store) -> Leaderboard:
    """The leaderboard with the evidence of the entries that its tables show."""
    # scores that were chosen on test are not worth an interval; the longest first, so that all cores end together
    weighed = sorted((t for t in board.tracks if t.data.protocol != "oracle"), key=lambda t: -len(t.entries))
    # one thread each: the same bits whatever the machine, and two processes with two each took half as long again
    with threadpool_limits(1):
        found = done_together([partial(_evidence, t, store) for t in weighed])
    evidence = {t.slug: of_entries for t, of_entries in zip(weighed, found, strict=True)}
    return replace(board, tracks=tuple(_with(t, evidence.get(t.slug, {})) for t in board.tracks))


def _with(track: Track, evidence: dict[str, Evidence]) -> Track:
    return replace(track, entries=tuple(replace(e, evidence=evidence.get(e.slug)) for e in track.entries))


def _evidence(track: Track, store: Store) -> dict[str, Evidence]:
    """By slug, the evidence of the best entries, as far as their predictions are there and of the track's images."""
    loaded = {e.slug: _predictions(e, store) for e in track.entries[:WEIGHED]}
    found = {slug: p for slug, p in loaded.items() if p and all(_is_scored(own, track) for own in p["test"])}
    reference = next(iter(found.values()), None)
    found = {slug: p for slug, p in found.items() if reference and same_images([*reference["test"], *p["test"]])}
    if not found:
        return {}
    entries = {e.slug: e for e in track.entries}
    weighed = [entries[slug] for slug in found]
    tests = [p["test"] for p in found.values()]
    draws = resample(tests, [e.trained for e in weighed], averaged=[e.averaged for e in weighed])
    telling = telling_of_seeds(weighed)
    pooled = {metric: pooled_spread([draws[i] for i in telling], metric) for metric in GAINS}
    told_apart = separable(draws, pooled["accuracy"])
    letters, ranks = groups(len(draws), told_apart), rank_intervals(len(draws), told_apart)
    families = {e.slug: family(e) for e in track.entries if e.slug in found}
    without = {e.slug for e in track.entries if e.strategy == "none"}
    plain = {families[slug]: (entries[slug], own) for slug, own in zip(found, draws, strict=True) if slug in without}
    return {
        slug: Evidence(
            intervals={m: interval(draws[i], m) for m in METRICS.names},
            ranks=ranks[i],
            group=letters[i],
            calibration=_calibration(**predictions),
            gains={} if slug in without else _gains(entries[slug], draws[i], plain.get(families[slug]), pooled),
        )
        for i, (slug, predictions) in enumerate(found.items())
    }


def telling_of_seeds(entries: Sequence[Entry]) -> list[int]:
    """Places of those that say how seeds vary: they have several, and no training is in two of them."""
    told: dict[int, set[str]] = {}
    # what was trained before other views of it, which may lack seeds
    for i in sorted(range(len(entries)), key=lambda i: entries[i].trained != entries[i].runs):
        trained = set(entries[i].trained)
        if len(trained) > 1 and not any(trained & others for others in told.values()):
            told[i] = trained
    return list(told)


def _gains(
    entry: Entry, own: Draws, plain: tuple[Entry, Draws] | None, pooled: dict[str, Pooled]
) -> dict[str, Comparison]:
    """The entry less the one without a strategy, over the seeds that both have."""
    if plain is None:
        return {}
    base, of_base = plain
    if entry.seeds != base.seeds:
        shared = [s for s in entry.seeds if s in base.seeds]
        if not shared:
            return {}
        own, of_base = (
            draws.of([e.trained[e.seeds.index(s)] for s in shared]) for e, draws in ((entry, own), (base, of_base))
        )
    return {metric: compare(own, of_base, metric, pooled[metric]) for metric in GAINS}


def separable(draws: Sequence[Draws], pooled: Pooled) -> set[tuple[int, int]]:
    """The pairs of entries whose accuracies differ at ERROR_RATE, all pairs taken together, the better one first.

    Where they share some of their trainings it is the better over those, whatever the means over all.
    """
    pairs = list(combinations(range(len(draws)), 2))
    found = [compare(draws[i], draws[j], "accuracy", pooled) for i, j in pairs]
    return {
        (i, j) if c.difference > 0 else (j, i)
        for (i, j), c, p in zip(pairs, found, holm([c.p for c in found]), strict=True)
        if p < ERROR_RATE
    }


def load_predictions(entry: Entry, store: Store, split: str) -> list[Predictions]:
    """An entry's stored predictions on a split, by seed.

    Raises:
        InputError: they are missing or damaged.
    """
    return [store.predictions_at(place, split) for place in entry.places]


def _predictions(entry: Entry, store: Store) -> dict[str, list[Predictions]] | None:
    try:
        return {split: load_predictions(entry, store, split) for split in ("val", "test")}
    except InputError:
        # `ferbench rescore` says what is wrong with them
        return None


def _is_scored(test: Predictions, track: Track) -> bool:
    """Whether predictions have as many images of each class as the scores beside them."""
    counts = np.bincount(test.labels, minlength=len(test.classes)).tolist()
    return dict(zip(test.classes, counts, strict=True)) == track.support["test"]


def _calibration(val: list[Predictions], test: list[Predictions]) -> Calibration:
    temperatures = [fit_temperature(p) for p in val]
    scaled = [at_temperature(p, t) for p, t in zip(test, temperatures, strict=True)]
    scores = [compute(p) for p in scaled]
    return Calibration(
        temperature=fmean(temperatures),
        after={m: fmean(s[m] for s in scores) for m in METRICS.names},
        before_bins=_pooled_reliability(test),
        after_bins=_pooled_reliability(scaled),
    )


def _pooled_reliability(seeds: Sequence[Predictions]) -> Reliability:
    ids = np.array([f"{s} {i}" for s, p in enumerate(seeds) for i in p.ids])
    labels, probabilities = (np.concatenate([getattr(p, f) for p in seeds]) for f in ("labels", "probabilities"))
    return reliability(replace(seeds[0], ids=ids, labels=labels, probabilities=probabilities))
