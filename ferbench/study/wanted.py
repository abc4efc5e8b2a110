"""Studies as a command asks for them, and which of those that are there each of them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.plan import check_init, check_model
from ferbench.records.store import Store
from ferbench.records.study import Dimension, Limit, StudySpec, changed_fields
from ferbench.spec import Budget, DataKey, file_stem
from ferbench.study.ledger import Ledger, open_ledger, open_or_create
from ferbench.study.space import Space, load_study
from ferbench.study.storage import JOURNAL, Opened, open_journal


@dataclass(frozen=True)
class Wanted:
    """A study as a command asks for it."""

    base: str
    """Its name, unless another study has that."""
    spec: StudySpec
    limit: Limit
    """Of its file."""
    space: Space
    notes: tuple[str, ...]


def wanted_study(
    word: str, name: str | None, objectives: list[str] | None, overrides: Mapping[str, Any], track: Budget, key: DataKey
) -> Wanted:
    """The study of a model that a command asks for.

    Args:
        word: the model or the study's file; the others as in `plan.plan_studies`.

    Raises:
        InputError: anything is unknown or does not fit.
    """
    model, file = load_study(word)
    searched, notes = _searched(file.space, track)
    _check_fixed(overrides, searched)
    space = Space(load_recipe(model, overrides=dict(overrides)), searched, f"study {word}")
    check_model(space.baseline.model)
    check_init(space.baseline.model)
    spec = StudySpec(
        model=model,
        objectives=objectives or file.objectives,
        space=searched,
        sampler=file.sampler,
        pruner=file.pruner,
        seed=file.seed,
        baseline=space.baseline,
        budget=track,
        data=key,
    )
    if len(spec.objectives) > 1 and spec.pruner.name != "none":
        notes += ("several objectives: no trial is pruned",)
    return Wanted(_slug(model, name), spec, file.limit, space, notes)


def open_wanted(study: Wanted, limit: Limit | None, store: Store, database: Opened | None, fork: bool) -> Ledger:
    """The study of that spec, or a new one.

    Args:
        limit: None is what the study has.

    Raises:
        InputError: as `name_of`, or a storage cannot be read.
    """
    while True:
        name = name_of(study, store, database, fork)
        storage, keeper = database or open_journal(store.root / "studies" / name)
        ledger = open_or_create(storage, name, study.spec, limit or study.limit, study.space.start, keeper)
        # else another process has just made another of that name
        if ledger.spec == study.spec:
            if limit is not None:
                ledger.set_limit(limit)
            return ledger


def name_of(study: Wanted, store: Store, database: Opened | None, fork: bool) -> str:
    """The name of the study of that spec, or a free one.

    Raises:
        InputError: the name is another study's, and there is to be no fork.
    """
    refusal = ""
    for n in count(1):
        name = study.base if n == 1 else f"{study.base}-{n}"
        folder = store.root / "studies" / name
        journal = open_journal(folder) if (folder / JOURNAL).is_file() else None
        local = journal and open_ledger(journal[0], name, journal[1])
        ledger = open_ledger(database[0], name, database[1]) if database else local
        if database and local:
            why = f"goes on from the journal in {folder}, whose files a database's would take"
        elif ledger is None and not store.has_study(name):
            if refusal and not fork:
                break
            return name
        elif ledger is None:
            # a clone has the studies that were committed, but not their journals
            why = f"is in {folder / 'study.json'} without its storage, and cannot go on"
        elif ledger.spec != study.spec:
            field, old, new = changed_fields(ledger.spec, study.spec)[0]
            why = f"was begun with {field} = {old!r}, not {new!r}"
        elif store.has_study(name) and store.study(name).spec != study.spec:
            why = f"is another one in {folder / 'study.json'} than in its storage"
        else:
            return name
        refusal = refusal or f"study {name} {why}: --fork starts a new study, --name NAME one beside it"
    raise InputError(refusal)


def _check_fixed(overrides: Mapping[str, Any], space: Mapping[str, Dimension]) -> None:
    for name in overrides:
        if any(field == name or field.endswith(f".{name}") for field in space):
            raise InputError(f"--set {name}: the study searches it")


def _slug(model: str, name: str | None) -> str:
    stem = file_stem(model)
    if name is None:
        return stem
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--name {name!r}: letters, digits, - and _ are expected")
    return f"{stem}-{name}"


def _searched(space: dict[str, Dimension], budget: Budget) -> tuple[dict[str, Dimension], tuple[str, ...]]:
    """The space without what the budget decides for every model, and a note of it."""
    out = {name: value for name, value in budget.decided.items() if name in space}
    kept = {}
    for name, dimension in space.items():
        met = {parent: values for parent, values in dimension.when.items() if parent in out}
        if name in out or any(out[parent] not in values for parent, values in met.items()):
            continue
        left = {parent: values for parent, values in dimension.when.items() if parent not in out}
        kept[name] = dimension.model_copy(update={"when": left})
    notes = tuple(f"budget {budget.name} sets {n.partition('.')[2]} = {v}: it is not searched" for n, v in out.items())
    if not kept:
        raise InputError(f"budget {budget.name} leaves nothing to search ({'; '.join(notes)})")
    return kept, notes
