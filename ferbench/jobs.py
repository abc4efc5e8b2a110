"""Many runs, each in a worker process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, BaseSelector, DefaultSelector
from typing import IO, Any

from ferbench.environment import cpu_name, describe_software, usable_cores
from ferbench.errors import InputError
from ferbench.listener import Listener
from ferbench.plan import Plan
from ferbench.posthoc import adjust
from ferbench.recipe import RunSpec
from ferbench.records.record import Environment, RunRecord, failed_record
from ferbench.worker import Job


@dataclass
class _Run:
    """A run at work, and what its worker has said of it."""

    spec: RunSpec
    process: subprocess.Popen[bytes]
    worker: ExitStack
    """Ends the worker when it is closed."""
    begun: bytes = b""
    """A line whose end is still to come."""
    last: str = ""
    """The last event."""
    here: Environment | None = None


def run_many(plan: Plan, listener: Listener, *, redo: bool = False, at_once: int = 1) -> list[RunRecord]:
    """The records of all runs of a plan, each done in a process of its own; done ones are not done again.

    A run that fails is recorded with its reason and the rest goes on. Runs that another process is at are left out, and
    other views (TTA) of them.

    Args:
        at_once: how many runs share the device.

    Raises:
        InputError: the device is not there, or `at_once` is less than 1.
    """
    if at_once < 1:
        raise InputError(f"{at_once} runs at once: at least 1 is expected")
    plan.write_facts()
    # one thread for all workers: what ends it, Ctrl-C too, ends them on its way out
    elsewhere: set[str] = set()
    with DefaultSelector() as pipes, ExitStack() as workers:
        for spec in plan.specs if redo else plan.missing():
            while len(pipes.get_map()) == at_once or _is_at_work(pipes, spec.trained):
                elsewhere |= _listen(plan, pipes, listener)
            if spec.trained.id in elsewhere:
                continue
            if spec.is_posthoc:
                _adjust(plan, spec, listener)
                continue
            listener.on_start(spec, round(len(plan.dataset.train) * spec.budget.fraction))
            worker, job = workers.enter_context(ExitStack()), plan.job(spec, "run", redo, at_once)
            process, pipe = worker.enter_context(_worker(job, plan.store.folder(spec) / "worker.log"))
            pipes.register(pipe, EVENT_READ, _Run(spec, process, worker))
        while pipes.get_map():
            _listen(plan, pipes, listener)
    return [plan.store.record(s) for s in plan.specs if plan.store.has_record(s)]


def _adjust(plan: Plan, spec: RunSpec, listener: Listener) -> None:
    """Do here what is done after training: it takes a second and no torch."""
    listener.on_start(spec, 0)
    try:
        record = adjust(spec, plan.store)
    except InputError as error:
        here = plan.store.record(spec.trained).environment if plan.store.has_record(spec.trained) else _environment()
        record = failed_record(spec, str(error), here)
        plan.store.write_record(record)
    listener.on_end(spec, record)


def _is_at_work(pipes: BaseSelector, spec: RunSpec) -> bool:
    return any(key.data.spec == spec for key in pipes.get_map().values())


def _listen(plan: Plan, pipes: BaseSelector, listener: Listener) -> set[str]:
    """Wait until workers say something or end, and pass it on; ids of runs that turned out to be done elsewhere."""
    elsewhere = set()
    for key, _ in pipes.select():
        run, heard = key.data, os.read(key.fd, 1 << 16)
        *lines, run.begun = (run.begun + heard).split(b"\n")
        for line in lines:
            _pass_on(run, json.loads(line), listener)
        if not heard:
            pipes.unregister(key.fileobj)
            outcome = _outcome(plan, run)
            elsewhere |= {run.spec.id} if outcome is None else set()
            listener.on_end(run.spec, outcome)
            run.worker.close()
    return elsewhere


def _pass_on(run: _Run, event: dict[str, Any], listener: Listener) -> None:
    run.last = event.pop("event")
    if run.last == "refused":
        raise InputError(event["reason"])
    if run.last == "started":
        run.here = Environment.model_validate(event["environment"])
    elif run.last == "note":
        listener.on_note(run.spec, **event)
    elif run.last == "batch":
        listener.on_batch(run.spec, **event)
    elif run.last == "epoch":
        listener.on_epoch(run.spec, event)


def _outcome(plan: Plan, run: _Run) -> RunRecord | None:
    """The record of a run whose worker has ended; None: another process is at it."""
    code = run.process.wait()
    if run.last == "busy":
        return None
    if run.last not in ("done", "failed"):
        plan.store.write_record(_crashed_record(run.spec, code, run.here))
    return plan.store.record(run.spec)


def estimate(plan: Plan, specs: Iterable[RunSpec]) -> list[tuple[RunSpec, float | str]]:
    """Each run with the seconds it should take, or why that cannot be said; seeds are measured together."""
    measured: dict[tuple[str, str], float | str] = {}
    results = []
    for spec in specs:
        key = spec.recipe.model_dump_json(), spec.tta
        if spec.is_posthoc:
            # a second for all of them
            measured[key] = 1.0
        if key not in measured:
            measured[key] = _estimate_in_worker(plan, spec)
        results.append((spec, measured[key]))
    return results


def _estimate_in_worker(plan: Plan, spec: RunSpec) -> float | str:
    with _worker(plan.job(spec, "estimate"), None) as (process, pipe):
        for event in map(json.loads, pipe):
            if event["event"] == "refused":
                raise InputError(event["reason"])
            return float(event["seconds"]) if event["event"] == "estimate" else str(event["reason"])
        return f"the worker ended with exit code {process.wait()}"


@contextmanager
def _worker(job: Job, log: Path | None) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A worker at its job and the pipe with its events, one a line; it does not outlive the block."""
    # the package's own folder comes last on the path: a plain clone works, and nothing is shadowed
    root = str(Path(__file__).resolve().parents[1])
    code = f"import sys; sys.path.append({root!r}); from ferbench.worker import main; main()"
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with open(log or "/dev/null", "ab") as errors:  # noqa: PTH123 - one call for a path and the null device
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Ctrl-C goes to the parent alone, which then stops the worker
            start_new_session=True,
        )
        try:
            assert process.stdin and process.stdout
            # a worker that is gone before it has read its job is told by its exit code
            with suppress(BrokenPipeError):
                process.stdin.write(job.model_dump_json().encode() + b"\n")
                process.stdin.flush()
            yield process, process.stdout
        finally:
            process.kill()
            process.wait()
            # what it has not read of its job is flushed once more, in vain
            for stream in (process.stdin, process.stdout):
                if stream:
                    with suppress(BrokenPipeError):
                        stream.close()


def _crashed_record(spec: RunSpec, code: int, here: Environment | None) -> RunRecord:
    """A record for a worker that could not write its own; without `here` it had not said yet where it was."""
    reason = f"the worker was killed by signal {-code}" if code < 0 else f"the worker ended with exit code {code}"
    if code == -9:
        reason += " (out of memory?)"
    return failed_record(spec, f"{reason}; worker.log in the run's folder has its last words", here or _environment())


def _environment() -> Environment:
    facts = {**describe_software(), "device": cpu_name(), "device_type": "cpu", "threads": usable_cores()}
    return Environment(**facts)
