"""Which studies a command asks for: found in their storage, or made there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from ferbench import models
from ferbench.environment import check_device_name, shared_threads
from ferbench.errors import InputError
from ferbench.plan import check_overrides, choose_budget, choose_data, wanted_words
from ferbench.records.store import Store
from ferbench.records.study import Choices, Limit, Value
from ferbench.spec import DataKey, RunSpec
from ferbench.study.ledger import Ledger
from ferbench.study.space import Space, check_objectives
from ferbench.study.storage import HEARTBEAT_SECONDS, open_database, reached
from ferbench.study.wanted import name_of, open_wanted, wanted_study
from ferbench.worker import Job


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
        limit: of each study; None is what it has, that of its file if it is new.
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
    wanted = [wanted_study(word, name, objectives, overrides or {}, track, key) for word in sources]
    for a, b in combinations(wanted, 2):
        if a.base == b.base and a.spec != b.spec and not fork:
            raise InputError(
                f"--models {models_wanted}: two different studies would be called {a.base}: --fork numbers them, "
                "--name NAME in a command of its own tells one apart"
            )
    database = None if storage is None else open_database(storage, heartbeat_seconds)
    with reached():
        for study in wanted:
            # none is made or changed where another is refused
            name_of(study, store, database, fork)
        opened = [open_wanted(study, limit, store, database, fork) for study in wanted]
    return [
        StudyPlan(
            ledger.name, ledger, study.space, store, resolved, labels, chosen, workers, study.notes + dataset.notes
        )
        for study, ledger in zip(wanted, opened, strict=True)
    ]


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


def _sources(word: str) -> list[str]:
    return [word] if word.endswith(".toml") else [row.name for row in models.select(word)]


def _devices(text: str, workers: int) -> tuple[str, ...]:
    chosen = tuple(word.strip() for word in text.split(","))
    for device in chosen:
        check_device_name(device)
    if chosen == ("auto",) and workers > 1:
        import torch

        chosen = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or chosen
    return chosen
