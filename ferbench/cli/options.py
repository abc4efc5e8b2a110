"""What several commands share: options, and how they speak."""

from __future__ import annotations

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


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)


def seed_list(text: str) -> list[int]:
    """The seeds of a comma list."""
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(f"--seeds {text!r}: expected whole numbers with commas between them, such as 0,1,2") from None
