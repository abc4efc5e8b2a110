"""The winner of a study becomes a recipe, after fresh seeds have said what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from ferbench.environment import source_commit
from ferbench.errors import InputError
from ferbench.inputs import load_recipe, shipped
from ferbench.jobs import run_many
from ferbench.listener import Listener
from ferbench.plan import Plan
from ferbench.recipe import RunSpec
from ferbench.records.record import RunRecord
from ferbench.records.study import Promotion, StudyRecord, TrialRow, Value
from ferbench.study.space import Space


@dataclass(frozen=True)
class Verdict:
    """What fresh seeds say of a trial."""

    promotion: Promotion
    winner: list[RunRecord]
    """By seed."""
    baseline: list[RunRecord]

    def val(self, objective: str) -> tuple[float, float]:
        """Mean val scores of winner and baseline."""
        of_winner, of_baseline = (
            fmean(r.scores["val"].values[objective] for r in records) for records in (self.winner, self.baseline)
        )
        return of_winner, of_baseline


def trial_to_promote(record: StudyRecord, number: int | None) -> TrialRow:
    """The study's best trial, or the one of that number.

    Raises:
        InputError: it did not complete.
    """
    trial = record.best if number is None else record.trial(number)
    if trial is None or trial.state != "complete":
        what = "no trial completed" if number is None else f"trial {number} is {trial.state if trial else 'not there'}"
        raise InputError(f"study {record.name}: {what}")
    return trial


def fresh_seeds(record: StudyRecord, seeds: Sequence[int]) -> list[int]:
    """The seeds, none of which the study has used.

    Raises:
        InputError: one is the study's own, or there is none.
    """
    if not seeds or record.spec.seed in seeds:
        raise InputError(
            f"--seeds {','.join(map(str, seeds))}: seeds other than the study's {record.spec.seed} expected"
        )
    return list(seeds)


def try_again(
    record: StudyRecord, trial: TrialRow, seeds: Sequence[int], plan: Plan, listener: Listener, *, at_once: int = 1
) -> Verdict:
    """Train the trial's recipe and the baseline on fresh seeds under the study's budget, as finished runs.

    Args:
        plan: the data, device and results; its runs do not count.

    Raises:
        InputError: a run failed.
    """
    spec = record.spec
    space = Space(spec.baseline, spec.space, f"study {record.name}")
    recipes = (space.recipe(trial.params), spec.baseline)
    runs = [[RunSpec(recipe=r, seed=s, budget=spec.budget, data=spec.data) for s in seeds] for r in recipes]
    asked = Plan((*runs[0], *runs[1]), plan.source, plan.labels, plan.dataset, plan.store, plan.device)
    records = {r.id: r for r in run_many(asked, listener, at_once=at_once)}
    for run in asked.specs:
        if run.id not in records or records[run.id].status != "ok":
            raise InputError(f"{run.id}: {records[run.id].reason if run.id in records else 'another process is at it'}")
    winner, baseline = ([records[run.id] for run in group] for group in runs)
    promotion = Promotion(
        trial=trial.number,
        value=trial.values[0],
        date=datetime.now(UTC).date().isoformat(),
        commit=source_commit(),
        runs=[r.id for r in winner],
        baseline_runs=[r.id for r in baseline],
    )
    return Verdict(promotion, winner, baseline)


def recipe_folder(record: StudyRecord, out: Path | None) -> Path:
    """Where the new recipe goes: baselines/, unless a folder is given.

    Raises:
        InputError: baselines/ is an installed package's, or the study says nothing of full runs.
    """
    if out is not None:
        return out
    baselines, spec = shipped("baselines"), record.spec
    if "site-packages" in baselines.parts or not (baselines.parent / "pyproject.toml").is_file():
        raise InputError("the recipes of an installed ferbench are not to be changed: --out DIR")
    if spec.budget.name != "full" or spec.baseline != load_recipe(spec.model):
        raise InputError(
            f"study {record.name} is not of full runs of the recipe as it stands (budget {spec.budget.name} "
            "or --set): it cannot say what their recipe should be (--out DIR)"
        )
    return baselines


def recipe_text(record: StudyRecord, promotion: Promotion, params: dict[str, Value]) -> str:
    """The baseline's file with the trial's values in it, comments kept, and where they come from."""
    import tomlkit

    stem = "timm" if record.spec.model.startswith("timm:") else record.spec.model
    document = tomlkit.parse(shipped("baselines", f"{stem}.toml").read_text(encoding="utf-8"))
    document["model"]["name"] = record.spec.baseline.model.name  # type: ignore[index]
    for name, value in params.items():
        *path, last = name.split(".")
        table = document
        for part in path:
            table = table.setdefault(part, tomlkit.table())  # type: ignore[assignment]
        table[last] = value
    document["provenance"] = {
        "study": record.name,
        "trial": promotion.trial,
        "objective": f"val {record.spec.objectives[0]}",
        "value": round(promotion.value, 6),
        "date": promotion.date,
        "commit": promotion.commit or "unknown",
    }
    return tomlkit.dumps(document)
