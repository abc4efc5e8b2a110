"""`ferbench tune` and its commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ferbench.cli.options import DataPath, Labels, Results, at_least_1, say, tell_synthetic
from ferbench.errors import InputError, Interrupted

app = typer.Typer(invoke_without_command=True)

Storage = Annotated[
    str | None,
    typer.Option(
        help="URL of a database for many machines: postgresql+psycopg://USER@HOST/NAME. Default: a journal file in "
        "the study's folder.",
        envvar="FERBENCH_STORAGE",
    ),
]


@app.callback()
def tune(
    context: typer.Context,
    models: Annotated[
        str, typer.Option(help="Names, globs, timm:NAME, study files MODEL.toml, 'all'; commas between.")
    ] = "all",
    trials: Annotated[
        str | None, typer.Option(metavar="N", help="Trials of each model. Default: the study file's limit.")
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="N", help="In place of --trials: epochs of each model over all trials.")
    ] = None,
    seconds: Annotated[
        str | None, typer.Option(metavar="N", help="In place of --trials: device seconds of each model.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Of each trial: full, short, quick or demo. Default: full, or demo.")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="Val accuracy or macro_f1, then any of parameters, macs, images_per_second; commas between. Default: "
            "the study file's (accuracy)."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A recipe field that all trials have. May be repeated.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="How splits are made (`ferbench list protocols`); the test split is left out.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Tells this study of a model from its others.")] = None,
    fork: Annotated[bool, typer.Option("--fork", help="Start a new study where the study file has changed.")] = False,
    storage: Storage = None,
    workers: Annotated[str, typer.Option(metavar="N", help="Trials at once.")] = "1",
    keep_pruned: Annotated[
        bool, typer.Option("--keep-pruned", help="Keep checkpoints of pruned trials, for `tune audit`.")
    ] = False,
    data: DataPath = None,
    labels: Labels = None,
    results: Results = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; commas between.")] = "auto",
) -> None:
    """Search each model's space with Optuna, as much for every model; go on with what was begun.

    The same command on several machines, with one --storage, shares the trials out. Trials see no test split.
    """
    if context.invoked_subcommand is not None:
        return
    from ferbench.inputs import parse_override
    from ferbench.study.plan import plan_studies

    plans = plan_studies(
        models,
        source=data,
        labels=labels,
        budget=budget,
        protocol=protocol,
        limit=_limit(trials, epochs, seconds),
        objectives=None if objective is None else [word.strip() for word in objective.split(",")],
        overrides=dict(parse_override(c) for c in changes or []),
        name=name,
        fork=fork,
        storage=storage,
        workers=at_least_1("--workers", workers),
        devices=device,
        results=results,
    )
    tell_synthetic(plans[0].source, data)
    for note in dict.fromkeys(n for plan in plans for n in plan.notes):
        say(f"note: {note}")
    for plan in plans:
        _go_on(plan, keep_pruned)


def _go_on(plan: Any, keep_pruned: bool) -> None:
    from ferbench.progress import StudyProgress
    from ferbench.study.read import write_study
    from ferbench.study.tune import tune

    spec = plan.ledger.spec
    try:
        with StudyProgress(plan.name, spec, plan.ledger.limit) as bars:
            tune(plan, bars, keep_pruned=keep_pruned)
    except KeyboardInterrupt:
        raise Interrupted(130) from None
    finally:
        record = write_study(plan.store, plan.name, plan.ledger)
    best = record.best
    if best is None:
        say(f"ferbench: {plan.name}: no trial completed")
        raise typer.Exit(1)
    print(f"{plan.name}: {_told(record)}")


def _limit(trials: str | None, epochs: str | None, seconds: str | None) -> Any:
    from ferbench.records.study import Limit

    given = [(unit, text) for unit, text in (("trials", trials), ("epochs", epochs), ("seconds", seconds)) if text]
    if len(given) > 1:
        raise InputError(f"--{given[0][0]} and --{given[1][0]}: one limit is expected")
    if not given:
        return None
    unit, text = given[0]
    return Limit.model_validate({"unit": unit, "amount": at_least_1(f"--{unit}", text)})


def _told(record: Any) -> str:
    """The study's best trial in a line."""
    best, baseline = record.best, record.trial(0)
    objective = record.spec.objectives[0]
    line = f"best val {objective} {best.values[0]:.4f} (trial {best.number}; {len(record.trials)} trials)"
    if baseline is not None and baseline.values:
        line += f", baseline {baseline.values[0]:.4f}"
    return line + "; the study chose it, so it is too good: `ferbench tune promote` trains it again"
