"""The only writer under results/: run folders, locks, generated files. Everything lands whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from ferbench.errors import InputError
from ferbench.evaluation.predictions import Predictions
from ferbench.records.bench import BenchRecord
from ferbench.records.ensemble import EnsembleRecord
from ferbench.records.facts import DataFacts
from ferbench.records.places import ensemble_place, predicted_splits, run_place
from ferbench.records.record import RunRecord
from ferbench.records.stored import from_json
from ferbench.records.study import StudyRecord
from ferbench.spec import DataKey, RunSpec

StoredT = TypeVar("StoredT", RunRecord, BenchRecord, DataFacts, EnsembleRecord, StudyRecord)
PlacedT = TypeVar("PlacedT", RunRecord, EnsembleRecord)

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"


class Store:
    """A results folder.

    `runs/<data>/<budget>/<run id>/` holds record.json, val.npz and test.npz, and beside them what git ignores:
    checkpoint.pt while a run is under way, weights.safetensors after it, worker.log. `data/` holds what is
    known of the data sets, `ensembles/` ensembles of runs, `studies/` what searches found, `bench/` speed benchmarks.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def folder(self, spec: RunSpec) -> Path:
        """Where a run's files are."""
        return self.root / run_place(spec)

    def is_done(self, spec: RunSpec) -> bool:
        """Whether the run's record says so, its predictions exist, and what it starts from is still the same."""
        folder = self.folder(spec)
        path = folder / "record.json"
        if not (path.is_file() and all((folder / f"{s}.npz").is_file() for s in predicted_splits(spec))):
            return False
        record = read_record(path)
        # a recipe names a weights file by its path
        here = record.init_digest and weights_digest(spec.recipe.model.init)
        has_changed = here not in (None, record.init_digest)
        return record.status == "ok" and not has_changed and not is_outdated(record, self._source)

    def _source(self, spec: RunSpec) -> RunRecord | None:
        return self.record(spec.source) if self.has_record(spec.source) else None

    def has_record(self, spec: RunSpec) -> bool:
        """Whether the run has ended, well or not."""
        return (self.folder(spec) / "record.json").is_file()

    def record(self, spec: RunSpec) -> RunRecord:
        """The stored record of a run."""
        return read_record(self.folder(spec) / "record.json")

    def records(self) -> list[RunRecord]:
        """Every stored record, in the order of their folders.

        Raises:
            InputError: there is no results folder, or a record cannot be read or is a copy.
        """
        if not self.root.is_dir():
            raise InputError(f"no results folder {self.root} (ferbench run makes one)")
        return [_in_place(RunRecord, p) for p in sorted(self.root.glob("runs/*/*/*/record.json"))]

    def benches(self) -> list[BenchRecord]:
        """Every stored speed benchmark, in the order of their files.

        Raises:
            InputError: one cannot be read.
        """
        return [_read(BenchRecord, p) for p in sorted(self.root.glob("bench/*/*.json"))]

    def write_bench(self, record: BenchRecord) -> Path | None:
        """The file of a speed benchmark, now stored in place of an older one of the same machine, suite and subject.

        None: something failed in this one and nothing in the older one, which stays.
        """
        path = self.root / "bench" / f"{record.id}.json"
        # one that cannot be read is nothing to keep
        with suppress(InputError):
            if record.has_failed and path.is_file() and not _read(BenchRecord, path).has_failed:
                return None
        self.write(path, (record.model_dump_json(indent=1) + "\n").encode())
        return path

    def facts(self, data: DataKey) -> DataFacts | None:
        """What is stored of a data set; None: nothing.

        Raises:
            InputError: it cannot be read.
        """
        path = self._facts_path(data)
        return _read(DataFacts, path) if path.is_file() else None

    def clean_test(self, data: DataKey) -> npt.NDArray[np.bool_] | None:
        """[N] for each test image of a data set, whether it has no twin in train or val; None: not known.

        Raises:
            InputError: it cannot be read.
        """
        facts = self.facts(data)
        return None if facts is None else facts.is_clean

    def write_facts(self, facts: DataFacts) -> None:
        """Store what is known of a data set."""
        self.write(self._facts_path(facts.data), (facts.model_dump_json() + "\n").encode())

    def _facts_path(self, data: DataKey) -> Path:
        return self.root / "data" / f"{data.name}-{data.protocol}-{data.fingerprint[:8]}.json"

    def predictions(self, spec: RunSpec, split: str) -> Predictions:
        """The stored predictions of a run."""
        return self.predictions_at(run_place(spec), split)

    def predictions_at(self, place: str, split: str) -> Predictions:
        """The stored predictions of the run or ensemble in a folder of the results, as its `run_place`."""
        return Predictions.load(self.root / place / f"{split}.npz")

    def ensembles(self) -> list[EnsembleRecord]:
        """Every stored ensemble, in the order of their folders.

        Raises:
            InputError: one cannot be read or is a copy.
        """
        return [_in_place(EnsembleRecord, p) for p in sorted(self.root.glob("ensembles/*/*/*/record.json"))]

    def write_ensemble(self, record: EnsembleRecord, predictions: list[Predictions]) -> None:
        """Store an ensemble: predictions first, the record last."""
        folder = self.root / ensemble_place(record)
        for split in predictions:
            self.write(folder / f"{split.split}.npz", split.to_bytes())
        self.write(folder / "record.json", (record.model_dump_json(indent=1) + "\n").encode())

    def studies(self) -> list[StudyRecord]:
        """Every stored study, in the order of their names.

        Raises:
            InputError: one cannot be read.
        """
        return [self.study(name) for name in self.study_names()]

    def study_names(self) -> list[str]:
        """Of every stored study, in order."""
        return sorted(path.parent.name for path in self.root.glob("studies/*/study.json"))

    def study(self, name: str) -> StudyRecord:
        """A stored study.

        Raises:
            InputError: it cannot be read.
        """
        return _read(StudyRecord, self._study_path(name))

    def has_study(self, name: str) -> bool:
        """Whether it is stored."""
        return self._study_path(name).is_file()

    def _study_path(self, name: str) -> Path:
        return self.root / "studies" / name / "study.json"

    def write_study(self, record: StudyRecord) -> None:
        """Store or replace what is known of a study."""
        path = self._study_path(record.name)
        self.write(path, (record.model_dump_json(indent=1) + "\n").encode())

    def write_run(self, record: RunRecord, predictions: list[Predictions], weights: bytes | None = None) -> None:
        """Store a run: an older record goes first and the new one comes last, since it says that the files are its own.

        All are written before any takes its place, so that a full disk leaves what was there.

        Args:
            weights: content of the file of weights; None: there is none, or it stays.
        """
        folder = self.folder(record.spec)
        contents = {"record.json": _text_of(record)}
        contents |= {f"{split.split}.npz": split.to_bytes() for split in predictions}
        contents |= {} if weights is None else {WEIGHTS: weights}
        with ExitStack() as files:
            # the last one opened takes its place first
            for name, content in contents.items():
                file = files.enter_context(self.writing(folder / name))
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            (folder / "record.json").unlink(missing_ok=True)

    def write_record(self, record: RunRecord) -> None:
        """Store or replace a record."""
        self.write(self.folder(record.spec) / "record.json", _text_of(record))

    def write_failure(self, record: RunRecord) -> None:
        """Store why a run failed, but over no record of one that went well, out of date though it may be."""
        try:
            has_scores = self.has_record(record.spec) and self.record(record.spec).status == "ok"
        except InputError:
            has_scores = False
        if not has_scores:
            self.write_record(record)

    def write(self, path: Path, content: bytes) -> None:
        """Put a file in place."""
        with self.writing(path) as file:
            file.write(content)

    @contextmanager
    def writing(self, path: Path) -> Iterator[BinaryIO]:
        """A file that takes its place at the end of the block, whole or not at all, also when the power goes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def claim(self, spec: RunSpec) -> Iterator[bool]:
        """Whether this process now holds the run; the claim ends with the block, or with the process."""
        folder = self.folder(spec)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def weights_digest(init: str) -> str | None:
    """Hash of the weights file that a recipe starts from; None: of none, or it is not there."""
    path = Path(init)
    if init in ("scratch", "imagenet") or not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def is_outdated(record: RunRecord, source: Callable[[RunSpec], RunRecord | None]) -> bool:
    """Whether a run that this one started from, or the one before that, has been done again since.

    Args:
        source: the record of what a run starts from; None: there is none.
    """
    if record.spec.source is record.spec:
        return False
    before, since = source(record.spec), record.source_finished_at
    # of records from before that was noted only what they start from can be asked
    return before is not None and (since not in (None, before.finished_at) or is_outdated(before, source))


def _text_of(record: RunRecord) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _in_place(kind: type[PlacedT], path: Path) -> PlacedT:
    """The record in a file whose folder has its id; a copy would count as another seed, and be written to elsewhere."""
    record = _read(kind, path)
    if path.parent.name != record.id:
        raise InputError(f"{path}: is of {record.id}, whose folder has that name: a copy? (move it out of the results)")
    return record


def read_record(path: Path) -> RunRecord:
    """The record in a file.

    Raises:
        InputError: it is missing, no JSON, or not of this schema.
    """
    return _read(RunRecord, path)


def _read(kind: type[StoredT], path: Path) -> StoredT:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return from_json(kind, content, str(path))
