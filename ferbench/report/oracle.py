"""By how much choosing the epoch on test flatters a score: the same trainings, with val choosing."""

from __future__ import annotations

from dataclasses import dataclass

from ferbench.report.entries import Entry, Spread, spread
from ferbench.report.leaderboard import Track


@dataclass(frozen=True)
class Inflation:
    """An oracle entry's accuracy and what val would have chosen in the same trainings."""

    oracle: Entry
    honest: Spread | None
    """Test accuracy at the epoch that val would have chosen; None for other views (TTA) of the oracle's epoch."""
    points: Spread | None
    """Percentage points by which the choice inflates the accuracy."""


def inflations(track: Track) -> list[Inflation]:
    """For each entry of an oracle track, by how much it is too good."""
    return [_inflation(entry) for entry in track.entries]


def _inflation(entry: Entry) -> Inflation:
    honest = entry.honest.get("accuracy")
    if honest is None:
        return Inflation(entry, None, None)
    pairs = zip(entry.test["accuracy"].values, honest.values, strict=True)
    return Inflation(entry, honest, spread([100 * (flattered - fair) for flattered, fair in pairs]))
