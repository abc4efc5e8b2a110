"""`ferbench tune` and its commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ferbench.cli.options import (
    DataPath,
    Device,
    Devices,
    Labels,
    Results,
    RunsAtOnce,
    TrialsAtOnce,
    at_least_1,
    refuse_options,
    say,
    seed_list,
    tell_synthetic,
)
from ferbench.errors import InputError, Interrupted, RunFailedError

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
        str | None,
        typer.Option(metavar="N", help="Trials of each model. Default: as before, of a new study its file's limit."),
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
    name: Annotated[str | None, typer.Option(help="Of this study, to tell it from the model's others.")] = None,
    fork: Annotated[bool, typer.Option("--fork", help="Start a new study where the study file has changed.")] = False,
    storage: Storage = None,
    workers: TrialsAtOnce = "1",
    keep_pruned: Annotated[
        bool, typer.Option("--keep-pruned", help="Keep checkpoints of pruned trials, for `tune audit`.")
    ] = False,
    data: DataPath = None,
    labels: Labels = None,
    results: Results = Path("results"),
    devices: Devices = "auto",
) -> None:
    """Search each model's space with Optuna, as much for every model; go on with what was begun.

    The same command on several machines, with one --storage, shares the trials out. Trials see no test split.
    """
    if context.invoked_subcommand is not None:
        refuse_options(context, context.invoked_subcommand)
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
        devices=devices,
        results=results,
    )
    tell_synthetic(plans[0].source, data)
    for note in dict.fromkeys(n for plan in plans for n in plan.notes):
        say(f"note: {note}")
    found = [_go_on(plan, keep_pruned) for plan in plans]
    if not all(found):
        raise typer.Exit(1)


def _go_on(plan: Any, keep_pruned: bool) -> bool:
    """Whether the study came to its end, no trial failed on the way and it has a best one now."""
    from ferbench.report import write_study as write_files
    from ferbench.report.studies import headline
    from ferbench.study.tune import tune

    went_well = True
    with _shown(plan) as bars:
        try:
            if failed := tune(plan, bars, keep_pruned=keep_pruned):
                went_well = False
                say(f"ferbench: {plan.name}: trials failed: {failed}; worker.log in the folder of each says more")
        except RunFailedError as error:
            went_well = False
            say(f"ferbench: {error}")
    write_files(plan.store, plan.name)
    record = plan.store.study(plan.name)
    print(headline(record))
    return went_well and record.best is not None


@contextmanager
def _shown(plan: Any) -> Iterator[Any]:
    """A study at work, shown, and its record stored however that ends."""
    from ferbench.progress import StudyProgress
    from ferbench.study.read import write_study
    from ferbench.study.storage import reached

    with reached():
        try:
            with StudyProgress(plan.name, plan.ledger.spec, plan.ledger.limit) as bars:
                yield bars
        except KeyboardInterrupt:
            raise Interrupted(130) from None
        finally:
            write_study(plan.store, plan.name, plan.ledger)


def _limit(trials: str | None, epochs: str | None, seconds: str | None) -> Any:
    from ferbench.records.study import Limit

    asked = {"trials": trials, "epochs": epochs, "seconds": seconds}
    given = [(unit, text) for unit, text in asked.items() if text is not None]
    if len(given) > 1:
        raise InputError(f"--{given[0][0]} and --{given[1][0]}: one limit is expected")
    if not given:
        return None
    unit, text = given[0]
    return Limit.model_validate({"unit": unit, "amount": at_least_1(f"--{unit}", text)})


Wanted = Annotated[str, typer.Argument(metavar="[STUDIES]", help="Names and globs; commas between.")]


@app.command()
def status(wanted: Wanted = "*", storage: Storage = None, results: Results = Path("results")) -> None:
    """Show how far studies are."""
    from ferbench.records.store import Store
    from ferbench.report.studies import headline
    from ferbench.study.find import studies

    for record in studies(Store(results), wanted, storage):
        states = [t.state for t in record.trials]
        counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        print(f"{headline(record)}\n  {counts} (limit {record.limit.amount:g} {record.limit.unit})")


@app.command()
def best(wanted: Wanted = "*", storage: Storage = None, results: Results = Path("results")) -> None:
    """Show each study's best trial and its values (`tune export` writes its recipe, `tune promote` trains it)."""
    from ferbench.records.store import Store
    from ferbench.report.studies import best_lines
    from ferbench.study.find import studies

    for record in studies(Store(results), wanted, storage):
        print("\n".join(best_lines(record)))


