"""Commands on stored results: `ferbench report`, `compare`, `ensemble`, `claims`, `rescore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.options import Results


def report(
    results: Results = Path("results"),
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if the report is out of date.")
    ] = False,
) -> None:
    """Write README.md, leaderboard.csv and figures from the records of a results folder."""
    from ferbench import report as reports
    from ferbench.records.store import Store

    store = Store(results)
    if check:
        stale = reports.check(store)
        print("\n".join(f"{name} is out of date" for name in stale) or "the report is up to date")
        raise typer.Exit(1 if stale else 0)
    for path in reports.write(store):
        print(path)


def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="An entry by its name in the table or in leaderboard.csv, or a model's name.",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The other.")],
    metric: Annotated[str, typer.Option(help="See `ferbench list metrics`.")] = "accuracy",
    track: Annotated[
        str | None, typer.Option(help="As in leaderboard.csv. Default: the first that has both entries.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Say whether two entries can be told apart, by how much they differ and in which classes."""
    from ferbench.records.store import Store
    from ferbench.report.comparison import compare_entries

    print("\n".join(compare_entries(Store(results), a, b, metric=metric, track=track).to_lines()))


def ensemble(
    wanted: Annotated[
        str,
        typer.Option(
            "--from", help="Globs of run ids to choose from: 'resnet*'; commas between. Of each training one."
        ),
    ],
    metric: Annotated[str, typer.Option(help="The val score that chooses the members.")] = "accuracy",
    data: Annotated[str | None, typer.Option("--data-name", help="Of which data set. Default: the first.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Of which protocol. Default: the first.")] = None,
    budget: Annotated[str | None, typer.Option(help="Of which budget. Default: the first.")] = None,
    results: Results = Path("results"),
) -> None:
    """Average the stored probabilities of the runs that val chooses; an entry of the leaderboard of its own."""
    from ferbench.ensemble import make_ensemble
    from ferbench.evaluation.metrics import METRICS
    from ferbench.records.places import ensemble_place
    from ferbench.records.store import Store
    from ferbench.report.comparison import POINTS

    store = Store(results)
    record = make_ensemble(store, wanted, metric=metric, data=data, protocol=protocol, budget=budget)
    print(f"{record.data.name}, protocol {record.data.protocol}, budget {record.budget.name}")
    print("members, as often as val chose each:")
    for member in record.members:
        print(f"{member.weight:3d} x {member.run}")
    best = record.scores["test"].values
    together, alone = (
        f"{100 * v:.2f} %" if metric in POINTS else f"{v:.3f}" for v in (record.path[-1], record.path[0])
    )
    print(f"val {METRICS[metric].title} {together} (the best alone {alone})")
    print(f"test accuracy {100 * best['accuracy']:.2f} %, macro-F1 {best['macro_f1']:.3f}")
    print(store.root / ensemble_place(record))


def claims(results: Results = Path("results")) -> None:
    """Show published results, whether their figures can be, their protocols, and our own numbers beside them."""
    from ferbench.records.store import Store
    from ferbench.report.claims import to_lines
    from ferbench.report.leaderboard import Leaderboard, build

    store = Store(results)
    board = build(store.records(), store.ensembles()) if store.root.is_dir() else Leaderboard(())
    print("\n".join(to_lines(board)))


def rescore(
    results: Results = Path("results"),
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a score differs.")] = False,
) -> None:
    """Compute every score again from the stored predictions; no torch, no GPU."""
    from ferbench.records.store import Store
    from ferbench.report.rescore import rescore as scores_again

    differences = scores_again(Store(results), write=not check)
    print("\n".join(differences) or "every stored score equals the one computed from its predictions")
    if differences and check:
        raise typer.Exit(1)
