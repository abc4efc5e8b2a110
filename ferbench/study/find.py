"""Studies that are there: by their journals under results/studies/, in a database, or by what is stored of them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ferbench.errors import InputError
from ferbench.records.store import Store
from ferbench.records.study import StudyRecord
from ferbench.study.ledger import Ledger, open_ledger
from ferbench.study.read import read_study
from ferbench.study.storage import JOURNAL, open_database, open_journal, study_names_in


def ledgers(store: Store, wanted: str, storage: str | None) -> dict[str, Ledger]:
    """The studies whose names match, by name, each with its storage open.

    Args:
        wanted: names and globs with commas between.
        storage: as `plan.plan_studies`.

    Raises:
        InputError: none matches, or the storage cannot be reached.
    """
    found = _open(store, storage)
    where = "in the database" if storage else f"with its storage in {store.root / 'studies'}"
    for name in () if storage else map(str.strip, wanted.split(",")):
        if name not in found and store.has_study(name):
            raise InputError(f"study {name} has only its study.json here; {JOURNAL}, from which it goes on, is missing")
    return {name: found[name] for name in _matching(list(found), wanted, where)}


def studies(store: Store, wanted: str, storage: str | None) -> list[StudyRecord]:
    """What is known of the studies whose names match: from their storage, else from their stored records.

    Raises:
        InputError: none matches, or a storage or record cannot be read.
    """
    opened = _open(store, storage)
    stored = {} if storage else {record.name: record for record in store.studies()}
    names = _matching(sorted(opened.keys() | stored.keys()), wanted, f"in {(storage and 'the database') or store.root}")
    return [read_study(name, opened[name]) if name in opened else stored[name] for name in names]


def _open(store: Store, storage: str | None) -> dict[str, Ledger]:
    """Every study that is there whole, in the order of the names."""
    folder = store.root / "studies"
    database = None if storage is None else open_database(storage)
    names = study_names_in(database[0]) if database else (p.parent.name for p in folder.glob(f"*/{JOURNAL}"))
    found = {}
    for name in sorted(names):
        opened, keeper = database or open_journal(folder / name)
        if (ledger := open_ledger(opened, name, keeper)) is not None:
            found[name] = ledger
    return found


def _matching(names: list[str], wanted: str, where: str) -> list[str]:
    patterns = [word.strip() for word in wanted.split(",")]
    found = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    if not found:
        there = ", ".join(names) or "none; ferbench tune makes one"
        raise InputError(f"no study {wanted!r} {where} (there are: {there})")
    return found
