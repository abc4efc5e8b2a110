"""`ferbench run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ferbench.cli.options import (
    DataPath,
    Device,
    Labels,
    Results,
    RunsAtOnce,
    at_least_1,
    say,
    seed_list,
    tell_synthetic,
)
from ferbench.errors import Interrupted


def run(
    models: Annotated[
        str | None,
        typer.Option(
            help="Names, globs ('resnet*'), timm:NAME, recipes, their files, 'all'; commas between. Default: all, or "
            "none beside --recipe."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipes, such as papers/insideout (`ferbench list recipes`); commas between.")
    ] = None,
    imbalance: Annotated[
        str | None,
        typer.Option(
            help="Strategies, globs, sums (ldam+drw) or 'all'; commas between. Default: each recipe's own (none)."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="One run each, such as 0,1,2.")] = "0",
    budget: Annotated[
        str | None, typer.Option(help="full, short, quick or demo. Default: full, or demo on the synthetic faces.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How splits are made and used (`ferbench list protocols`). Default: official, or the recipe's."
        ),
    ] = None,
    allow_double: Annotated[
        bool,
        typer.Option("--allow-double-correction", help="Run strategies that make up twice for rare classes."),
    ] = False,
    init: Annotated[
        str | None, typer.Option(help="scratch, imagenet or a weights file, in place of the recipe's.")
    ] = None,
    tta: Annotated[
        str, typer.Option(help="Test-time augmentation beside each run: flip, ten-crop, random:N; commas between.")
    ] = "none",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a recipe field: optimizer.lr=0.05. May be repeated.")
    ] = None,
    data: DataPath = None,
    labels: Labels = None,
    results: Results = Path("results"),
    device: Device = "auto",
    jobs_per_gpu: RunsAtOnce = "1",
    redo: Annotated[bool, typer.Option("--redo", help="Do again what is done.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and how long it should take, timing some batches.")
    ] = False,
) -> None:
    """Train and score models: every model x strategy x seed that is not done yet, then the leaderboard."""
    from ferbench.inputs import parse_override
    from ferbench.jobs import run_many
    from ferbench.plan import make_plan

    at_once = at_least_1("--jobs-per-gpu", jobs_per_gpu)
    plan = make_plan(
        "all" if models is None and recipe is None else f"{models or ''},{recipe or ''}",
        source=data,
        labels=labels,
        imbalance=imbalance,
        seeds=seed_list(seeds),
        budget=budget,
        protocol=protocol,
        init=init,
        tta=tta,
        allow_double_correction=allow_double,
        overrides=dict(parse_override(c) for c in changes or []),
        results=results,
        device=device,
    )
    _tell_data(plan, asked=data)
    todo = plan.todo(redo=redo)
    if dry_run:
        raise typer.Exit(_show_plan(plan, todo))
    if done := len(plan.specs) - len(todo):
        say(f"{done} of {len(plan.specs)} runs were done before, and stay as they are (--redo does them again)")
    from ferbench.progress import Progress

    try:
        with Progress(len(todo)) as bars:
            records = run_many(plan, bars, redo=redo, at_once=at_once)
    except KeyboardInterrupt:
        raise Interrupted(130) from None
    if at_once > 1 and bars.images_per_second:
        say(f"up to {at_once} runs at once: {bars.images_per_second:,.0f} training images/s together")
    _show_leaderboard(plan, records)
    failed = [r for r in records if r.status == "failed"]
    if failed:
        say(f"ferbench: {len(failed)} of {len(plan.specs)} runs failed:")
        for record in failed:
            kept = " (what it gave before stays)" if plan.store.is_done(record.spec) else ""
            say(f"  {record.id}: {record.reason}{kept}")
        raise typer.Exit(1)


def _tell_data(plan: Any, asked: str | None) -> None:
    tell_synthetic(plan.source, asked)
    for note in dict.fromkeys((*(n for notes in plan.notes.values() for n in notes), *plan.dataset.notes)):
        say(f"note: {note}")


def _show_plan(plan: Any, todo: list[Any]) -> int:
    """Show what is to do; the exit code, 1 where a run could not be done."""
    from ferbench.jobs import estimate
    from ferbench.progress import run_label
    from ferbench.report.cells import duration

    done = len(plan.specs) - len(todo)
    print(
        f"{plan.dataset.name} ({plan.dataset.edition}), {len(plan.specs)} runs, {done} done before, {len(todo)} to do"
    )
    if todo:
        say("timing some batches of each recipe here")
    total, exit_code = 0.0, 0
    for spec, seconds in estimate(plan, todo):
        if isinstance(seconds, str):
            exit_code, shown = 1, f"cannot run: {seconds}"
        else:
            total, shown = total + seconds, f"about {duration(seconds)}"
        what = f"{spec.epochs} epochs of {spec.budget.fraction:.0%}" if spec.source == spec else "from a trained run"
        print(f"  {run_label(spec)}  {what}  {shown}", flush=True)
    print(f"together about {duration(total)}")
    return exit_code


def _show_leaderboard(plan: Any, records: list[Any]) -> None:
    from ferbench.report.evidence import weigh_all
    from ferbench.report.leaderboard import build
    from ferbench.report.terminal import show

    show(weigh_all(build(records), plan.store))
    print(f"records and predictions: {plan.store.root}; `ferbench report --results {plan.store.root}` publishes them")
