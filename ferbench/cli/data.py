"""`ferbench data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.options import Labels


def info(path: Annotated[str | None, typer.Argument(help="Data; none: what `run` would take.")] = None, labels: Labels = None, protocol: Annotated[str, typer.Option(help="Show the splits of a protocol.")] = "official") -> None:  # fmt: skip  # noqa: E501
    """Show edition, counts, blanks, duplicates, twins across splits and whether it is the official FER2013."""
    from ferbench.data import load
    from ferbench.data.checks import describe

    print("\n".join(describe(load(path, labels, protocol)).to_lines()))


def add(path: Annotated[Path, typer.Argument(help="Where the data set is.")]) -> None:
    """Remember a data set: commands without --data take it from now on."""
    _register(path)


def forget() -> None:
    """Forget the remembered data set."""
    from ferbench import data

    print("forgotten" if data.forget() else "no data set was remembered")


def download() -> None:
    """Fetch FER2013 from Kaggle (msambare/fer2013) with kagglehub and remember it."""
    from ferbench.data.download import download as fetch

    _register(fetch())


def _register(path: Path) -> None:
    from ferbench.data import register

    dataset = register(path)
    print(f"{path}: {dataset.name} ({dataset.edition}), remembered (`ferbench data forget` undoes it)")
