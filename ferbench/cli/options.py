"""What several commands share: options, and how they speak."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from ferbench.errors import InputError

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
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Devices = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N; commas between.")]
TrialsAtOnce = Annotated[str, typer.Option("--workers", metavar="N", help="Trials at once.")]
RunsAtOnce = Annotated[
    str,
    typer.Option(
        "--jobs-per-gpu", metavar="N", help="Runs at once on the device: one small network rarely fills a GPU."
    ),
]


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)


def seed_list(text: str) -> list[int]:
    """The seeds of a comma list, each once."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(re.fullmatch("-?[0-9]{1,18}", word) for word in words):
        raise InputError(f"--seeds {text!r}: expected whole numbers with commas between them, such as 0,1,2")
    return list(dict.fromkeys(map(int, words)))


def at_least_1(option: str, text: str) -> int:
    """The number that an option was given."""
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < 1:
        raise InputError(f"{option} {text!r}: expected a whole number from 1")
    return int(text)


def tell_synthetic(source: str, asked: str | None) -> None:
    """Say so where the built-in faces stand in for FER2013 without having been asked for."""
    if source == "synthetic" and asked is None:
        say(
            "No FER2013 found (--data PATH, FERBENCH_DATA, or `ferbench data add PATH`): running on the built-in "
            "synthetic faces.\nTo get FER2013: `ferbench data download`, or fer2013.csv from the Kaggle competition "
            "'challenges-in-representation-learning-facial-expression-recognition-challenge'."
        )


def refuse_options(context: typer.Context, command: str) -> None:
    """Refuse what was meant for another command, instead of leaving it unheard."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"{context.info_name} {option.opts[0]} {command}: options of {command} come after its name"
            )
