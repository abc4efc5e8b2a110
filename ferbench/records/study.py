"""The stored schema of a study: what was searched and how, and what became of every trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ferbench.recipe import Recipe
from ferbench.records.record import Environment
from ferbench.records.stored import Stored
from ferbench.spec import Budget, DataKey
from ferbench.toml import flat_fields

SCHEMA_VERSION: Final = 1

Value = bool | int | float | str

SCORES = ("accuracy", "macro_f1")
"""Val scores that a study can raise."""
COSTS = ("parameters", "macs", "images_per_second")
"""What it can weigh them against; images_per_second (inference) is raised, the others lowered."""


class Range(Stored):
    """A recipe field that takes any value between two."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether it is drawn on a logarithmic scale."""
    when: dict[str, list[Value]] = Field(default_factory=dict)
    """Other fields of the space -> the values with which this one counts; else it keeps the baseline's."""


class Choices(Stored):
    """A recipe field that takes one of some values."""

    choices: list[Value]
    when: dict[str, list[Value]] = Field(default_factory=dict)
    """As in `Range`."""


Dimension = Range | Choices


class Sampler(Stored):
    """What proposes the next trial."""

    name: Literal["tpe", "random", "gp"]
    """Tree-structured Parzen estimator (Bergstra et al. 2011), random search, or a Gaussian process."""
    startup_trials: Annotated[int, Field(ge=1)]
    """Random trials before it learns from them, the baseline among them."""


class Pruner(Stored):
    """What ends a trial early."""

    name: Literal["median", "none"]
    """median: when its best epoch so far is below the median of the others at that epoch."""
    startup_trials: Annotated[int, Field(ge=1)]
    """Trials that must have ended before any is pruned."""
    warmup: Annotated[float, Field(ge=0, le=1)]
    """Share of the epochs in which none is: slow starters may be the best in the end."""


class Limit(Stored):
    """How much a study may use; equal for all models."""

    unit: Literal["trials", "epochs", "seconds"]
    """Trials, training epochs over all trials, or seconds of a device over all trials."""
    amount: Annotated[float, Field(gt=0)]


class StudySpec(Stored):
    """What decides how a study goes; more of the same study changes nothing here."""

    model: str
    """Its recipe's name; the baseline is trial 0."""
    objectives: list[str]
    """A val score of `SCORES` at the epoch that the recipe's own rule chooses, then any `COSTS`."""
    space: dict[str, Dimension]
    """Dotted recipe fields and what they may be, those that others depend on first."""
    sampler: Sampler
    pruner: Pruner
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Of the sampler, and of every trial's training: trials differ in nothing but what is searched."""
    baseline: Recipe
    budget: Budget
    """Of each trial."""
    data: DataKey

    @property
    def epochs(self) -> int:
        """Of a trial that is not pruned and does not search its epochs."""
        return self.budget.epochs or self.baseline.training.epochs


def direction(objective: str) -> Literal["maximize", "minimize"]:
    """Which way an objective is better."""
    return "minimize" if objective in ("parameters", "macs") else "maximize"


class TrialRow(Stored):
    """One trial; attempts that were killed or stopped and gone on with are one with their last."""

    number: int
    """From 0, the baseline; numbers are unique, and the attempts of a trial use up numbers."""
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    params: dict[str, Value]
    """Fields of the space that counted in it."""
    values: list[float]
    """By objective; empty where it did not complete."""
    curve: list[float]
    """First objective by epoch."""
    best_epoch: int | None
    """The epoch whose value is the trial's."""
    seconds: float
    """Of its device, evaluation included."""
    attempts: int
    """How often it was begun."""
    reason: str | None
    """Why it failed, or was stopped other than by the pruner."""
    unpruned: list[float] | None = None
    """The whole curve of a pruned trial, where `tune audit` has gone on with it."""
    unpruned_value: float | None = None
    """Its first objective then; None too where it diverged on the way."""


class Promotion(Stored):
    """A trial whose recipe was trained again on fresh seeds beside the baseline, to become the model's."""

    trial: int
    value: float
    """First objective in the study."""
    date: str
    """UTC."""
    commit: str | None
    runs: list[str]
    """Ids of runs with the new recipe on fresh seeds, under the study's budget."""
    baseline_runs: list[str]
    """Likewise with the old one."""
    is_recipe: bool | None = None
    """Whether its recipe was written; None: from before this was recorded."""


class StudyRecord(Stored):
    """A study as `ferbench tune export` reads it out of its storage."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    spec: StudySpec
    limit: Limit
    """As it was last asked for."""
    trials: list[TrialRow]
    importances: dict[str, dict[str, float]]
    """Evaluator ("ped_anova", "fanova") -> field -> share; empty with too few trials."""
    environments: list[Environment]
    """Where trials ran."""
    promotion: Promotion | None = None
    finished_at: str
    """UTC, ISO 8601: when it was read."""

    @property
    def best(self) -> TrialRow | None:
        """The completed trial with the best first objective; None where none completed."""
        return best_of(self.trials)

    def trial(self, number: int) -> TrialRow | None:
        """The trial of that number, if there is one."""
        return next((t for t in self.trials if t.number == number), None)


def changed_fields(a: StudySpec, b: StudySpec) -> list[tuple[str, Any, Any]]:
    """(dotted field, a's value, b's) of everything in which two specs differ."""
    flat_a, flat_b = (dict(flat_fields(s.model_dump(mode="json"))) for s in (a, b))
    names = dict.fromkeys([*flat_a, *flat_b])
    return [(n, flat_a.get(n), flat_b.get(n)) for n in names if flat_a.get(n) != flat_b.get(n)]


def best_of(trials: Sequence[TrialRow]) -> TrialRow | None:
    """The completed trial with the best first objective; None where none completed."""
    return max((t for t in trials if t.state == "complete"), key=lambda t: t.values[0], default=None)
