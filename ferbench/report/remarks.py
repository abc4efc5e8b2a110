"""What the reader of a ranking must know of its scores and its trainings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ferbench.records.record import SHARED, RunRecord
from ferbench.report.entries import Entry
from ferbench.report.leaderboard import Track
from ferbench.report.sections import ensembles
from ferbench.report.table import escape
from ferbench.variants import MOST_SHOWN

_LENGTH = {"training.epochs", "model.input_size", "training.start_size"}
"""Fields that decide how much a training sees."""


def weighed(track: Track) -> int:
    """How many entries have intervals."""
    return sum(e.evidence is not None for e in track.entries)


def remarks(track: Track, records: Sequence[RunRecord]) -> Iterator[str]:
    """Paragraphs for the reader of a track's ranking.

    Args:
        records: the track's, for their notes.
    """
    yield from _of_scores(track)
    yield from _of_trainings(track, records)
    yield from recipe_remark(track)
    yield from ensembles(track)


def _of_scores(track: Track) -> Iterator[str]:
    if any(len(e.seeds) > 1 for e in track.entries):
        yield (
            "± is the standard deviation over seeds (n − 1); how far another sample of test images would move a score "
            "is not in it."
        )
    n = weighed(track)
    if n:
        yield (
            "95 %: of one seed percentile intervals of 10,000 bootstrap resamples of the test images, drawn within "
            "their class and the same for every entry, which say nothing of other seeds; of several seeds Student's "
            "intervals, with what the seeds add."
        )
        unweighed = [e.label for e in track.entries if not e.evidence]
        if unweighed:
            yield (
                f"No intervals for {escape(', '.join(unweighed))}: their predictions are missing or of other images "
                "(`ferbench rescore` says more)."
            )
    if n > 1:
        test = (
            "Student's t with the paired bootstrap's error, a single seed being taken to vary as the table's others "
            "do; between views of one single seed McNemar's mid-p"
            if any(len(e.seeds) > 1 for e in track.entries if e.evidence)
            else "McNemar's mid-p"
        )
        yield (
            "Entries that share a letter of **group** cannot be told apart by accuracy "
            f"({test}; Holm's correction over all {n * (n - 1) // 2:,} pairs at 5 %), whatever their rank; **95 % of "
            "ranks** are those that the pairs told apart leave an entry. So many tests part large differences "
            "alone: of two entries picked beforehand `ferbench compare A B` says more."
        )
    sizes = sorted({e.n_clean for e in track.entries if e.n_clean})
    if sizes:
        yield (
            f"Clean test: the {' or '.join(f'{n:,}' for n in sizes)} test images without a pixel-identical twin in "
            "train or val, which a model can have memorised. Images that exist twice are also easier: the difference "
            "of the two scores is no measure of memory."
        )
    single = [e.test["accuracy"].mean for e in track.entries if len(e.seeds) == 1 and not e.evidence]
    if single and track.n_test:
        half = max(half_width(p, track.n_test) for p in single)
        yield (
            f"**One seed is one draw:** the 95 % half-width of a single run's accuracy on {track.n_test:,} test images "
            f"is about ±{100 * half:.2f} points, before any difference between seeds. Models closer than that are not "
            "separable here, whatever their ranks."
        )


def _of_trainings(track: Track, records: Sequence[RunRecord]) -> Iterator[str]:
    shortened = [e.name for e in track.entries if _LENGTH & e.differs.keys()]
    if shortened:
        yield (
            "Trained for other epochs or at other sizes than their models' own recipes: "
            f"{escape(', '.join(dict.fromkeys(shortened)))}. Their ranks are those of these recipes, and say little of "
            "the models."
        )
    crowded = {r.id for r in records if any(SHARED in note for note in r.notes)}
    slowed = [e.label for e in track.entries if crowded & {*e.runs}]
    if slowed:
        yield (
            f"Runs that {SHARED} with others, so that their times and speeds are worse than alone: "
            f"{escape(', '.join(slowed))}."
        )
    for entry in track.entries:
        known = sorted(set(entry.precisions) - {""})
        if len(known) > 1:
            told = ", ".join(f"{p} ({_seeds(entry, p)})" for p in known)
            yield f"The seeds of {escape(entry.label)} did not compute in the same precision: {told}."
    if track.batch_sizes:
        yield (
            "images/s is inference at that batch size on the device named, with the images already on it: one short "
            "sample per run, which other work on the machine moves (`speed.md` measures with more care). training is "
            "wall clock without evaluation."
        )


def _seeds(entry: Entry, precision: str) -> str:
    seeds = [str(s) for s, p in zip(entry.seeds, entry.precisions, strict=True) if p == precision]
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}"


def half_width(p: float, n: int) -> float:
    """Half the 95 % confidence interval of a share `p` of `n` images, by the normal approximation."""
    return 1.959964 * math.sqrt(p * (1 - p) / n)


def recipe_remark(track: Track) -> Iterator[str]:
    """What recipes change that have no room for it in their names."""
    varied = {e.name: e.differs for e in track.entries if len(e.differs) > MOST_SHOWN}
    if varied:
        lines = [
            f"- {escape(name)}: " + ", ".join(f"`{f} = {v}`" for f, v in differs.items())
            for name, differs in sorted(varied.items())
        ]
        yield "Recipes that change more of their model's shipped one than a name has room for:\n\n" + "\n".join(lines)
