"""Every form in which FER2013, or another set of faces, may lie on a disk, chosen by content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ferbench.data.assemble import Images
from ferbench.data.folders import read_folders
from ferbench.data.pictures import is_image
from ferbench.data.sources import Source, open_source
from ferbench.data.tables import csv_columns, read_csv, read_parquet
from ferbench.errors import InputError

ACCEPTED = (
    "fer2013.csv, icml_face_data.csv, Parquet with image, emotion and usage, folders split/class/image or class/image, "
    "or a .gz, .zip or .tar(.gz) of one of these"
)
_MOST_LOOKED_INTO = 50
"""More files than this are images in folders; looking for a table among them would read them all."""


def read_images(path: Path) -> Images:
    """The images at a path, whatever their form.

    Raises:
        InputError: the form is unknown, or the content is wrong; one line names file, row and reason.
    """
    source = open_source(path)
    members = source.members()
    if not members:
        raise InputError(f"{path}: no files in it (accepted: {ACCEPTED})")
    heads = {m: source.head(m) for m in members} if len(members) <= _MOST_LOOKED_INTO else {}
    table = _table(path, source, heads)
    if table is not None:
        return table
    if not heads or any(map(is_image, heads.values())):
        return read_folders(source)
    raise InputError(f"{path}: unknown format (accepted: {ACCEPTED})")


def _table(path: Path, source: Source, heads: dict[str, bytes]) -> Images | None:
    readers: list[tuple[str, Callable[[Source, str], Images]]] = []
    partial: list[str] = []
    for member, head in heads.items():
        columns = csv_columns(head)
        if head[:4] == b"PAR1":
            readers.append((member, read_parquet))
        elif columns and "usage" in columns:
            # the reader names a column that is missing
            readers.append((member, read_csv))
        elif columns:
            partial.append(f"{source.describe(member)} has only {', '.join(columns)}")
    if len(readers) > 1:
        names = ", ".join(m for m, _ in readers)
        raise InputError(f"{path}: more than one table ({names}): name the one to read")
    if readers:
        member, reader = readers[0]
        return reader(source, member)
    if partial:
        raise InputError(
            f"{partial[0]}: without Usage there is no val and test (Kaggle's train.csv is Training alone, its test.csv "
            "has no labels); fer2013.csv or icml_face_data.csv have all three columns"
        )
    return None
