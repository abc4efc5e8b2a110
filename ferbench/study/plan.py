"""Which studies a command asks for: found in their storage, or made there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench import models
from ferbench.environment import check_device_name, shared_threads
from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.plan import check_init, check_model, check_overrides, choose_budget, choose_data, wanted_words
from ferbench.records.store import Store
from ferbench.records.study import Choices, Dimension, Limit, StudySpec, Value, changed_fields
from ferbench.spec import Budget, DataKey, RunSpec, file_stem
from ferbench.study.ledger import Ledger, open_or_create
from ferbench.study.space import Space, check_objectives, load_study
from ferbench.study.storage import HEARTBEAT_SECONDS, JOURNAL, Keeper, open_database, open_journal, study_names_in
from ferbench.worker import Job

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from ferbench.data import Dataset


@dataclass(frozen=True)
class StudyPlan:
    """One study that is to go on, and what its trials need."""

    name: str
    ledger: Ledger
    space: Space
    store: Store
    source: str
    """As `data.load` takes it."""
    labels: str | None
    devices: tuple[str, ...]
    """A trial begins on the one with the fewest at work."""
    workers: int
    """Trials at once."""
    notes: tuple[str, ...] = field(default=())

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.store.root / "studies" / self.name

    def trial_folder(self, number: int) -> Path:
        """Where a trial's checkpoint and log are."""
        return self.folder / "trials" / str(number)

    def environment(self) -> dict[str, str]:
        """Variables for its workers: on CPUs, side by side, they would only wait for each other's threads."""
        return shared_threads(self.workers)

    def free_device(self, at_work: Iterable[str]) -> str:
        """Where the next trial begins.

        Args:
            at_work: the device of each trial at work.
        """
        busy = Counter(at_work)
        return min(self.devices, key=busy.__getitem__)

    def job(self, number: int, params: Mapping[str, Value], device: str) -> Job:
        """A trial as its worker is told.

        Raises:
            InputError: the values do not go together.
        """
        spec = self.ledger.spec
        run = RunSpec(recipe=self.space.recipe(params), seed=spec.seed, budget=spec.budget, data=spec.data)
        return Job.model_validate(
            {
                "task": "trial",
                "spec": run,
                "source": self.source,
                "labels": self.labels,
                "results": str(self.store.root.resolve()),
                "device": device,
                "at_once": self.workers,
                "folder": str(self.trial_folder(number).resolve()),
                "objectives": spec.objectives,
            }
        )

    def probes(self) -> list[Job]:
        """Trials that differ in what decides how a device trains fastest, on each device."""
        choices = [(n, c) for n, d in self.space.dimensions.items() if isinstance(d, Choices) for c in d.choices]
        changes: list[dict[str, Value]] = [{}, *(self.space.with_parents({name: choice}) for name, choice in choices)]
        jobs = [self.job(0, params, device) for device in self.devices for params in changes]
        return list({(job.device, job.spec.workload): job for job in jobs}.values())