@app.command()
def export(wanted: Wanted = "*", storage: Storage = None, results: Results = Path("results")) -> None:
    """Write study.json, trials.csv, README.md and figures of studies from their storage."""
    from ferbench.records.store import Store
    from ferbench.report import write_study as write_files
    from ferbench.study.find import ledgers
    from ferbench.study.read import write_study
    from ferbench.study.storage import reached

    store = Store(results)
    for name, ledger in ledgers(store, wanted, storage).items():
        with reached():
            write_study(store, name, ledger)
        for path in write_files(store, name):
            print(path)


@app.command()
def audit(
    study: Annotated[str, typer.Argument(help="A study's name.")],
    workers: TrialsAtOnce = "1",
    storage: Storage = None,
    data: DataPath = None,
    labels: Labels = None,
    results: Results = Path("results"),
    devices: Devices = "auto",
) -> None:
    """Train a study's pruned trials to their end, to see what pruning saved and what it missed.

    They go on from their checkpoints where `tune --keep-pruned` kept them. The study learns nothing from it.
    """
    from ferbench.records.store import Store
    from ferbench.report import write_study as write_files
    from ferbench.study.audit import finish_pruned
    from ferbench.study.find import ledgers
    from ferbench.study.plan import plan_again

    store = Store(results)
    name, ledger = _one(ledgers(store, study, storage), study)
    plan = plan_again(
        name,
        ledger,
        source=data,
        labels=labels,
        workers=at_least_1("--workers", workers),
        devices=devices,
        results=results,
    )
    with _shown(plan) as bars:
        all_ended = finish_pruned(plan, bars)
    write_files(store, name)
    print(store.root / "studies" / name / "README.md")
    if not all_ended:
        raise typer.Exit(1)


@app.command()
def promote(
    study: Annotated[str, typer.Argument(help="A study's name.")],
    trial: Annotated[int | None, typer.Option(help="Its number. Default: the study's best.")] = None,
    seeds: Annotated[str, typer.Option(help="On which it is trained again, without the study's own.")] = "1,2,3",
    out: Annotated[Path | None, typer.Option(help="Folder for the recipe. Default: baselines/ of the clone.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also where val says that the baseline is better.")] = False,
    storage: Storage = None,
    data: DataPath = None,
    labels: Labels = None,
    results: Results = Path("results"),
    device: Device = "auto",
    jobs_per_gpu: RunsAtOnce = "1",
) -> None:
    """Train a trial's recipe and the baseline on fresh seeds, and make it the model's recipe if val prefers it.

    The file says which study and trial its values come from; the report shows by how much the study was too optimistic.
    """
    from ferbench.progress import Progress
    from ferbench.records.store import Store
    from ferbench.report import write_study as write_files
    from ferbench.study import promote as promotion
    from ferbench.study.find import ledgers
    from ferbench.study.read import read_study, write_study
    from ferbench.study.storage import reached

    store, fresh = Store(results), seed_list(seeds)
    name, ledger = _one(ledgers(store, study, storage), study)
    with reached():
        record = read_study(name, ledger)
    chosen, folder = promotion.trial_to_promote(record, trial), promotion.recipe_folder(record, out)
    plan = promotion.plan_runs(record, chosen, fresh, source=data, labels=labels, store=store, device=device)
    say(f"{name}: trial {chosen.number} on seeds {', '.join(map(str, fresh))}, then the baseline")
    try:
        with Progress(len(plan.missing())) as bars:
            verdict = promotion.try_again(
                record, chosen, plan, bars, at_once=at_least_1("--jobs-per-gpu", jobs_per_gpu)
            )
    except KeyboardInterrupt:
        raise Interrupted(130) from None
    stays = verdict.winner <= verdict.baseline and not force
    recipe, path = promotion.recipe_of(record, chosen), None

    def note(is_recipe: bool) -> None:
        with reached():
            ledger.note_promotion(verdict.promotion.model_copy(update={"is_recipe": is_recipe}))
            write_study(store, name, ledger)

    # first: once the recipe is another one, the same command is refused
    note(is_recipe=False)
    if not stays:
        path = promotion.write_recipe(store, folder, record, verdict.promotion, recipe)
        note(is_recipe=True)
    write_files(store, name)
    print(
        f"val {record.spec.objectives[0]}: {chosen.values[0]:.4f} in the study, {verdict.winner:.4f} on fresh seeds, "
        f"baseline {verdict.baseline:.4f}"
    )
    print(path or "the baseline stays: it is as good on val (--force promotes the trial all the same)")


def _one(found: dict[str, Any], wanted: str) -> tuple[str, Any]:
    if len(found) > 1:
        raise InputError(f"{wanted!r} is several studies: {', '.join(found)}")
    return next(iter(found.items()))
