"""By how much choosing the epoch on test flatters a score: oracle runs beside the honest runs of the same seeds."""

from __future__ import annotations

from dataclasses import dataclass

from ferbench.report.entries import Entry
from ferbench.report.leaderboard import Leaderboard, Track


@dataclass(frozen=True)
class Inflation:
    """An oracle entry and what the same recipe scores where val chooses."""

    oracle: Entry
    seeds: tuple[int, ...]
    """Seeds of which there are both runs."""
    honest_accuracy: float | None
    """Mean test accuracy over those seeds; None where there are none."""
    oracle_accuracy: float
    """Over the same seeds, or over all of the oracle's where there are none."""

    @property
    def points(self) -> float | None:
        """Percentage points by which the choice inflates the accuracy."""
        return None if self.honest_accuracy is None else 100 * (self.oracle_accuracy - self.honest_accuracy)


def inflations(track: Track, board: Leaderboard) -> list[Inflation]:
    """For each entry of an oracle track, what the official track of the same images and budget says."""
    honest = {
        entry.recipe: entry
        for other in board.tracks
        if other.data.protocol == "official"
        and (other.data.fingerprint, other.budget) == (track.data.fingerprint, track.budget)
        for entry in other.entries
    }
    return [_inflation(entry, honest.get(entry.recipe)) for entry in track.entries]


def _inflation(oracle: Entry, honest: Entry | None) -> Inflation:
    too_good = dict(zip(oracle.seeds, oracle.test["accuracy"].values, strict=True))
    fair = dict(zip(honest.seeds, honest.test["accuracy"].values, strict=True)) if honest else {}
    shared = tuple(seed for seed in oracle.seeds if seed in fair)
    if not shared:
        return Inflation(oracle, (), None, oracle.test["accuracy"].mean)
    means = [sum(by_seed[s] for s in shared) / len(shared) for by_seed in (fair, too_good)]
    return Inflation(oracle, shared, *means)
