"""Studies that are there: by their journals under results/studies/, in a database, or by what is stored of them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ferbench.errors import InputError
from ferbench.records.store import Store
from ferbench.records.study import StudyRecord
from ferbench.study.ledger import Ledger, open_ledger
from ferbench.study.read import read_study
from ferbench.study.storage import JOURNAL, Opened, open_database, open_journal, reached, study_names_in


def ledgers(store: Store, wanted: str, storage: str | None) -> dict[str, Ledger]:
    """The studies whose names match, by name, each with its storage open.

    Args:
        wanted: names and globs with commas between.
        storage: as `plan.plan_studies`.

    Raises:
        InputError: none matches, or the storage of one that does cannot be read.
    """
    with reached():
        database = None if storage is None else open_database(storage)
        there = _names(store, database)
        matching = _matching(there, wanted)
        found = _open(store, database, matching)
    for name in () if database else map(str.strip, wanted.split(",")):
        if name not in found and store.has_study(name):
            state = "holds no study" if name in there else "is missing"
            raise InputError(f"study {name} has only its study.json here; {JOURNAL}, from which it goes on, {state}")
    if not found:
        where = "in the database" if database else f"with its storage in {store.root / 'studies'}"
        raise _none(wanted, where, [name for name in there if name not in matching])
    return found


def studies(store: Store, wanted: str, storage: str | None) -> list[StudyRecord]:
    """What is known of the studies whose names match: from their storage, else from their stored records.

    Raises:
        InputError: none matches, or the storage or record of one that does cannot be read.
    """
    with reached():
        database = None if storage is None else open_database(storage)
        there, stored = _names(store, database), [] if database else store.study_names()
        names = _matching(sorted({*there, *stored}), wanted)
        opened = _open(store, database, [name for name in names if name in there])
        found = [
            read_study(name, opened[name]) if name in opened else store.study(name)
            for name in names
            if name in opened or name in stored
        ]
    if not found:
        raise _none(wanted, f"in {'the database' if database else store.root}", sorted({*there, *stored}))
    return found


def _names(store: Store, database: Opened | None) -> list[str]:
    """Of the studies that have a storage, if only a half made one."""
    if database:
        return sorted(study_names_in(database[0]))
    return sorted(path.parent.name for path in (store.root / "studies").glob(f"*/{JOURNAL}"))


def _open(store: Store, database: Opened | None, names: list[str]) -> dict[str, Ledger]:
    """Those of the studies that are there whole; what cannot be read of the others is in nobody's way."""
    found = {}
    for name in names:
        opened, keeper = database or open_journal(store.root / "studies" / name)
        if (ledger := open_ledger(opened, name, keeper)) is not None:
            found[name] = ledger
    return found


def _matching(names: list[str], wanted: str) -> list[str]:
    patterns = [word.strip() for word in wanted.split(",")]
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


def _none(wanted: str, where: str, names: list[str]) -> InputError:
    there = ", ".join(names) or "none; ferbench tune makes one"
    return InputError(f"no study {wanted!r} {where} (there are: {there})")
