"""The process that does one run, so that a crash, a CUDA error or the memory killer ends that run alone.

The parent writes a `Job` as one line of JSON to stdin and keeps it open; events come back as lines of JSON on stdout.
Each epoch of a trial waits for a line in answer, "go" or "prune". When stdin closes the parent is gone, and so is the
worker.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict

from ferbench.errors import reason_of
from ferbench.spec import RunSpec

if TYPE_CHECKING:
    from ferbench.data import Dataset
    from ferbench.records.store import Store

BATCH_EVENT_SECONDS = 0.2


class Job(BaseModel):
    """What a worker is asked to do."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    task: Literal["run", "estimate", "trial", "probe"]
    spec: RunSpec
    source: str
    """As `data.load` takes it."""
    labels: str | None
    results: str
    """The results folder."""
    device: str
    redo: bool = False
    at_once: int = 1
    """How many runs may share the device."""
    notes: list[str] = []
    """For the record."""
    folder: str = ""
    """Of a trial's checkpoint."""
    objectives: list[str] = []
    """A trial's; see `records.study.StudySpec`."""


class _Pruned(Exception):
    """The parent does not want the rest of a trial."""


class _Events:
    """Tells the parent, as lines of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_batch = 0.0
        self.answers: SimpleQueue[str] | None = None
        """What the parent says, where each epoch waits for it."""

    def tell(self, event: str, **facts: Any) -> None:
        try:
            self._stream.write(json.dumps({"event": event, **facts}) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            # the parent is gone: stop here, before anything takes this for a failed run
            os._exit(1)

    def on_note(self, text: str) -> None:
        self.tell("note", text=text)

    def on_batch(self, epoch: int, images: int) -> None:
        now = time.monotonic()
        if now - self._last_batch > BATCH_EVENT_SECONDS:
            self._last_batch = now
            self.tell("batch", epoch=epoch, images=images)

    def on_epoch(self, epoch: Any) -> None:
        self.tell("epoch", **vars(epoch))
        if self.answers is not None and self.answers.get() == "prune":
            raise _Pruned


def prepare() -> None:
    """Import what jobs need, and look which code this is, before there is one.

    No GPU may be touched, for this process is forked. All workers have the code that was there at this moment.
    """
    modules = ("again", "estimate", "trial", "data.ferplus", "data.formats", "data.synthetic", "models.weights")
    for name in modules:
        import_module(f"ferbench.{name}")
    # the first optimizer would import it
    import_module("torch._dynamo")
    import_module("ferbench.environment").describe_software()


def main() -> None:
    """Do the job on stdin; the exit code is 0 if it ended well."""
    events = _Events(os.fdopen(os.dup(1), "w"))
    # whatever a library prints belongs in the log, not among the events
    os.dup2(2, 1)
    job = Job.model_validate_json(sys.stdin.readline())
    answers: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_hear_parent, args=(answers,), daemon=True).start()
    if job.task == "trial":
        events.answers = answers
    code = 0 if _do(job, events) else 1
    sys.stderr.flush()
    # not sys.exit: taking torch apart takes a second, for which the parent would wait
    os._exit(code)


def _hear_parent(answers: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        answers.put(line.strip())
    os._exit(1)


def _do(job: Job, events: _Events) -> bool:
    from ferbench.again import run_again
    from ferbench.environment import choose_device, describe, keep_freed_memory
    from ferbench.errors import InputError
    from ferbench.estimate import estimate_seconds
    from ferbench.records.record import Environment
    from ferbench.records.store import Store
    from ferbench.runner import run_one

    keep_freed_memory()
    store = Store(job.results)
    try:
        here = Environment(**describe(choose_device(job.device)))
    except InputError as error:
        events.tell("refused", reason=str(error))
        return False
    if job.task == "estimate":
        try:
            events.tell("estimate", seconds=estimate_seconds(job.spec, _data_of(job), job.device))
        except Exception as error:
            events.tell("failed", reason=reason_of(error))
            return False
        return True
    if job.task == "probe":
        return _probe(job)
    if job.task == "trial":
        events.tell("started", environment=here.model_dump())
        return _try(job, store, events)
    with store.claim(job.spec) as claimed:
        if not claimed:
            events.tell("busy")
            return True
        if store.is_done(job.spec) and not job.redo:
            # another process finished it since the plan was made
            events.tell("done")
            return True
        # a checkpoint beside a record that is done is that of a redo which was stopped
        events.tell("started", environment=here.model_dump())
        try:
            run = run_one if job.spec.source == job.spec else run_again
            run(job.spec, _data_of(job), store, job.device, events, job.at_once, job.notes)
        except Exception as error:
            # the parent writes the record
            traceback.print_exc()
            events.tell("failed", reason=reason_of(error))
            return False
    events.tell("done")
    return True


def _probe(job: Job) -> bool:
    from ferbench.environment import choose_device
    from ferbench.probe import choose_arithmetic

    # the answer is remembered; what goes wrong here goes wrong in the run too, which says so
    choose_arithmetic(job.spec, len(_data_of(job).classes), choose_device(job.device))
    return True


def _try(job: Job, store: Store, events: _Events) -> bool:
    from ferbench.training.fit import TrainingDivergedError
    from ferbench.trial import run_trial

    try:
        dataset, folder = _data_of(job).without_test(), Path(job.folder)
        facts = run_trial(job.spec, dataset, store, folder, job.device, events, job.objectives)
    except _Pruned:
        events.tell("pruned", reason=None)
    except TrainingDivergedError as error:
        # for the search a bad place, not a fault
        events.tell("pruned", reason=str(error))
    except Exception as error:
        traceback.print_exc()
        events.tell("failed", reason=reason_of(error))
        return False
    else:
        events.tell("done", **facts)
    return True


def _data_of(job: Job) -> Dataset:
    from ferbench.data import load

    return load(job.source, job.labels, job.spec.data.protocol)
