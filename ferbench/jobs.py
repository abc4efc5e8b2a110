"""Many runs: the plan, and the worker process of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, BaseSelector, DefaultSelector
from typing import IO, TYPE_CHECKING, Any

from ferbench import data, models
from ferbench.data.dataset import RENAMED_FOLDERS
from ferbench.data.protocol import clean_test, divide
from ferbench.environment import check_device_name, cpu_name, describe_software, usable_cores
from ferbench.errors import InputError
from ferbench.inputs import load_budget, load_recipe, recipe_names
from ferbench.listener import Listener
from ferbench.recipe import Budget, DataKey, RunSpec
from ferbench.records.facts import DataFacts
from ferbench.records.record import Environment, RunRecord, failed_record
from ferbench.records.store import Store
from ferbench.training.imbalance import STRATEGIES
from ferbench.worker import Job

if TYPE_CHECKING:
    from ferbench.data import Dataset


@dataclass(frozen=True)
class Plan:
    """Which runs a command asks for, on which data."""

    specs: tuple[RunSpec, ...]
    source: str
    """As `data.load` takes it."""
    labels: str | None
    dataset: Dataset
    store: Store
    device: str

    def missing(self) -> list[RunSpec]:
        """The runs whose files are not there yet."""
        return [s for s in self.specs if not self.store.is_done(s)]

    def job(self, spec: RunSpec, task: str, redo: bool = False, at_once: int = 1) -> Job:
        """A run as its worker is told."""
        return Job.model_validate(
            {
                "task": task,
                "spec": spec,
                "source": self.source,
                "labels": self.labels,
                "results": str(self.store.root.resolve()),
                "device": self.device,
                "redo": redo,
                "at_once": at_once,
            }
        )


def make_plan(
    models_wanted: str,
    *,
    source: str | Path | None = None,
    labels: str | None = None,
    imbalance: str = "none",
    seeds: Sequence[int] = (0,),
    budget: str | None = None,
    protocol: str | None = None,
    init: str | None = None,
    overrides: dict[str, Any] | None = None,
    results: str | Path = "results",
    device: str = "auto",
) -> Plan:
    """The runs of every model x strategy x seed.

    Args:
        models_wanted: names, globs, shipped recipes, recipe files ending in .toml, or "all", separated by commas.
        source: the data; see `data.load`.
        imbalance: strategies, in the same way.
        budget: of baselines/budgets.toml; None is "full", or "demo" for the synthetic faces.
        protocol: of `data.protocol.PROTOCOLS`; None is "official", or "folder" where the files leave no other.

    Raises:
        InputError: anything is unknown or does not fit.
    """
    recipes = [r for word in models_wanted.split(",") for r in _recipes(word.strip())]
    strategies = STRATEGIES.select(imbalance)
    _check_seeds(seeds)
    check_device_name(device)
    resolved = data.resolve(source)
    given = data.load(resolved, labels)
    wanted = protocol or ("folder" if given.name == RENAMED_FOLDERS else "official")
    dataset = divide(given, wanted)
    key = DataKey.model_validate({"name": given.name, "fingerprint": dataset.fingerprint, "protocol": wanted})
    track: Budget = load_budget(budget or ("demo" if dataset.name == "synthetic" else "full"))
    _check_overrides(overrides or {}, track)
    specs = []
    for source_name in dict.fromkeys(recipes):
        for strategy in strategies:
            recipe = load_recipe(source_name, strategy=strategy.name, init=init, overrides=overrides)
            models.check(recipe.model)
            specs += [RunSpec(recipe=recipe, seed=s, budget=track, data=key) for s in seeds]
    unique = {s.id: s for s in specs}
    return Plan(tuple(unique.values()), resolved, labels, dataset, Store(results), device)


def _recipes(word: str) -> list[str]:
    # a shipped recipe that is not a model's own; timm.toml needs a network's name
    other = word in recipe_names() and word not in models.MODELS.names and word != "timm"
    return [word] if word.endswith(".toml") or other else [row.name for row in models.select(word)]


def _check_overrides(overrides: dict[str, Any], budget: Budget) -> None:
    """Refuse to set what the budget decides."""
    for field in ("epochs", "batch_size"):
        value = getattr(budget, field)
        if value and overrides.keys() & {field, f"training.{field}"}:
            raise InputError(
                f"--set {field}: budget {budget.name} sets {field} = {value} for every model (--budget full)"
            )


def _check_seeds(seeds: Sequence[int]) -> None:
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"seed {seed} is out of range (0 to 4294967295)")
    if not seeds:
        raise InputError("no seed given (--seeds 0,1,2)")


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

    A run that fails is recorded with its reason and the rest goes on. Runs that another process is at are left out.

    Args:
        at_once: how many runs share the device.

    Raises:
        InputError: the device is not there, or `at_once` is less than 1.
    """
    if at_once < 1:
        raise InputError(f"{at_once} runs at once: at least 1 is expected")
    _write_facts(plan)
    # one thread for all workers: what ends it, Ctrl-C too, ends them on its way out
    with DefaultSelector() as pipes, ExitStack() as workers:
        for spec in plan.specs if redo else plan.missing():
            while len(pipes.get_map()) == at_once:
                _listen(plan, pipes, listener)
            listener.on_start(spec, round(len(plan.dataset.train) * spec.budget.fraction))
            worker, job = workers.enter_context(ExitStack()), plan.job(spec, "run", redo, at_once)
            process, pipe = worker.enter_context(_worker(job, plan.store.folder(spec) / "worker.log"))
            pipes.register(pipe, EVENT_READ, _Run(spec, process, worker))
        while pipes.get_map():
            _listen(plan, pipes, listener)
    return [plan.store.record(s) for s in plan.specs if plan.store.has_record(s)]


def _write_facts(plan: Plan) -> None:
    dataset, key = plan.dataset, plan.specs[0].data
    if plan.store.facts(key) is None:
        counts = {
            name: dict(zip(dataset.classes, split.counts(len(dataset.classes)).tolist(), strict=True))
            for name, split in dataset.splits()
        }
        twins = (~clean_test(dataset)).nonzero()[0].tolist()
        plan.store.write_facts(DataFacts(data=key, counts=counts, test_twins=twins))


def _listen(plan: Plan, pipes: BaseSelector, listener: Listener) -> None:
    """Wait until workers say something or end, and pass it on."""
    for key, _ in pipes.select():
        run, heard = key.data, os.read(key.fd, 1 << 16)
        *lines, run.begun = (run.begun + heard).split(b"\n")
        for line in lines:
            _pass_on(run, json.loads(line), listener)
        if not heard:
            pipes.unregister(key.fileobj)
            listener.on_end(run.spec, _outcome(plan, run))
            run.worker.close()


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
    """Each run with the seconds it should take, or why that cannot be said; one measurement per recipe."""
    measured: dict[str, float | str] = {}
    results = []
    for spec in specs:
        recipe = spec.recipe.model_dump_json()
        if recipe not in measured:
            measured[recipe] = _estimate_in_worker(plan, spec)
        results.append((spec, measured[recipe]))
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
    if here is None:
        facts = {**describe_software(), "device": cpu_name(), "device_type": "cpu", "threads": usable_cores()}
        here = Environment(**facts)
    return failed_record(spec, f"{reason}; worker.log in the run's folder has its last words", here)
