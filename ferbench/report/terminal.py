"""The leaderboard on the terminal, shorter than the published one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ferbench.report.cells import MISSING, signed
from ferbench.report.leaderboard import Leaderboard, Track
from ferbench.report.markdown import COLUMNS
from ferbench.report.oracle import inflations
from ferbench.report.speed import tables

if TYPE_CHECKING:
    from rich.table import Table

    from ferbench.records.bench import BenchRecord

_NUMBERS = ("rank", "seeds", "accuracy, %", "macro-F1", "training")
"""Columns of the published table that fit into 80 characters beside the models' names."""


def show(board: Leaderboard) -> None:
    """Print a table for each track on standard output, and its failed runs."""
    from rich.console import Console

    console = Console(highlight=False)
    for track in board.tracks:
        if track.entries:
            console.print(_table(track))
        if track.data.protocol == "oracle":
            console.print("Not results: the epoch was chosen on test itself. By how many points that flatters:")
            for i in inflations(track):
                console.print(f"  {i.oracle.label}: {signed(i.points) if i.points else MISSING}", markup=False)
        for failure in track.failures:
            console.print(f"failed: {failure.id}: {failure.reason}", markup=False)


def show_bench(record: BenchRecord) -> None:
    """Print what a speed benchmark found, a line for each value."""
    from rich.console import Console

    console = Console(highlight=False)
    for t in tables([record]):
        for row in t.rows:
            cells = [f"{head} {cell}" for head, cell in zip(t.headers, row, strict=True) if cell]
            console.print("  ".join(cells), markup=False)


def _table(track: Track) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(track.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    cells = dict(COLUMNS)
    for title in _NUMBERS:
        table.add_column(title, justify="right", no_wrap=True)
        if title == "rank":
            table.add_column("model", overflow="fold")
    for e in track.entries:
        rank, *numbers = (Text(cells[title](e)) for title in _NUMBERS)
        table.add_row(rank, Text(e.label), *numbers)
    return table
