"""Speed, measured against what a user would otherwise run: each suite gives `records.bench.BenchRecord`s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.environment import process_age
from ferbench.errors import InputError

if TYPE_CHECKING:
    from ferbench.plan import Plan
    from ferbench.records.bench import BenchRecord


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
    for record in _records(suite, plan, target, rounds, seconds):
        yield record, plan.store.write_bench(record)


def _records(suite: str, plan: Plan, target: float, rounds: int, seconds: float) -> Iterator[BenchRecord]:
    """What a suite measures, one record for each run of the plan; the start suite is one record."""
    if suite == "start":
        from ferbench.bench.start import measure_start

        yield measure_start(plan.dataset, rounds)
        return
    models = [spec.recipe.model.name for spec in plan.specs]
    if suite != "accuracy" and len(set(models)) < len(models):
        raise InputError(f"bench {suite}: {', '.join(models)}: each model is measured by one recipe")
    begun = process_age()
    for spec in plan.specs:
        if suite == "training":
            from ferbench.bench.training import measure_training

            yield measure_training(spec, plan.dataset, plan.device, rounds, seconds)
        elif suite == "parts":
            from ferbench.bench.parts import measure_parts

            yield measure_parts(spec, plan.dataset, plan.device, rounds, seconds)
        elif suite == "inference":
            from ferbench.bench.inference import measure_inference

            yield measure_inference(spec, len(plan.dataset.classes), plan.device, seconds)
        elif suite == "growth":
            from ferbench.bench.growth import measure_growth

            yield measure_growth(spec, plan.dataset, plan.device, rounds)
        else:
            from ferbench.bench.accuracy import measure_time_to_accuracy

            # as if each run had a process of its own
            yield measure_time_to_accuracy(plan, spec, target, start=process_age() - begun)
