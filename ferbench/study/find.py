"""Studies that are there: by their journals under results/studies/, or in a database."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from ferbench.errors import InputError
from ferbench.records.store import Store
from ferbench.records.study import StudyRecord
from ferbench.study.ledger import Ledger, open_ledger
from ferbench.study.read import read_study
from ferbench.study.storage import JOURNAL, open_database, open_journal, study_names_in


def ledgers(store: Store, wanted: str, storage: str | None) -> Iterator[tuple[str, Ledger]]:
    """The studies whose names match, each with its storage open.

    Args:
        wanted: names and globs with commas between.
        storage: as `plan.plan_studies`.

    Raises:
        InputError: none matches, or the storage cannot be reached.
    """
    folder = store.root / "studies"
    database = None if storage is None else open_database(storage)
    names = sorted(study_names_in(database[0]) if database else (p.parent.name for p in folder.glob(f"*/{JOURNAL}")))
    matching = _matching(names, wanted, f"in {'the database' if database else folder}")
    for name in matching:
        opened, keeper = database or open_journal(folder / name)
        yield name, open_ledger(opened, name, keeper)


def studies(store: Store, wanted: str, storage: str | None) -> list[StudyRecord]:
    """What is known of the studies whose names match: from their storage, else from their stored records.

    Raises:
        InputError: none matches, or a storage or record cannot be read.
    """
    if storage is not None or any(store.root.glob(f"studies/*/{JOURNAL}")):
        return [read_study(name, ledger) for name, ledger in ledgers(store, wanted, storage)]
    records = {r.name: r for r in store.studies()}
    return [records[name] for name in _matching(list(records), wanted, f"in {store.root / 'studies'}")]


def _matching(names: list[str], wanted: str, where: str) -> list[str]:
    patterns = [word.strip() for word in wanted.split(",")]
    found = [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
    if not found:
        raise InputError(
            f"no study {wanted!r} {where} (there are: {', '.join(names) or 'none; ferbench tune makes one'})"
        )
    return found
