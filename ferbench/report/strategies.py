"""Imbalance strategies against the same model and recipe without one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ferbench.evaluation.metrics import METRICS
from ferbench.report.cells import MISSING
from ferbench.report.entries import Entry
from ferbench.report.evidence import GAINS
from ferbench.report.leaderboard import Track
from ferbench.report.table import escape, table

FEWEST = 2
"""Strategies beside none from which they have a section."""


def treated(track: Track) -> dict[str, list[Entry]]:
    """By model, in the order of the ranking, the entries with a strategy that can be held against one without."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in track.entries:
        if entry.evidence and entry.evidence.gains:
            found[entry.name].append(entry)
    return dict(found) if len({e.strategy for entries in found.values() for e in entries}) >= FEWEST else {}


def section(track: Track) -> Iterator[str]:
    """Paragraphs of results/README.md; none where there are too few strategies."""
    models = treated(track)
    if not models:
        return
    yield "### Imbalance strategies\n"
    yield (
        "Each entry less the same model and recipe without a strategy: accuracy, macro-F1 and F1 of the rarest class "
        f"({rarest(track)}) in points, ECE in hundredths (lower is better), with a paired 95 % interval (Student's "
        "t, bootstrap) over test images and seeds. Strategies have the same number of epochs, but for what is done "
        "after training and on a frozen backbone. Each interval stands for itself: of twenty strategies without effect "
        "one would seem to have some.\n"
    )
    headers = ["model", "strategy", "seeds"]
    headers += [word for metric in GAINS for word in (METRICS[metric].title, f"95 % of {METRICS[metric].title}")]
    rows = [
        [entry.name, entry.strategy, str(len(entry.seeds)), *(cell for m in GAINS for cell in _cells(entry, m))]
        for entries in models.values()
        for entry in sorted(entries, key=lambda e: -gain(e, "macro_f1"))
    ]
    yield table(headers, rows, ["model", "strategy"]) + "\n"
    yield from (f"{escape(name)}: {'; '.join(_verdicts(entries))}.\n" for name, entries in models.items())


def rarest(track: Track) -> str:
    """The class with the fewest test images."""
    support = track.support["test"]
    return min((c for c in track.classes if support[c]), key=lambda c: support[c])


def gain(entry: Entry, metric: str) -> float:
    """By how much the entry's mean score is above that without a strategy, on the 0-1 scale."""
    assert entry.evidence is not None
    return entry.evidence.gains[metric].difference


def is_sure(entry: Entry, metric: str) -> bool:
    """Whether the interval of the difference leaves zero out."""
    assert entry.evidence is not None
    low, high = entry.evidence.gains[metric].interval
    return not low <= 0 <= high


def _cells(entry: Entry, metric: str) -> tuple[str, str]:
    assert entry.evidence is not None
    found = entry.evidence.gains.get(metric)
    if found is None:
        return MISSING, MISSING
    return f"{100 * found.difference:+.1f}", " to ".join(f"{100 * end:+.1f}" for end in found.interval)


def _verdicts(entries: Sequence[Entry]) -> Iterator[str]:
    """What helped, what hurt, and what cannot be told, by metric."""
    for metric in GAINS:
        sure = [e for e in entries if is_sure(e, metric)]
        up = METRICS[metric].higher_is_better
        helped = [e for e in sure if (gain(e, metric) > 0) == up]
        hurt = [e for e in sure if e not in helped]
        parts = [
            f"{word} {_names(group, metric)}" for word, group in (("helped by", helped), ("hurt by", hurt)) if group
        ]
        unsure = len(entries) - len(sure)
        rest = f"no difference that can be told for {unsure} of {len(entries)}" if unsure else ""
        yield f"**{METRICS[metric].title}** {', '.join([*parts, rest] if rest else parts)}"


def _names(entries: Sequence[Entry], metric: str) -> str:
    ordered = sorted(entries, key=lambda e: -abs(gain(e, metric)))
    return ", ".join(f"{escape(e.strategy)} ({100 * gain(e, metric):+.1f})" for e in ordered)
