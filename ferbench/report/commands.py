"""The commands that make a track's runs, worked out from their specs."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from ferbench.errors import InputError
from ferbench.knobs import strategy_defaults
from ferbench.models import MODELS
from ferbench.recipe import Recipe
from ferbench.spec import Budget, RunSpec
from ferbench.training.strategies import strategy_of
from ferbench.variants import by_recipe, changed_fields, recipe_fingerprint, shipped_recipe

if TYPE_CHECKING:
    from ferbench.report.entries import Entry

Changes = tuple[tuple[str, str], ...]


def run_commands(specs: Iterable[RunSpec]) -> list[str]:
    """The fewest `ferbench run` lines that make these runs; the specs must be of one track.

    A recipe that is not the shipped one is spelled out with `--set`: a line stays right when the shipped one changes.
    """
    specs = list(specs)
    # a line with --tta trains what it looks with
    looked_with = {s.trained.id for s in specs if s.tta != "none"}
    trained = [s for s in specs if s.tta == "none" and not (looked_with and s.id in looked_with)]
    kinds = sorted({s.tta for s in specs} - {"none"})
    return _commands(trained) + [line for tta in kinds for line in _commands([s for s in specs if s.tta == tta])]


def ensemble_commands(entries: Iterable[Entry]) -> list[str]:
    """A `ferbench ensemble` line for each ensemble."""
    records = [e.ensemble for e in entries if e.ensemble]
    return [f"ferbench ensemble --from {','.join(r.candidates)} --metric {r.metric}" for r in records]


def _commands(specs: Sequence[RunSpec]) -> list[str]:
    by_changes: dict[Changes | str, list[RunSpec]] = defaultdict(list)
    # a study has thousands of recipes for one model
    shipped = cache(shipped_recipe)
    for group in by_recipe(specs, lambda s: s.recipe).values():
        recipe = group[0].recipe
        changes = _changes(recipe, shipped(recipe.model.name, recipe.imbalance.strategy), group[0].budget)
        by_changes[changes] += group
    ordered = sorted(by_changes.items(), key=lambda item: (isinstance(item[0], str), len(item[0]), str(item[0])))
    return [line for changes, group in ordered for line in _lines(changes, group)]


def _lines(changes: Changes | str, specs: list[RunSpec]) -> list[str]:
    # seeds of each (model, strategy), then strategies of each (model, seeds), then models of each (strategies, seeds)
    seeds = _gather(((s.recipe.model.name, s.recipe.imbalance.strategy), s.seed) for s in specs)
    strategies = _gather(((model, tuple(sorted(ss))), strategy) for (model, strategy), ss in seeds.items())
    order = list(strategy_defaults())
    models = _gather(((_in_order(ss, order), at), model) for (model, at), ss in strategies.items())
    lines = []
    for (ss, at), names in models.items():
        lines.append(_line(_in_order(names, MODELS.names), ss, at, changes, specs[0]))
    return sorted(lines)


def _gather(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, set[Any]]:
    groups: dict[Any, set[Any]] = defaultdict(set)
    for key, value in pairs:
        groups[key].add(value)
    return groups


def _in_order(names: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda n: (known.index(n) if n in known else len(known), n)))


def _line(
    models: Sequence[str], strategies: Sequence[str], seeds: Sequence[int], changes: Changes | str, spec: RunSpec
) -> str:
    words = ["ferbench", "run", "--models", ",".join(models), "--imbalance", ",".join(strategies)]
    words += ["--seeds", ",".join(map(str, seeds)), "--budget", spec.budget.name]
    words += [] if spec.data.protocol == "official" else ["--protocol", spec.data.protocol]
    words += [] if spec.tta == "none" else ["--tta", spec.tta]
    words += ["--allow-double-correction"] if any(map(_corrects_twice, strategies)) else []
    if not isinstance(changes, str):
        words += [word for field, value in changes for word in ("--set", f"{field}={value}")]
    line = f"{shlex.join(words)} --data {_data_words(spec.data.name)}"
    return f"{line}  # {changes}" if isinstance(changes, str) else line


def _corrects_twice(strategy: str) -> bool:
    # an old record's strategy may be gone
    with suppress(InputError):
        return len(strategy_of(strategy).corrections) > 1
    return False


def _data_words(name: str) -> str:
    if name == "synthetic":
        return "synthetic"
    labels = {"ferplus-soft": "ferplus-soft", "ferplus-majority": "ferplus"}.get(name)
    return f"PATH --labels {labels}=FILE" if labels else "PATH"


def _changes(recipe: Recipe, shipped: Recipe | None, budget: Budget) -> Changes | str:
    """The --set values that turn the shipped recipe into another, or a remark where there is none to start from."""
    if shipped is None:
        return f"with a recipe of its own, {recipe_fingerprint(recipe)}"
    # what the budget sets for every model is refused
    return tuple((f, json.dumps(v)) for f, v in changed_fields(recipe, shipped).items() if f not in budget.decided)
