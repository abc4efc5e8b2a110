"""What a reader of results/README.md wants to know first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ferbench.models import select
from ferbench.report.cells import limits, percent
from ferbench.report.entries import ENSEMBLE, Entry
from ferbench.report.leaderboard import Leaderboard, Track
from ferbench.report.table import escape

_MOST_NAMED = 5


def contents(titles: Sequence[str]) -> str:
    """A list of links to sections."""
    return "\n".join(f"- {_link(title)}" for title in titles) + "\n"


def in_short(board: Leaderboard) -> Iterator[str]:
    """The first track in some sentences, where its entries are ranked and are of real images."""
    track = board.tracks[0] if board.tracks else None
    if track is None or not track.entries or not track.entries[0].rank or track.data.name == "synthetic":
        return
    said = [f"**In short**, {_link(track.title)}:", *_best(track), *_untrained(track)]
    yield " ".join(said) + "\n"


def _best(track: Track) -> Iterator[str]:
    first, *others = track.entries
    yield f"the highest test accuracy is that of {_scored(first)}."
    if first.model == ENSEMBLE:
        alone = next((e for e in others if e.model != ENSEMBLE), None)
        if alone is not None:
            yield f"The best single network is {_scored(alone)}."
            yield from _perhaps_equal(alone, track, "Its")
    yield from _perhaps_equal(first, track, "The first one's")


def _perhaps_equal(entry: Entry, track: Track, whose: str) -> Iterator[str]:
    """The entries behind one that it cannot be told apart from."""
    if entry.evidence is None:
        return
    group = set(entry.evidence.group)
    behind = [e for e in track.entries if e.rank > entry.rank]
    equal = [e for e in behind if e.evidence is not None and group & set(e.evidence.group)]
    named = ", ".join(escape(e.label) for e in equal[:_MOST_NAMED])
    rest = f" and {len(equal) - _MOST_NAMED} more" if len(equal) > _MOST_NAMED else ""
    if equal:
        yield f"{whose} lead over {named}{rest} may be chance."


def _scored(entry: Entry) -> str:
    between = f" (95 % interval {limits(entry.evidence.intervals['accuracy'], 100, 1)})" if entry.evidence else ""
    return f"{escape(entry.label)}, {percent(entry.test['accuracy'])} %{between}"


def _untrained(track: Track) -> Iterator[str]:
    trained = {e.model for e in track.entries if not e.differs}
    missing = [row.title for row in select("all") if row.name not in trained]
    if missing and track.data.name == "fer2013":
        yield f"Not trained by their own recipes yet: {', '.join(missing)}."


def _link(title: str) -> str:
    anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    return f"[{escape(title)}](#{anchor})"
