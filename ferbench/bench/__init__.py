"""Speed, measured against what a user would otherwise run: each suite gives `records.bench.BenchRecord`s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.environment import process_age

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
    begun = process_age()
    for spec in plan.specs:
        if suite == "accuracy":
            from ferbench.bench.accuracy import measure_time_to_accuracy

            # as if each run had a process of its own
            yield measure_time_to_accuracy(plan, spec, target, start=process_age() - begun)
            continue
        if suite == "inference":
            from ferbench.bench.inference import measure_inference

            record = measure_inference(spec, len(plan.dataset.classes), plan.device, seconds)
        else:
            record = _measured(suite, _evened(spec, overrides), plan, rounds, seconds)
        yield record.model_copy(update={"subject": subject_of(spec.recipe)})


def _measured(suite: str, spec: RunSpec, plan: Plan, rounds: int, seconds: float) -> BenchRecord:
    if suite == "training":
        from ferbench.bench.training import measure_training

        return measure_training(spec, plan.dataset, plan.device, rounds, seconds)
    if suite == "parts":
        from ferbench.bench.parts import measure_parts

        return measure_parts(spec, plan.dataset, plan.device, rounds, seconds)
    from ferbench.bench.growth import measure_growth

    return measure_growth(spec, plan.dataset, plan.device, rounds)


def _evened(spec: RunSpec, overrides: dict[str, Any]) -> RunSpec:
    """The run with what would make its epochs unlike each other switched off, unless it was asked for."""
    from ferbench.bench.training import OVERRIDES
    from ferbench.inputs import changed_recipe

    changes = {field: value for field, value in OVERRIDES.items() if field not in overrides}
    return spec.model_copy(update={"recipe": changed_recipe(spec.recipe, changes, "bench")})


def subject_of(recipe: Recipe) -> str:
    """A model, and what tells its recipe from the shipped one: `plain_cnn (compile=True)`."""
    from ferbench.inputs import load_recipe
    from ferbench.variants import changed_fields, variant_label

    model = recipe.model.name
    label = variant_label(recipe, changed_fields(recipe, load_recipe(model)), unnamed=())
    return f"{model} ({label})" if label else model
