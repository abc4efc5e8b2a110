"""What is published of a results folder: README.md, leaderboard.csv and figures, each a function of the records."""

from __future__ import annotations

from pathlib import Path

from ferbench.records.record import RunRecord
from ferbench.records.store import Store
from ferbench.report.figures import draw, figures
from ferbench.report.frame import csv
from ferbench.report.leaderboard import Leaderboard, build
from ferbench.report.markdown import render

FIGURES = "figures"


def write(store: Store) -> list[Path]:
    """The paths of the report's files, now written.

    Figures of entries that are gone stay where they are; README.md does not link them.
    """
    records = store.records()
    board = build(records)
    files = _texts(board, records) | {f"{FIGURES}/{name}": png for name, png in draw(board, store).items()}
    for name, content in files.items():
        store.write(store.root / name, content)
    return [store.root / name for name in files]


def check(store: Store) -> list[str]:
    """Names of the files that are not what the records give: texts that differ, and figures that are missing."""
    records = store.records()
    board = build(records)
    stale = [name for name, content in _texts(board, records).items() if _stored(store.root / name) != content]
    # how a figure is drawn depends on the version of matplotlib, so only its existence is checked
    names = [f"{FIGURES}/{figure.name}" for track in board.tracks for figure in figures(track)]
    return stale + [name for name in names if not (store.root / name).is_file()]


def _texts(board: Leaderboard, records: list[RunRecord]) -> dict[str, bytes]:
    return {"README.md": render(board, records).encode(), "leaderboard.csv": csv(board)}


def _stored(path: Path) -> bytes | None:
    # a clone on Windows may have other line ends
    return path.read_bytes().replace(b"\r\n", b"\n") if path.is_file() else None
