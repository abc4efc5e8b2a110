"""Many runs, each in a worker process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ferbench.data.protocol import subset_counts
from ferbench.environment import cpu_name, describe_software, usable_cores
from ferbench.errors import InputError
from ferbench.listener import Listener
from ferbench.plan import Plan
from ferbench.posthoc import adjust
from ferbench.records.record import Environment, RunRecord, failed_record
from ferbench.spec import RunSpec
from ferbench.workers import Workers, death


@dataclass
class _Run:
    """A run at work, and what its worker has said of it."""

    spec: RunSpec
    before: RunRecord | None
    """What was stored of it."""
    last: str = ""
    """The last event."""
    reason: str = ""
    """Why it failed, where the worker said so."""
    here: Environment | None = None


@dataclass
class _Ended:
    """What is known of runs that gave no result."""

    elsewhere: set[str] = field(default_factory=set)
    """Ids of those that another process is at, and of what waits for them."""
    failed: dict[str, RunRecord] = field(default_factory=dict)
    """By id; where a redo failed, this is not stored."""


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
    ended, counts = _Ended(), plan.dataset.train.counts(len(plan.dataset.classes))
    with Workers[_Run]() as workers:
        todo = plan.todo(redo=redo)
        if min(at_once, len(todo)) > 1:
            # views of a run compute as that did
            for spec in {s.workload: s for s in todo if s.own_epochs and "auto" in s.workload}.values():
                workers.probe(plan.job(spec, "run"), plan.store.folder(spec) / "worker.log")
        for spec in todo:
            while len(at_work := workers.at_work) == at_once or any(run.spec == spec.source for run in at_work):
                _listen(plan, workers, listener, ended)
            if spec.source.id in ended.elsewhere:
                ended.elsewhere.add(spec.id)
                continue
            if spec.is_posthoc:
                _adjust(plan, spec, listener, ended)
                continue
            listener.on_start(spec, int(subset_counts(counts, spec.budget.fraction).sum()))
            run = _Run(spec, plan.store.record(spec) if plan.store.has_record(spec) else None)
            workers.start(plan.job(spec, "run", redo, at_once), plan.store.folder(spec) / "worker.log", run)
        while workers.at_work:
            _listen(plan, workers, listener, ended)
    # an old record of what another process is at says nothing of how that will end
    here = [s for s in plan.specs if s.id not in ended.elsewhere]
    there = [s for s in here if s.id in ended.failed or plan.store.has_record(s)]
    return [ended.failed.get(s.id) or plan.store.record(s) for s in there]


def _adjust(plan: Plan, spec: RunSpec, listener: Listener, ended: _Ended) -> None:
    """Do here what is done after training: it takes a second and no torch."""
    listener.on_start(spec, 0)
    try:
        record = adjust(spec, plan.store)
    except InputError as error:
        here = plan.store.record(spec.trained).environment if plan.store.has_record(spec.trained) else _environment()
        record = ended.failed[spec.id] = failed_record(spec, str(error), here)
        plan.store.write_failure(record)
    listener.on_end(spec, record)


def _listen(plan: Plan, workers: Workers[_Run], listener: Listener, ended: _Ended) -> None:
    """Wait until workers say something or end, and pass it on."""
    for worker, event in workers.hear():
        run = worker.task
        if event is not None:
            _pass_on(run, event, listener)
            continue
        outcome = _outcome(plan, run, worker.exit_code)
        if outcome is None:
            ended.elsewhere.add(run.spec.id)
        elif outcome.status == "failed":
            ended.failed[run.spec.id] = outcome
        listener.on_end(run.spec, outcome)


def _pass_on(run: _Run, event: dict[str, Any], listener: Listener) -> None:
    run.last = event.pop("event")
    if run.last == "refused":
        raise InputError(event["reason"])
    if run.last == "failed":
        run.reason = event["reason"]
    elif run.last == "started":
        run.here = Environment.model_validate(event["environment"])
    elif run.last == "note":
        listener.on_note(run.spec, **event)
    elif run.last == "batch":
        listener.on_batch(run.spec, **event)
    elif run.last == "epoch":
        listener.on_epoch(run.spec, event)


def _outcome(plan: Plan, run: _Run, code: int) -> RunRecord | None:
    """The record of a run whose worker has ended; None: another process is at it."""
    if run.last == "busy":
        return None
    # a worker may be killed between the last file and the word
    if run.last == "done" or (plan.store.is_done(run.spec) and plan.store.record(run.spec) != run.before):
        return plan.store.record(run.spec)
    # without `here` the worker had not said yet where it was
    reason = run.reason or f"{death(code)}; worker.log in the run's folder has its last words"
    record = failed_record(run.spec, reason, run.here or _environment())
    plan.store.write_failure(record)
    return record


def estimate(plan: Plan, specs: Iterable[RunSpec]) -> Iterator[tuple[RunSpec, float | str]]:
    """Each run with the seconds it should take, or why that cannot be said; seeds are measured together."""
    measured: dict[tuple[str, str], float | str] = {}
    with Workers[RunSpec]() as workers:
        for spec in specs:
            key = spec.recipe.model_dump_json(), spec.tta
            if spec.is_posthoc:
                # a second for all of them
                measured[key] = 1.0
            if key not in measured:
                workers.start(plan.job(spec, "estimate"), None, spec)
                measured[key] = _estimated(workers)
            yield spec, measured[key]


def _estimated(workers: Workers[RunSpec]) -> float | str:
    """What the one worker at work says."""
    said: float | str | None = None
    while workers.at_work:
        for worker, event in workers.hear():
            if event is None:
                said = death(worker.exit_code) if said is None else said
            elif event["event"] == "refused":
                raise InputError(event["reason"])
            else:
                said = float(event["seconds"]) if event["event"] == "estimate" else str(event["reason"])
    assert said is not None
    return said


def _environment() -> Environment:
    facts = {**describe_software(), "device": cpu_name(), "device_type": "cpu", "threads": usable_cores()}
    return Environment(**facts)
