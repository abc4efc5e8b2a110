"""What is published of a results folder, a function of the records: README.md, leaderboard.csv, speed.md, figures."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ferbench.records.record import RunRecord
from ferbench.records.store import Store
from ferbench.records.study import StudyRecord
from ferbench.report import speed, studies
from ferbench.report.evidence import weigh_all
from ferbench.report.figures import draw, figures
from ferbench.report.frame import csv
from ferbench.report.leaderboard import Leaderboard, build
from ferbench.report.markdown import render
from ferbench.report.study_figures import draw_studies, draw_study, figure_names

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


@_no_garbage_collection()
def write(store: Store) -> list[Path]:
    """The paths of the report's files, now written.

    Figures of entries that are gone stay where they are; README.md does not link them.
    """
    records = store.records()
    board = weigh_all(build(records, store.ensembles()), store)
    files = _texts(board, store, records) | {f"{FIGURES}/{name}": png for name, png in draw(board, records).items()}
    found = store.studies()
    for study in found:
        files |= _study_files(study, store, records)
    if len(found) > 1:
        files[f"{FIGURES}/{studies.ALL_STUDIES}"] = draw_studies(found)
    for name, content in files.items():
        store.write(store.root / name, content)
    return [store.root / name for name in files]


@_no_garbage_collection()
def check(store: Store) -> list[str]:
    """Names of the files that are not what the records give: texts that differ, and figures that are missing."""
    records = store.records()
    board = weigh_all(build(records, store.ensembles()), store)
    texts, found = _texts(board, store, records), store.studies()
    names = [f"{FIGURES}/{figure.name}" for track in board.tracks for figure in figures(track)]
    names += [f"{FIGURES}/{studies.ALL_STUDIES}"] if len(found) > 1 else []
    by_id = {r.id: r for r in records}
    for study in found:
        texts |= _in_folder(study, studies.study_texts(study, by_id, store))
        names += [f"studies/{study.name}/{name}" for name in figure_names(study)]
    stale = [name for name, content in texts.items() if _stored(store.root / name) != content]
    # how a figure is drawn depends on the version of matplotlib, so only its existence is checked
    return stale + [name for name in names if not (store.root / name).is_file()]


def write_study(store: Store, name: str) -> list[Path]:
    """The paths of the files of one study's folder, now written."""
    (study,) = (s for s in store.studies() if s.name == name)
    needed = () if study.promotion is None else (*study.promotion.runs, *study.promotion.baseline_runs)
    records = [r for r in store.records() if r.id in needed] if needed else []
    files = _study_files(study, store, records)
    for path, content in files.items():
        store.write(store.root / path, content)
    return [store.root / path for path in files]


def _study_files(study: StudyRecord, store: Store, records: list[RunRecord]) -> dict[str, bytes]:
    texts = studies.study_texts(study, {r.id: r for r in records}, store)
    return _in_folder(study, texts | draw_study(study))


def _in_folder(study: StudyRecord, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"studies/{study.name}/{name}": content for name, content in files.items()}


def _texts(board: Leaderboard, store: Store, records: list[RunRecord]) -> dict[str, bytes]:
    text, found = render(board, records), store.studies()
    if found:
        text += "\n" + "\n".join(studies.section(found, {r.id: r for r in records}, store))
    texts = {"README.md": text.encode(), "leaderboard.csv": csv(board)}
    benches = store.benches()
    return texts | ({"speed.md": speed.render(benches).encode()} if benches else {})


def _stored(path: Path) -> bytes | None:
    # a clone on Windows may have other line ends
    return path.read_bytes().replace(b"\r\n", b"\n") if path.is_file() else None
