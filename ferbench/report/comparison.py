"""Two entries of the leaderboard against each other, in a sentence and by class."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean

from ferbench.errors import InputError
from ferbench.evaluation.metrics import METRICS, Scores, score
from ferbench.evaluation.predictions import Predictions, same_images
from ferbench.evaluation.resampling import Draws, Interval, resample
from ferbench.evaluation.statistics import Comparison, Pooled, compare, holm, interval, pooled_spread
from ferbench.records.store import Store
from ferbench.report.cells import p_value
from ferbench.report.entries import ENSEMBLE, Entry
from ferbench.report.evidence import ERROR_RATE, WEIGHED, load_predictions, telling_of_seeds
from ferbench.report.leaderboard import Leaderboard, Track, build

POINTS = ("accuracy", "balanced_accuracy")
"""Metrics that are told in percentage points."""
_RESAMPLES = 1000
"""For how the seeds of a table vary: a variance needs no tails, and a table may hold hundreds of runs."""


@dataclass(frozen=True)
class ClassDifference:
    """One class's recall under both entries, means over seeds."""

    name: str
    images: int
    recalls: tuple[float, float]
    f1s: tuple[float, float]
    comparison: Comparison
    """Of the recalls."""
    p: float
    """Its p, by Holm's correction over the classes."""


