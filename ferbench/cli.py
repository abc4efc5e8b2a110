"""The commands: the only place that prints results and exits.

Heavy imports stay inside the commands, so that `ferbench --help` starts at once.
"""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ferbench.errors import InputError, Interrupted

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, score and compare facial emotion recognition models on FER2013 under one protocol.",
    epilog="Exit codes: 0 ok, 1 a run failed, 2 bad usage or input, 130 Ctrl-C, 143 SIGTERM.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at a data set, remember where it is, or fetch it.")
app.add_typer(data_app, name="data")

Results = Annotated[Path, typer.Option("--results", help="Results folder.", envvar="FERBENCH_RESULTS")]
DataPath = Annotated[
    str | None,
    typer.Option(
        "--data", help="FER2013 in any edition, another folder of faces, or 'synthetic'. [env: FERBENCH_DATA]"
    ),
]
Labels = Annotated[
    str | None, typer.Option("--labels", help="ferplus=FILE (majority vote) or ferplus-soft=FILE, with a CSV edition.")
]


class Kind(StrEnum):
    """What `ferbench list` can show."""

    models = "models"
    strategies = "strategies"
    recipes = "recipes"
    metrics = "metrics"
    protocols = "protocols"


def main() -> NoReturn:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        app(standalone_mode=True)
    except InputError as error:
        _say(f"ferbench: {error}")
        sys.exit(2)
    except Interrupted as stop:
        _say(f"ferbench: {stop}")
        sys.exit(stop.exit_code)
    except BrokenPipeError:
        # the reader of a pipe has had enough
        sys.stderr.close()
        sys.exit(0)
    sys.exit(0)


