"""The winner of a study becomes a recipe, after fresh seeds have said what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from ferbench.environment import source_commit
from ferbench.errors import InputError, RunFailedError
from ferbench.inputs import load_recipe, recipe_path
from ferbench.jobs import run_many
from ferbench.listener import Listener
from ferbench.plan import Plan, check_seeds, choose_data
from ferbench.recipe import Recipe
from ferbench.records.store import Store
from ferbench.records.study import Promotion, StudyRecord, TrialRow
from ferbench.spec import RunSpec, file_stem
from ferbench.study.plan import check_data
from ferbench.study.space import Space
from ferbench.toml import flat_fields, shipped

TUNED = "# Tuned, see [provenance]: comments below are on the values from before.\n"


@dataclass(frozen=True)
class Verdict:
    """What fresh seeds say of a trial."""

    promotion: Promotion
    winner: float
    """Mean of the first objective on val."""
    baseline: float


def trial_to_promote(record: StudyRecord, number: int | None) -> TrialRow:
    """The study's best trial, or the one of that number.

    Raises:
        InputError: it did not complete, or is the baseline.
    """
    trial = record.best if number is None else record.trial(number)
    if trial is None or trial.state != "complete":
        what = "no trial completed" if number is None else f"trial {number} is {trial.state if trial else 'not there'}"
        raise InputError(f"study {record.name}: {what}")
    if trial.number == 0:
        raise InputError(f"study {record.name}: {'its best, ' if number is None else ''}trial 0, is the baseline")
    return trial


def recipe_of(record: StudyRecord, trial: TrialRow) -> Recipe:
    """The recipe that a trial had."""
    return Space(record.spec.baseline, record.spec.space, f"study {record.name}").recipe(trial.params)


def plan_runs(
    record: StudyRecord,
    trial: TrialRow,
    seeds: Sequence[int],
    *,
    source: str | Path | None,
    labels: str | None,
    store: Store,
    device: str,
) -> Plan:
    """Runs of the trial's recipe, then of the baseline, on fresh seeds under the study's budget.

    Raises:
        InputError: a seed is the study's own, or the data are not its data.
    """
    spec = record.spec
    check_seeds(seeds)
    if spec.seed in seeds:
        given = ",".join(map(str, seeds))
        raise InputError(f"--seeds {given}: expected seeds other than the study's, which is {spec.seed}")
    resolved, dataset, key = choose_data(source, labels, spec.data.protocol)
    check_data(record.name, spec.data, key, resolved)
    recipes = (recipe_of(record, trial), spec.baseline)
    runs = [RunSpec(recipe=r, seed=s, budget=spec.budget, data=spec.data) for r in recipes for s in seeds]
    return Plan(tuple(runs), resolved, labels, dataset, store, device)


def try_again(record: StudyRecord, trial: TrialRow, plan: Plan, listener: Listener, *, at_once: int = 1) -> Verdict:
    """What the runs of `plan_runs` say, trained now as far as they are missing.

    Raises:
        RunFailedError: one failed, or another process is at it.
        InputError: as `jobs.run_many`.
    """
    records = {r.id: r for r in run_many(plan, listener, at_once=at_once)}
    for run in plan.specs:
        if run.id not in records or records[run.id].status != "ok":
            reason = records[run.id].reason if run.id in records else "another process is at it"
            raise RunFailedError(f"{run.id}: {reason}")
    ids, half = [run.id for run in plan.specs], len(plan.specs) // 2
    metric = record.spec.objectives[0]
    means = [fmean(records[i].scores["val"].values[metric] for i in group) for group in (ids[:half], ids[half:])]
    promotion = Promotion(
        trial=trial.number,
        value=trial.values[0],
        date=datetime.now(UTC).date().isoformat(),
        commit=source_commit(),
        runs=ids[:half],
        baseline_runs=ids[half:],
    )
    return Verdict(promotion, *means)


def recipe_folder(record: StudyRecord, out: Path | None) -> Path:
    """Where the new recipe goes: baselines/, unless a folder is given.

    Raises:
        InputError: baselines/ is an installed package's, the study says nothing of full runs, or `out` is no folder.
    """
    if out is not None:
        try:
            # now: the runs take hours
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {out}: {error.strerror}, expected a folder") from None
        return out
    baselines, spec = shipped("baselines"), record.spec
    if "site-packages" in baselines.parts or not (baselines.parent / "pyproject.toml").is_file():
        raise InputError(
            "--out DIR: the recipes of an installed ferbench are not to be changed (pip install -e . in a clone)"
        )
    if spec.budget.name != "full" or spec.baseline != load_recipe(spec.model):
        raise InputError(
            f"study {record.name} is not of full runs of the recipe as it stands (budget {spec.budget.name} "
            "or --set): it cannot say what their recipe should be (--out DIR)"
        )
    return baselines


def write_recipe(store: Store, folder: Path, record: StudyRecord, promotion: Promotion, recipe: Recipe) -> Path:
    """The path of the model's recipe file, now written: its old text, comments kept, with what the recipe has else.

    Args:
        recipe: of the promoted trial; what the study had by `--set` is in it.
    """
    text = _recipe_text(record, promotion, recipe)
    with TemporaryDirectory() as place:
        # before it takes the place of the old one
        draft = Path(place) / "draft.toml"
        draft.write_text(text, encoding="utf-8")
        if load_recipe(str(draft)) != recipe:
            raise AssertionError(f"{record.name}: the text does not hold the recipe that was tried")
    path = folder / f"{file_stem(record.spec.model)}.toml"
    store.write(path, text.encode())
    return path


def _recipe_text(record: StudyRecord, promotion: Promotion, recipe: Recipe) -> str:
    import tomlkit

    own = load_recipe(record.spec.model)
    document = tomlkit.parse(recipe_path(record.spec.model).read_text(encoding="utf-8"))
    shipped_values = dict(flat_fields(own.model_dump()))
    for name, value in flat_fields(recipe.model_dump()):
        if shipped_values.get(name) == value and name != "model.name":
            continue
        *path, last = name.split(".")
        table = document
        for part in path:
            table = table.setdefault(part, tomlkit.table())  # type: ignore[assignment]
        table[last] = value
    if recipe.imbalance != own.imbalance:
        # another strategy's knobs must not stay
        document["imbalance"] = recipe.imbalance.model_dump()
    document["provenance"] = {
        "study": record.name,
        "trial": promotion.trial,
        "objective": f"val {record.spec.objectives[0]}",
        "value": round(promotion.value, 6),
        "date": promotion.date,
        "commit": promotion.commit or "unknown",
    }
    text = tomlkit.dumps(document)
    return text if text.startswith(TUNED) else TUNED + text