def plan_studies(
    models_wanted: str,
    *,
    source: str | Path | None = None,
    labels: str | None = None,
    budget: str | None = None,
    protocol: str | None = None,
    limit: Limit | None = None,
    objectives: list[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    name: str | None = None,
    fork: bool = False,
    storage: str | None = None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    workers: int = 1,
    devices: str = "auto",
    results: str | Path = "results",
) -> list[StudyPlan]:
    """The studies of all these models, each with its storage open.

    Args:
        models_wanted: names, globs, study files or "all", separated by commas.
        source: the data; see `data.load`.
        budget: of each trial, a name of baselines/budgets.toml; None is "full", or "demo" for the synthetic faces.
        limit: of each study; None is that of its file.
        objectives: in place of the file's.
        overrides: recipe fields that every trial has.
        name: told apart by it from other studies of the model.
        fork: whether to start anew where the study is there and was another one.
        storage: RDB URL; None keeps a journal in each study's folder.
        workers: trials at once.
        devices: separated by commas.

    Raises:
        InputError: anything is unknown, does not fit, or cannot be reached, or the study was another one.
    """
    sources = list(dict.fromkeys(s for word in wanted_words(models_wanted) for s in _sources(word)))
    if protocol == "oracle":
        raise InputError("--protocol oracle: a study must not choose on test")
    if workers < 1:
        raise InputError(f"--workers {workers}: at least 1 is expected")
    if objectives is not None:
        check_objectives(objectives, "--objective")
    resolved, dataset, key = choose_data(source, labels, protocol)
    track, store, chosen = choose_budget(budget, dataset), Store(results), _devices(devices, workers)
    check_overrides(dict(overrides or {}), track)
    database = None if storage is None else open_database(storage, heartbeat_seconds)
    plans = []
    for word in sources:
        model, file = load_study(word)
        searched, notes = _searched(file.space, track)
        _check_fixed(overrides or {}, searched)
        space = Space(load_recipe(model, overrides=dict(overrides or {})), searched, f"study {word}")
        check_model(space.baseline.model)
        check_init(space.baseline.model)
        spec = StudySpec(
            model=model,
            objectives=objectives or file.objectives,
            space=searched,
            sampler=file.sampler,
            pruner=file.pruner,
            seed=file.seed,
            baseline=space.baseline,
            budget=track,
            data=key,
        )
        found, ledger = _open(_slug(model, name), spec, limit or file.limit, space, store, database, fork)
        plans.append(
            StudyPlan(found, ledger, space, store, resolved, labels, chosen, workers, (*notes, *_notes(dataset, spec)))
        )
    return plans


def plan_again(
    name: str,
    ledger: Ledger,
    *,
    source: str | Path | None,
    labels: str | None,
    workers: int,
    devices: str,
    results: str | Path,
) -> StudyPlan:
    """What more trials of a study that is there need.

    Raises:
        InputError: the data are not those of the study.
    """
    spec = ledger.spec
    resolved, dataset, key = choose_data(source, labels, spec.data.protocol)
    check_data(name, spec.data, key, resolved)
    space = Space(spec.baseline, spec.space, f"study {name}")
    chosen = _devices(devices, workers)
    return StudyPlan(name, ledger, space, Store(results), resolved, labels, chosen, workers, dataset.notes)


def check_data(name: str, own: DataKey, given: DataKey, source: str) -> None:
    """Refuse data that are not the study's.

    Raises:
        InputError: they are not.
    """
    if given != own:
        raise InputError(
            f"study {name} is on {own.name} ({own.fingerprint}), not on {given.name} ({given.fingerprint}) of {source}"
        )


def _check_fixed(overrides: Mapping[str, Any], space: Mapping[str, Dimension]) -> None:
    for name in overrides:
        if any(field == name or field.endswith(f".{name}") for field in space):
            raise InputError(f"--set {name}: the study searches it")


def _sources(word: str) -> list[str]:
    return [word] if word.endswith(".toml") else [row.name for row in models.select(word)]


def _slug(model: str, name: str | None) -> str:
    stem = file_stem(model)
    if name is None:
        return stem
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--name {name!r}: letters, digits, - and _ are expected")
    return f"{stem}-{name}"


def _devices(text: str, workers: int) -> tuple[str, ...]:
    chosen = tuple(word.strip() for word in text.split(","))
    for device in chosen:
        check_device_name(device)
    if chosen == ("auto",) and workers > 1:
        import torch

        chosen = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or chosen
    return chosen


def _searched(space: dict[str, Dimension], budget: Budget) -> tuple[dict[str, Dimension], tuple[str, ...]]:
    """The space without what the budget decides for every model, and a note of it."""
    out = {name: value for name, value in budget.decided.items() if name in space}
    kept = {}
    for name, dimension in space.items():
        met = {parent: values for parent, values in dimension.when.items() if parent in out}
        if name in out or any(out[parent] not in values for parent, values in met.items()):
            continue
        left = {parent: values for parent, values in dimension.when.items() if parent not in out}
        kept[name] = dimension.model_copy(update={"when": left})
    notes = tuple(f"budget {budget.name} sets {n.partition('.')[2]} = {v}: it is not searched" for n, v in out.items())
    if not kept:
        raise InputError(f"budget {budget.name} leaves nothing to search ({'; '.join(notes)})")
    return kept, notes


def _notes(dataset: Dataset, spec: StudySpec) -> tuple[str, ...]:
    several = len(spec.objectives) > 1 and spec.pruner.name != "none"
    return (*dataset.notes, *(["several objectives: no trial is pruned"] if several else []))


def _open(
    base: str,
    spec: StudySpec,
    limit: Limit,
    space: Space,
    store: Store,
    database: tuple[BaseStorage, Keeper] | None,
    fork: bool,
) -> tuple[str, Ledger]:
    """The study's name and the study: the one of that spec, or a new one."""
    other: tuple[str, StudySpec] | None = None
    for n in range(1, 1000):
        name = base if n == 1 else f"{base}-{n}"
        folder = store.root / "studies" / name
        there = (folder / JOURNAL).is_file() if database is None else name in study_names_in(database[0])
        if not there and other is not None and not fork:
            break
        storage, keeper = database or open_journal(folder)
        ledger = open_or_create(storage, name, spec, limit, space.start, keeper)
        if ledger.spec == spec:
            ledger.set_limit(limit)
            return name, ledger
        other = name, ledger.spec
    assert other is not None
    field, old, new = changed_fields(other[1], spec)[0]
    raise InputError(
        f"study {other[0]} was begun with {field} = {old!r}, not {new!r}: --fork starts a new study, "
        "--name NAME one beside it"
    )