def _on_sigterm(number: int, frame: object) -> None:
    raise Interrupted(143)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _version(show: bool) -> None:
    if show:
        from ferbench import __version__

        print(f"ferbench {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


@app.command()
def run(
    models: Annotated[
        str, typer.Option(help="Names, globs ('resnet*'), timm:NAME, recipes, their files, 'all'; commas between.")
    ] = "all",
    imbalance: Annotated[str, typer.Option(help="Strategies, globs or 'all'; commas between them.")] = "none",
    seeds: Annotated[str, typer.Option(help="One run each, such as 0,1,2.")] = "0",
    budget: Annotated[
        str | None, typer.Option(help="full, quick or demo. Default: full, or demo on the synthetic faces.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="How splits are made and used: see `ferbench list protocols`. Default: official.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="scratch, imagenet or a weights file, in place of the recipe's.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a recipe field: optimizer.lr=0.05. May be repeated.")
    ] = None,
    data: DataPath = None,
    labels: Labels = None,
    results: Results = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    jobs_per_gpu: Annotated[
        str, typer.Option(metavar="N", help="Runs at once on the device: one small network rarely fills a GPU.")
    ] = "1",
    redo: Annotated[bool, typer.Option("--redo", help="Do again what is done.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and how long it should take.")] = False,
) -> None:
    """Train and score models: every model x strategy x seed that is not done yet, then the leaderboard."""
    from ferbench.inputs import parse_override
    from ferbench.jobs import make_plan, run_many

    at_once = _at_least_1("--jobs-per-gpu", jobs_per_gpu)
    plan = make_plan(
        models,
        source=data,
        labels=labels,
        imbalance=imbalance,
        seeds=_seeds(seeds),
        budget=budget,
        protocol=protocol,
        init=init,
        overrides=dict(parse_override(c) for c in changes or []),
        results=results,
        device=device,
    )
    _tell_data(plan, asked=data)
    todo = list(plan.specs) if redo else plan.missing()
    if dry_run:
        _show_plan(plan, todo)
        return
    from ferbench.progress import Progress

    try:
        with Progress(len(todo)) as bars:
            records = run_many(plan, bars, redo=redo, at_once=at_once)
    except KeyboardInterrupt:
        raise Interrupted(130) from None
    if at_once > 1 and bars.images_per_second:
        _say(f"up to {at_once} runs at once: {bars.images_per_second:,.0f} training images/s together")
    _show_leaderboard(plan, records)
    failed = [r for r in records if r.status == "failed"]
    if failed:
        _say(f"ferbench: {len(failed)} of {len(plan.specs)} runs failed:")
        for record in failed:
            _say(f"  {record.id}: {record.reason}")
        raise typer.Exit(1)


def _seeds(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(f"--seeds {text!r}: expected whole numbers with commas between them, such as 0,1,2") from None


def _at_least_1(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{option} {text!r}: expected a whole number from 1")
    return int(text)


def _tell_data(plan: Any, asked: str | None) -> None:
    if plan.source.startswith("synthetic") and asked is None:
        _say(
            "No FER2013 found (--data PATH, FERBENCH_DATA, or `ferbench data add PATH`): running on the built-in "
            "synthetic faces.\nTo get FER2013: `ferbench data download`, or fer2013.csv from the Kaggle competition "
            "'challenges-in-representation-learning-facial-expression-recognition-challenge'."
        )
    for note in plan.dataset.notes:
        _say(f"note: {note}")


def _show_plan(plan: Any, todo: list[Any]) -> None:
    from ferbench.jobs import estimate
    from ferbench.progress import run_label

    print(f"{plan.dataset.name} ({plan.dataset.edition}), {len(plan.specs)} runs, {len(todo)} to do")
    total = 0.0
    for spec, seconds in estimate(plan, todo):
        shown = f"cannot run: {seconds}" if isinstance(seconds, str) else f"about {_duration(seconds)}"
        total += 0.0 if isinstance(seconds, str) else seconds
        print(f"  {run_label(spec)}  {spec.epochs} epochs of {spec.budget.fraction:.0%}  {shown}")
    print(f"together about {_duration(total)}")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d} min"


def _show_leaderboard(plan: Any, records: list[Any]) -> None:
    from ferbench.report.leaderboard import build
    from ferbench.report.terminal import show

    show(build(records))
    print(f"records and predictions: {plan.store.root}; `ferbench report --results {plan.store.root}` publishes them")


class Suites(StrEnum):
    """What `ferbench bench` can time."""

    training = "training"
    inference = "inference"
    start = "start"
    growth = "growth"
    accuracy = "accuracy"


@app.command()
def bench(
    suite: Annotated[
        Suites,
        typer.Argument(
            help="training: images/s against the conventional loop and the model alone. inference: eager, compiled, "
            "ONNX Runtime. start: commands and loads. growth: time of an epoch by number of images. accuracy: time to "
            "--target."
        ),
    ],
    models: Annotated[str, typer.Option(help="As in `run`.")] = "all",
    changes: Annotated[list[str] | None, typer.Option("--set", help="As in `run`.")] = None,
    seeds: Annotated[str, typer.Option(help="accuracy: one run each.")] = "0",
    target: Annotated[float, typer.Option(min=0, max=1, help="accuracy: the val accuracy to reach.")] = 0.65,
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each thing that is timed.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="training, inference: about how long a sample takes.")] = 5.0,
    data: DataPath = None,
    results: Results = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Measure speed on a machine that does nothing else; the samples are stored under results/bench/."""
    from ferbench.bench import run_suite
    from ferbench.inputs import parse_override
    from ferbench.report.terminal import show_bench

    overrides = dict(parse_override(c) for c in changes or [])
    try:
        for record, path in run_suite(
            suite.value,
            models=models,
            overrides=overrides,
            seeds=_seeds(seeds),
            target=target,
            rounds=rounds,
            seconds=seconds,
            source=data,
            results=results,
            device=device,
        ):
            show_bench(record)
            print(path)
    except KeyboardInterrupt:
        raise Interrupted(130) from None


@app.command()
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


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="An entry: its label or slug, or a model's name.")],
    b: Annotated[str, typer.Argument(help="The other.")],
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


@app.command()
def claims(results: Results = Path("results")) -> None:
    """Show published results, whether their figures can be, their protocols, and our own numbers beside them."""
    from ferbench.records.store import Store
    from ferbench.report.claims import to_lines
    from ferbench.report.leaderboard import Leaderboard, build

    store = Store(results)
    board = build(store.records()) if store.root.is_dir() else Leaderboard(())
    print("\n".join(to_lines(board)))


@app.command()
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


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List models, strategies, recipes, metrics or protocols."""
    for row in _rows(kind):
        print("  ".join(row).rstrip())


def _rows(kind: Kind) -> list[list[str]]:
    rows: list[tuple[str, ...]]
    if kind is Kind.models:
        from ferbench.models import MODELS

        rows = [(m.name, f"{m.parameters / 1e6:6.2f} M", f"{m.macs / 1e6:6.1f} MMAC", m.paper) for m in MODELS if m.parameters and m.macs]  # fmt: skip  # noqa: E501
        rows.append(("timm:NAME", "", "", "any network of pytorch-image-models"))
    elif kind is Kind.strategies:
        from ferbench.training.imbalance import STRATEGIES

        rows = [(s.name, s.formula, s.paper) for s in STRATEGIES]
    elif kind is Kind.metrics:
        from ferbench.evaluation.metrics import METRICS

        rows = [(m.name, "higher is better" if m.higher_is_better else "lower is better", m.description) for m in METRICS]  # fmt: skip  # noqa: E501
    elif kind is Kind.protocols:
        from ferbench.data.protocol import PROTOCOLS

        rows = [(p.name, p.title) for p in PROTOCOLS]
    else:
        from ferbench.inputs import recipe_names, shipped

        rows = [(name, str(shipped("baselines", f"{name}.toml"))) for name in recipe_names()]
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in rows]


@data_app.command()
def info(path: Annotated[str | None, typer.Argument(help="Data; none: what `run` would take.")] = None, labels: Labels = None, protocol: Annotated[str, typer.Option(help="Show the splits of a protocol.")] = "official") -> None:  # fmt: skip  # noqa: E501
    """Show edition, counts, blanks, duplicates, twins across splits and whether it is the official FER2013."""
    from ferbench.data import load
    from ferbench.data.checks import describe

    print("\n".join(describe(load(path, labels, protocol)).to_lines()))


@data_app.command()
def add(path: Annotated[Path, typer.Argument(help="Where the data set is.")]) -> None:
    """Remember a data set, so that later commands find it."""
    from ferbench.data import register

    dataset = register(path)
    print(f"{path}: {dataset.name} ({dataset.edition}), remembered")


@data_app.command()
def download() -> None:
    """Fetch FER2013 from Kaggle (msambare/fer2013) with kagglehub and remember it."""
    from ferbench.data import register
    from ferbench.data.download import download as fetch

    path = fetch()
    dataset = register(path)
    print(f"{path}: {dataset.name} ({dataset.edition}), remembered")