@dataclass(frozen=True, eq=False)
class Duel:
    """Two entries of a track compared in one metric."""

    track: Track
    entries: tuple[Entry, Entry]
    draws: tuple[Draws, Draws]
    metric: str
    result: Comparison
    several: int
    """Entries of the track with several seeds, which say how seeds vary; none is asked where the seeds are paired."""
    classes: list[ClassDifference]
    """The most different recall first."""

    @property
    def is_separable(self) -> bool:
        """Whether the two differ by more than chance would have them."""
        return self.result.p < ERROR_RATE

    def to_lines(self) -> list[str]:
        """The comparison as text for a terminal."""
        return [self.sentence(), "", *self._standing(), "", *self._by_class()]

    def sentence(self) -> str:
        """The answer."""
        metric, (a, b) = METRICS[self.metric], (e.label for e in self.entries)
        difference, ends = self.result.difference, self.result.interval
        # told of the better one, by how much: what is positive is good
        if (difference < 0) == metric.higher_is_better:
            a, b = b, a
        if difference < 0:
            difference, ends = -difference, Interval(-ends.high, -ends.low)
        low, high = (self._amount(end) for end in ends)
        unit = " points" if self.metric in POINTS else ""
        sure = f"95 % interval {low} to {high}, p {p_value(self.result.p)} ({self.result.test})"
        by = f"{self._amount(difference)}{unit}"
        budget, caveat = self.track.budget.name, self.track.caveat
        remark = f" Budget {budget}: it {caveat}." if caveat else ""
        if self.is_separable:
            return f"{a} is {by} better than {b} in {metric.title}, {sure}.{remark}"
        return f"{a} and {b} are not separable in {metric.title}: {a} leads by {by}, {sure}.{remark}"

    def _amount(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.metric in POINTS else f"{value:.3f}"

    def _standing(self) -> list[str]:
        lines = [f"{self.track.title}, {self.track.n_test:,} test images:"]
        for entry, draws in zip(self.entries, self.draws, strict=True):
            low, high = (self._amount(end) for end in interval(draws, self.metric))
            mean = self._amount(draws.means[self.metric])
            seeds = f"{'seed' if len(entry.seeds) == 1 else 'seeds'} {', '.join(map(str, entry.seeds))}"
            whose = "averaged runs" if entry.model == ENSEMBLE else seeds
            lines.append(f"  {entry.label}: {mean} ({low} to {high}), {whose}")
        if any(len(e.seeds) == 1 and e.model != ENSEMBLE for e in self.entries):
            lines.append("One seed is one draw: its own interval is of the images alone.")
        if self.several:
            whose = f"the {self.several} entries" if self.several > 1 else "the one entry"
            lines.append(
                f"In the difference seeds are taken to vary as in {whose} of this table with several seeds, or as an "
                "entry's own do where that is more."
            )
        return lines

    def _by_class(self) -> list[str]:
        sure = [c for c in self.classes if c.p < ERROR_RATE]
        told = ", ".join(f"{c.name} {100 * c.comparison.difference:+.1f}" for c in sure)
        a, b = (e.label for e in self.entries)
        lines = [
            f"Recall by class, {a} less {b}, in points; classes that differ (Holm over {len(self.classes)} classes): "
            f"{told or 'none'}"
        ]
        width = max(len(c.name) for c in self.classes)
        for c in self.classes:
            (recall_a, recall_b), (f1_a, f1_b) = c.recalls, c.f1s
            low, high = (100 * end for end in c.comparison.interval)
            lines.append(
                f"  {c.name:{width}}  recall {100 * recall_a:5.1f} and {100 * recall_b:5.1f} % "
                f"({100 * c.comparison.difference:+5.1f}, {low:+5.1f} to {high:+5.1f}, p {p_value(c.p)})  "
                f"F1 {f1_a:.3f} and {f1_b:.3f}  {c.images:,} images"
            )
        return lines


def compare_entries(store: Store, a: str, b: str, *, metric: str = "accuracy", track: str | None = None) -> Duel:
    """Two entries of one track of a results folder.

    Args:
        store: the results folder.
        a: an entry's label, its name in leaderboard.csv (`entry`), or a model's name.
        b: the other's.
        metric: a row of METRICS.
        track: its slug; None is the first track that has both.

    Raises:
        InputError: an entry, the metric or the track is unknown, or predictions are missing or of different images.
    """
    metric = METRICS[metric].name
    found, both = _find(build(store.records(), store.ensembles()), a, b, track)
    entries = _paired(*both)
    predictions = [load_predictions(e, store, "test") for e in entries]
    trainings, averaged = [e.trained for e in entries], [e.averaged for e in entries]
    try:
        draws = resample(predictions, trainings, averaged=averaged)
    except ValueError:
        raise InputError(f"{a} and {b}: their predictions are of different images (see `ferbench rescore`)") from None
    several = [] if trainings[0] == trainings[1] else _with_several_seeds(found, store, predictions[0][0])
    result = compare(draws[0], draws[1], metric, _pooled(several, metric))
    by_class = _by_class(predictions, trainings, averaged, several)
    return Duel(found, entries, (draws[0], draws[1]), metric, result, len(several), by_class)


def _with_several_seeds(track: Track, store: Store, like: Predictions) -> list[list[Predictions]]:
    """The test predictions of the track's entries that say how seeds vary."""
    found = []
    for entry in track.entries[:WEIGHED]:
        # `ferbench rescore` says what is wrong with those that are missing
        with suppress(InputError):
            test = load_predictions(entry, store, "test")
            if same_images([like, *test]):
                found.append((entry, test))
    return [found[i][1] for i in telling_of_seeds([entry for entry, _ in found])]


def _pooled(several: list[list[Predictions]], metric: str) -> Pooled | None:
    return pooled_spread(resample(several, resamples=_RESAMPLES), metric) if several else None


def _paired(a: Entry, b: Entry) -> tuple[Entry, Entry]:
    """Two views of the same trainings with the seeds that both have; other entries as they are."""
    shared = [t for t in a.trained if t in b.trained]
    return (_of(a, shared), _of(b, shared)) if shared else (a, b)


def _of(entry: Entry, trained: list[str]) -> Entry:
    rows = zip(entry.trained, entry.seeds, entry.places, strict=True)
    kept = sorted((row for row in rows if row[0] in trained), key=lambda row: trained.index(row[0]))
    ids, seeds, places = zip(*kept, strict=True)
    return replace(entry, trained=ids, seeds=seeds, places=places)


def _by_class(
    entries: list[list[Predictions]],
    trainings: list[tuple[str, ...]],
    averaged: list[int],
    several: list[list[Predictions]],
) -> list[ClassDifference]:
    a, b = entries
    classes = [(code, name) for code, name in enumerate(a[0].classes) if (a[0].labels == code).any()]
    # within a class accuracy is recall; draws keep each class's number of images, so classes can be drawn alone
    own = [resample(_of_class([a, b], code), trainings, averaged=averaged) for code, _ in classes]
    pooled = [_pooled(_of_class(several, code), "accuracy") for code, _ in classes]
    results = [compare(of_a, of_b, "accuracy", spread) for (of_a, of_b), spread in zip(own, pooled, strict=True)]
    scores = [[score(p) for p in seeds] for seeds in (a, b)]
    rows = [
        ClassDifference(
            name=name,
            images=len(draws[0].predictions[0]),
            recalls=(draws[0].means["accuracy"], draws[1].means["accuracy"]),
            f1s=(_mean_f1(scores[0], name), _mean_f1(scores[1], name)),
            comparison=result,
            p=p,
        )
        for (_, name), draws, result, p in zip(classes, own, results, holm([r.p for r in results]), strict=True)
    ]
    return sorted(rows, key=lambda c: -abs(c.comparison.difference))


def _of_class(entries: list[list[Predictions]], code: int) -> list[list[Predictions]]:
    return [[p.take(p.labels == code) for p in seeds] for seeds in entries]


def _mean_f1(scores: list[Scores], name: str) -> float:
    return fmean(s.per_class[name].f1 for s in scores)


def _find(board: Leaderboard, a: str, b: str, slug: str | None) -> tuple[Track, tuple[Entry, Entry]]:
    tracks = [t for t in board.tracks if t.data.protocol != "oracle"]
    if slug is not None and slug not in [t.slug for t in tracks]:
        raise InputError(f"no track {slug!r} (known: {', '.join(t.slug for t in tracks) or 'none'})")
    for track in tracks:
        both = [_matches(track, word) for word in (a, b)]
        if slug in (None, track.slug) and all(both):
            for word, matches in zip((a, b), both, strict=True):
                if len(matches) > 1:
                    names = ", ".join(e.slug for e in matches)
                    raise InputError(f"{word!r} is several entries of {track.slug}: {names}")
            if both[0] == both[1]:
                raise InputError(f"{a!r} and {b!r} are the same entry of {track.slug}")
            return track, (both[0][0], both[1][0])
    searched = [t for t in tracks if slug in (None, t.slug)]
    for word in (a, b):
        if not any(_matches(t, word) for t in searched):
            raise InputError(_unknown(word, searched, slug))
    raise InputError(f"{a!r} and {b!r} are not in one track: {_tracks_of(a, tracks)}; {_tracks_of(b, tracks)}")


def _unknown(word: str, tracks: list[Track], slug: str | None) -> str:
    known = sorted({e.slug for t in tracks for e in t.entries})
    near = difflib.get_close_matches(word, known, 5, cutoff=0.3)
    where = f"track {slug}" if slug else "any track"
    return f"no entry {word!r} in {where} (nearest: {', '.join(near) or 'none'}; all {len(known)}: leaderboard.csv)"


def _tracks_of(word: str, tracks: list[Track]) -> str:
    return f"{word} is in {', '.join(t.slug for t in tracks if _matches(t, word))}"


def _matches(track: Track, word: str) -> list[Entry]:
    exact = [e for e in track.entries if word in (e.slug, e.label)]
    plain = [e for e in track.entries if e.model == word and e.strategy == "none"]
    # a model's name is its shipped recipe, and none of its other views
    trained = [e for e in plain if e.is_trained]
    called = [e for e in track.entries if e.variant == word and e.strategy == "none"]
    return exact or [e for e in trained if not e.differs] or trained or plain or called
