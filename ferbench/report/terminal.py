"""The leaderboard on the terminal, shorter than the published one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ferbench.report.cells import MISSING, signed
from ferbench.report.leaderboard import Leaderboard, Track
from ferbench.report.markdown import COLUMNS
from ferbench.report.oracle import inflations
from ferbench.report.speed import tables

if TYPE_CHECKING:
    from ferbench.records.bench import BenchRecord

_NUMBERS = {
    "rank": "rank",
    "group": "group",
    "seeds": "seeds",
    "accuracy, %": "accuracy, %",
    "95 % of accuracy": "95 %",
    "macro-F1": "macro-F1",
}
"""Columns of the published table that fit into 80 characters beside the models' names, and their heads here."""


def show(board: Leaderboard) -> None:
    """Print a table for each track of the runs of one command on standard output, and those that failed."""
    for track in board.tracks:
        if track.entries:
            print(f"{track.title}: this command's runs", "", *_lines(track), "", sep="\n")
        if track.data.protocol == "oracle":
            print("Not results: the epoch was chosen on test itself. By how many points that flatters:")
            for i in inflations(track):
                print(f"  {i.oracle.label}: {signed(i.points) if i.points else MISSING}")
        for failure in track.failures:
            print(f"{'outdated' if failure.is_outdated else 'failed'}: {failure.id}: {failure.reason}")


def show_bench(record: BenchRecord) -> None:
    """Print what a speed benchmark found, a line for each value."""
    for t in tables([record]):
        for row in t.rows:
            cells = [f"{head} {cell}" for head, cell in zip(t.headers, row, strict=True) if cell]
            print("  ".join(cells))


def _lines(track: Track) -> Iterator[str]:
    """A line for each entry; the model stands last, where a long name does no harm."""
    cells = dict(COLUMNS)
    rows = [list(_NUMBERS.values()), *([cells[title](e) for title in _NUMBERS] for e in track.entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, model in zip(rows, ["model", *(e.label for e in track.entries)], strict=True):
        yield "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), model])
