"""Speed, measured against what a user would otherwise run: each suite gives `records.bench.BenchRecord`s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.environment import process_age
from ferbench.errors import InputError

if TYPE_CHECKING:
    from ferbench.plan import Plan
    from ferbench.recipe import Recipe
    from ferbench.records.bench import BenchRecord
    from ferbench.spec import RunSpec


def run_suite(
    suite: str,
    *,
    models: str,
    overrides: dict[str, Any],
    seeds: Sequence[int],
    target: float,
    rounds: int,
    seconds: float,
    source: str | None,
    results: Path,
    device: str,
) -> Iterator[tuple[BenchRecord, Path]]:
    """Each of a suite's records with its file, as soon as it is measured; arguments as in `ferbench bench --help`.

    Raises:
        InputError: anything is unknown or does not fit.
    """
    from ferbench.plan import make_plan

    plan = make_plan(
        models,
        source=source,
        seeds=seeds if suite == "accuracy" else (0,),
        budget="full",
        overrides=overrides,
        results=results,
        device=device,
    )
    for record in _records(suite, plan, overrides, target, rounds, seconds):
        yield record, plan.store.write_bench(record)


def _records(
    suite: str, plan: Plan, overrides: dict[str, Any], target: float, rounds: int, seconds: float
) -> Iterator[BenchRecord]:
    """What a suite measures, one record for each run of the plan; the start suite is one record."""
    if suite == "start":
        from ferbench.bench.start import measure_start

        yield measure_start(plan.dataset, rounds)
        return
    for spec in plan.specs:
        if spec.source != spec:
            raise InputError(f"bench {suite}: {spec.recipe.imbalance.strategy} starts from a finished run")
    begun = process_age()
    for spec in plan.specs:
        if suite == "accuracy":
            from ferbench.bench.accuracy import measure_time_to_accuracy

            # as if each run had a process of its own
            yield measure_time_to_accuracy(plan, spec, target, start=process_age() - begun)
        elif suite == "inference":
            from ferbench.bench.inference import measure_inference

            yield _called(measure_inference(spec, len(plan.dataset.classes), plan.device, seconds), spec.recipe, {})
        else:
            yield _measured(suite, spec, plan, overrides, rounds, seconds)


def _measured(
    suite: str, spec: RunSpec, plan: Plan, overrides: dict[str, Any], rounds: int, seconds: float
) -> BenchRecord:
    """What a suite that trains measures."""
    from ferbench.bench.training import OVERRIDES
    from ferbench.inputs import changed_recipe

    # the caller may leave a field's table out
    evened = {f: v for f, v in OVERRIDES.items() if f not in overrides and f.partition(".")[2] not in overrides}
    timed = spec.model_copy(update={"recipe": changed_recipe(spec.recipe, evened, "bench")})
    if suite == "training":
        from ferbench.bench.training import measure_training

        record = measure_training(timed, plan.dataset, plan.device, rounds, seconds)
    elif suite == "parts":
        from ferbench.bench.parts import measure_parts

        record = measure_parts(timed, plan.dataset, plan.device, rounds, seconds)
    else:
        from ferbench.bench.growth import measure_growth

        record = measure_growth(timed, plan.dataset, plan.device, rounds)
    return _called(record, spec.recipe, evened)


def _called(record: BenchRecord, recipe: Recipe, evened: dict[str, Any]) -> BenchRecord:
    """A record with what tells its recipe from its model's shipped one, but for the fields that were evened out."""
    from ferbench.inputs import load_recipe
    from ferbench.variants import changed_fields, variant_label

    usual = load_recipe(recipe.model.name)
    changes = {f: v for f, v in changed_fields(recipe, usual).items() if f not in evened}
    if not changes:
        return record
    label = variant_label(recipe, changes, unnamed=tuple(evened))
    told = ", ".join(f"{f} = {v}" for f, v in changes.items())
    return record.model_copy(
        update={"subject": f"{record.subject} ({label})", "settings": {**record.settings, "changes": told}}
    )
