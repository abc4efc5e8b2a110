"""Rows by name: one class for models, strategies, metrics and readers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Generic, Protocol, TypeVar

from ferbench.errors import InputError


class Row(Protocol):
    """Anything a registry can hold."""

    @property
    def name(self) -> str:
        """The key, unique in its registry."""


T = TypeVar("T", bound=Row)


class Registry(Generic[T]):
    """An ordered table of named rows.

    Args:
        kind: what a row is, for messages ("model").
        rows: the rows, in the order in which lists show them.
        open_prefixes: builders for names that no row lists, by prefix ("timm:" -> row of any timm model).

    Raises:
        ValueError: two rows share a name.
    """

    def __init__(
        self, kind: str, rows: Iterable[T] = (), open_prefixes: dict[str, Callable[[str], T]] | None = None
    ) -> None:
        self.kind = kind
        self._rows: dict[str, T] = {}
        self._open = open_prefixes or {}
        for row in rows:
            self.add(row)

    def add(self, row: T) -> T:
        """The row, now registered."""
        if row.name in self._rows:
            raise ValueError(f"{self.kind} {row.name!r} is registered twice")
        self._rows[row.name] = row
        return row

    def __getitem__(self, name: str) -> T:
        if name in self._rows:
            return self._rows[name]
        for prefix, build in self._open.items():
            if name.startswith(prefix) and len(name) > len(prefix):
                return build(name)
        raise InputError(f"unknown {self.kind} {name!r} ({self._hint(name)})")

    def __iter__(self) -> Iterator[T]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    @property
    def names(self) -> list[str]:
        """The listed names, in order."""
        return list(self._rows)

    def select(self, patterns: str | Iterable[str]) -> list[T]:
        """The rows that a comma list of names and globs picks, each once, in the order asked for.

        Raises:
            InputError: a name is unknown or a glob picks nothing.
        """
        words = patterns.split(",") if isinstance(patterns, str) else list(patterns)
        picked: dict[str, T] = {}
        for word in (w.strip() for w in words):
            for row in self._expand(word):
                picked[row.name] = row
        if not picked:
            raise InputError(f"no {self.kind} given ({self._hint('')})")
        return list(picked.values())

    def _expand(self, word: str) -> list[T]:
        if word == "all":
            return list(self)
        if any(c in word for c in "*?["):
            rows = [r for r in self if fnmatchcase(r.name, word)]
            if not rows:
                raise InputError(f"no {self.kind} matches {word!r} ({self._hint(word)})")
            return rows
        return [self[word]] if word else []

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._rows, n=2, cutoff=0.5)
        if close:
            return f"did you mean {' or '.join(close)}?"
        return "known: " + ", ".join([*self._rows, *(f"{p}<name>" for p in self._open)])
