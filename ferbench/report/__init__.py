"""What is published of a results folder, a function of the records: README.md, leaderboard.csv, speed.md, figures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from ferbench.errors import InputError
from ferbench.records.record import RunRecord
from ferbench.records.store import Store
from ferbench.records.study import StudyRecord
from ferbench.report import speed, studies
from ferbench.report.canvas import Drawing, ready_to_draw, styled
from ferbench.report.evidence import weigh_all
from ferbench.report.figures import drawings
from ferbench.report.frame import csv
from ferbench.report.leaderboard import Leaderboard, build
from ferbench.report.markdown import MADE_BY, render
from ferbench.report.study_figures import draw_studies, study_drawings
from ferbench.report.together import done_together

FileT = TypeVar("FileT")

FIGURES = "figures"


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Without the collector, whose passes over thousands of records took half of the time; records hold no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@ready_to_draw()
@_no_garbage_collection()
def write(store: Store) -> list[Path]:
    """The paths of the report's files, now written.

    Figures of entries that are gone stay where they are; README.md does not link them.

    Raises:
        InputError: a record cannot be read, or a README.md is there that is no report.
    """
    readme = store.root / "README.md"
    if MADE_BY.encode() not in (_stored(readme) or MADE_BY.encode()):
        raise InputError(f"{readme} is not from `ferbench report`: move it, or name a folder of results (--results)")
    records, found = store.records(), store.studies()
    board = weigh_all(build(records, store.ensembles()), store)
    return _written(store, partial(_texts, board, found, store, records), _drawings(board, found, records))


@_no_garbage_collection()
def check(store: Store) -> list[str]:
    """Names of the files that are not what the records give: texts that differ, and figures that are missing."""
    records, found = store.records(), store.studies()
    board = weigh_all(build(records, store.ensembles()), store)
    texts = _texts(board, found, store, records)
    stale = [name for name, content in texts.items() if _stored(store.root / name) != content]
    # how a figure is drawn depends on the version of matplotlib, so only its existence is checked
    return stale + [name for name in _drawings(board, found, records) if not (store.root / name).is_file()]


@ready_to_draw()
def write_study(store: Store, name: str) -> list[Path]:
    """The paths of the files of one study's folder, now written."""
    study = store.study(name)
    needed = () if study.promotion is None else (*study.promotion.runs, *study.promotion.baseline_runs)
    records = {r.id: r for r in store.records() if r.id in needed} if needed else {}
    texts = partial(_study_texts, study, store, records)
    return _written(store, texts, _in_folder(study, study_drawings(study)))


def _written(store: Store, texts: Callable[[], dict[str, bytes]], drawings: dict[str, Drawing]) -> list[Path]:
    """The paths of texts and figures, now written."""
    tasks: list[Callable[[], dict[str, bytes]]] = [texts, *(partial(_drawn, *pair) for pair in drawings.items())]
    files: dict[str, bytes] = {}
    for some in done_together(tasks):
        files |= some
    for name, content in files.items():
        store.write(store.root / name, content)
    return [store.root / name for name in files]


def _drawn(name: str, draw: Drawing) -> dict[str, bytes]:
    return {name: draw()}


def _drawings(board: Leaderboard, found: list[StudyRecord], records: list[RunRecord]) -> dict[str, Drawing]:
    """What draws each figure, by its path below the results."""
    named = {f"{FIGURES}/{name}": draw for name, draw in drawings(board, records).items()}
    for study in found:
        named |= _in_folder(study, study_drawings(study))
    return named | ({f"{FIGURES}/{studies.ALL_STUDIES}": styled(draw_studies, found)} if len(found) > 1 else {})


def _in_folder(study: StudyRecord, files: dict[str, FileT]) -> dict[str, FileT]:
    return {f"studies/{study.name}/{name}": file for name, file in files.items()}


def _texts(board: Leaderboard, found: list[StudyRecord], store: Store, records: list[RunRecord]) -> dict[str, bytes]:
    """The texts by their paths below the results."""
    text, by_id = render(board, records), {r.id: r for r in records}
    if found:
        text += "\n" + "\n".join(studies.section(found, by_id, store))
    texts = {"README.md": text.encode(), "leaderboard.csv": csv(board)}
    if benches := store.benches():
        texts["speed.md"] = speed.render(benches).encode()
    for study in found:
        texts |= _study_texts(study, store, by_id)
    return texts


def _study_texts(study: StudyRecord, store: Store, records: dict[str, RunRecord]) -> dict[str, bytes]:
    return _in_folder(study, studies.study_texts(study, records, store))


def _stored(path: Path) -> bytes | None:
    # a clone on Windows may have other line ends
    return path.read_bytes().replace(b"\r\n", b"\n") if path.is_file() else None
