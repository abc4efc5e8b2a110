"""Speed, measured against what a user would otherwise run: each suite gives `records.bench.BenchRecord`s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.environment import keep_freed_memory, process_age
from ferbench.errors import InputError, RunFailedError, reason_of

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
) -> Iterator[tuple[BenchRecord, Path | None]]:
    """Each of a suite's records, as soon as it is measured, with its file; arguments as in `ferbench bench --help`.

    No file: it was not stored, as something in it failed and nothing in the older one that it would replace.

    Raises:
        InputError: anything is unknown or does not fit.
        RunFailedError: what was measured broke.
    """
    from ferbench.plan import make_plan

    fixed: dict[str, Any] = {}
    if suite in ("training", "parts", "growth"):
        from ferbench.bench.training import OVERRIDES as fixed
    plan = make_plan(
        models,
        source=source,
        seeds=seeds if suite == "accuracy" else (0,),
        budget="full",
        overrides={**fixed, **overrides},
        results=results,
        device=device,
    )
    for record in _records(suite, plan, fixed, target, rounds, seconds):
        yield record, plan.store.write_bench(record)


def _records(
    suite: str, plan: Plan, fixed: dict[str, Any], target: float, rounds: int, seconds: float
) -> Iterator[BenchRecord]:
    """What a suite measures, one record for each run of the plan; the start suite is one record."""
    if suite == "start":
        from ferbench.bench.start import measure_start

        with _told(suite, "commands and loads"):
            record = measure_start(plan.dataset, rounds)
        yield record
        return
    for spec in plan.specs:
        if spec.source != spec:
            raise InputError(f"bench {suite}: {spec.recipe.imbalance.strategy} starts from a finished run")
    begun = process_age()
    for spec in plan.specs:
        with _told(suite, spec.id):
            if suite == "accuracy":
                from ferbench.bench.accuracy import measure_time_to_accuracy

                # as if each run had a process of its own
                record = measure_time_to_accuracy(plan, spec, target, start=process_age() - begun)
            else:
                record = _measured(suite, spec, plan, rounds, seconds)
        yield _called(record, spec.recipe, fixed)


@contextmanager
def _told(suite: str, subject: str) -> Iterator[None]:
    """Whatever breaks is one line that names what was measured."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise RunFailedError(f"bench {suite}: {subject}: {reason_of(error)}") from error


def _measured(suite: str, spec: RunSpec, plan: Plan, rounds: int, seconds: float) -> BenchRecord:
    """What a suite that takes samples measures of one recipe."""
    # as a training does, what the probe of its arithmetic times included
    keep_freed_memory()
    if suite == "training":
        from ferbench.bench.training import measure_training

        return measure_training(spec, plan.dataset, plan.device, rounds, seconds)
    if suite == "parts":
        from ferbench.bench.parts import measure_parts

        return measure_parts(spec, plan.dataset, plan.device, rounds, seconds)
    if suite == "inference":
        from ferbench.bench.inference import measure_inference

        return measure_inference(spec, len(plan.dataset.classes), plan.device, seconds)
    from ferbench.bench.growth import measure_growth

    return measure_growth(spec, plan.dataset, plan.device, rounds)


def _called(record: BenchRecord, recipe: Recipe, fixed: dict[str, Any]) -> BenchRecord:
    """A record with what tells its recipe from its model's shipped one, both with what the suite fixes."""
    from ferbench.inputs import load_recipe
    from ferbench.variants import changed_fields, variant_label

    changes = changed_fields(recipe, load_recipe(recipe.model.name, overrides=fixed))
    if not changes:
        return record
    label = variant_label(recipe, changes, unnamed=tuple(f for f in fixed if f not in changes))
    told = ", ".join(f"{f} = {v}" for f, v in changes.items())
    return record.model_copy(
        update={"subject": f"{record.subject} ({label})", "settings": {**record.settings, "changes": told}}
    )
