"""Tables out of the TOML files that people write, and one line for each fault in them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ferbench.errors import InputError

TableT = TypeVar("TableT", bound=BaseModel)


@cache
def shipped(kind: str, name: str = "") -> Path:
    """The path of a shipped input file, in a wheel, an editable install and a plain clone alike.

    Args:
        kind: "baselines" or "studies".
        name: the file's name; none gives the folder.
    """
    folder = Path(str(files("ferbench"))) / kind
    if not folder.is_dir():
        folder = Path(__file__).parents[1] / kind
    return folder / name if name else folder


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, the caller's own."""
    return deepcopy(shared_toml(path))


def shared_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, not to be changed."""
    return _parsed(path, path.stat().st_mtime_ns)


# a report over thousands of recipes would spend half of its time on reading the same files
@lru_cache(maxsize=100)
def _parsed(path: Path, changed: int) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not TOML: {error}") from None


def validated(kind: type[TableT], table: Any, where: str) -> TableT:
    """The checked value of a table; the first fault becomes one line naming file, field and value."""
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            fields = dotted_fields(kind)
            close = difflib.get_close_matches(field, fields, n=1, cutoff=0.6)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise InputError(f"{where}: unknown field {field!r}{hint}") from None
        if fault["type"] == "missing":
            raise InputError(f"{where}: field {field!r} is missing") from None
        raise InputError(f"{where}: {field} = {fault['input']!r}: {fault['msg']}") from None


def known(name: str, names: Any, kind: str, where: str = "") -> None:
    """Refuse a name that is none of those.

    Raises:
        InputError: it names the one that was meant, or all.
    """
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"
        raise InputError(f"{where + ': ' if where else ''}unknown {kind} {name!r} ({hint})")


def flat_fields(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted field, value) of a recipe's nested tables."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat_fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def merged(base: dict[str, Any], changes: dict[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """A table with another's values over its own, tables within it likewise and all of them new.

    Raises:
        InputError: a value stands where a table is.
    """
    both = {key: merged(old, {}, where) if isinstance(old, dict) else old for key, old in base.items()}
    for key, value in changes.items():
        old = both.get(key)
        if not isinstance(old, dict):
            both[key] = merged(value, {}, where) if isinstance(value, dict) else value
        elif isinstance(value, dict):
            both[key] = merged(old, value, where, f"{prefix}{key}.")
        else:
            raise InputError(f"{where}: {prefix}{key} = {value!r}: a table is expected")
    return both


def dotted_fields(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of a kind's fields, those of nested kinds included."""
    names: list[str] = []
    for name, field in kind.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            names += dotted_fields(nested, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names
