"""`ferbench bench`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.options import DataPath, Device, Results, say, seed_list
from ferbench.errors import Interrupted


class Suites(StrEnum):
    """What `ferbench bench` can time."""

    training = "training"
    parts = "parts"
    inference = "inference"
    start = "start"
    growth = "growth"
    accuracy = "accuracy"


def bench(
    suite: Annotated[
        Suites,
        typer.Argument(
            help="training: images/s against the conventional loop and the model alone. parts: where the time of a "
            "training batch goes. inference: eager, compiled, ONNX Runtime. start: commands and loads. growth: time of "
            "an epoch by number of images. accuracy: time to --target."
        ),
    ],
    models: Annotated[str, typer.Option(help="As in `run`.")] = "all",
    changes: Annotated[list[str] | None, typer.Option("--set", help="As in `run`.")] = None,
    seeds: Annotated[str, typer.Option(help="accuracy: one run each.")] = "0",
    target: Annotated[float, typer.Option(min=0, max=1, help="accuracy: the val accuracy to reach.")] = 0.65,
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each thing that is timed.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of training, parts, inference: of a sample, about.")] = 5.0,
    data: DataPath = None,
    results: Results = Path("results"),
    device: Device = "auto",
) -> None:
    """Measure speed on a machine that does nothing else; the samples are stored under results/bench/."""
    from ferbench.bench import run_suite
    from ferbench.inputs import parse_override
    from ferbench.report.terminal import show_bench

    overrides = dict(parse_override(c) for c in changes or [])
    broken = []
    try:
        for record, path in run_suite(
            suite.value,
            models=models,
            overrides=overrides,
            seeds=seed_list(seeds),
            target=target,
            rounds=rounds,
            seconds=seconds,
            source=data,
            results=results,
            device=device,
        ):
            show_bench(record)
            print(path or "not stored: something failed, and nothing in the older one that it would replace")
            broken += [f"{record.subject}: {row.name} {row.note}" for row in record.rows if row.has_failed]
    except (KeyboardInterrupt, Interrupted) as stop:
        code = stop.exit_code if isinstance(stop, Interrupted) else 130
        raise Interrupted(code, "what was measured before is stored") from None
    if broken:
        for line in broken:
            say(f"ferbench: {line}")
        raise typer.Exit(1)
