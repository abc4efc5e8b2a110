"""What tells recipes for the same model from each other."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

from ferbench.errors import InputError
from ferbench.inputs import STRATEGY, load_recipe
from ferbench.recipe import Recipe
from ferbench.toml import flat_fields

ItemT = TypeVar("ItemT")

MOST_SHOWN = 2
"""Changed fields that make a label."""
_KNOBS = "imbalance.params."
_UNNAMED = (STRATEGY, "training.precision.", "training.channels_last", "training.compile")
"""Fields that have a column of their own, or should change nothing but the speed."""


def by_recipe(items: Iterable[ItemT], recipe_of: Callable[[ItemT], Recipe]) -> dict[str, list[ItemT]]:
    """The items by the fingerprint of their recipe."""
    groups: dict[str, list[ItemT]] = defaultdict(list)
    known: dict[str, str] = {}
    for item in items:
        recipe = recipe_of(item)
        # takes a third of the time of a fingerprint
        text = recipe.model_dump_json()
        if text not in known:
            known[text] = recipe_fingerprint(recipe)
        groups[known[text]].append(item)
    return groups


def differing_fields(recipes: dict[str, Recipe]) -> dict[str, dict[str, Any]]:
    """By fingerprint, the fields in which a recipe differs from others for the same model and from the shipped one.

    A strategy is no such difference; its knobs are, between recipes with the same one. Nor is how it is computed.
    """
    families: dict[tuple[str, ...], dict[str, dict[str, Any]]] = defaultdict(dict)
    for key, recipe in recipes.items():
        name, strategy = recipe.model.name, recipe.imbalance.strategy
        for field, value in flat_fields(recipe.model_dump()):
            family = (name, strategy) if field.startswith(_KNOBS) else (name,)
            families[family].setdefault(key, {})[field] = value
    shipped = cache(shipped_fields)
    differing: dict[str, dict[str, Any]] = {key: {} for key in recipes}
    for members in families.values():
        varied = {f for f in _varied(list(members.values())) if not f.startswith(_UNNAMED)}
        for key, own in members.items() if varied else ():
            usual = shipped(recipes[key].model.name, recipes[key].imbalance.strategy) or {}
            differing[key] |= {f: v for f, v in own.items() if f in varied and (f not in usual or usual[f] != v)}
    return differing


def shipped_fields(model: str, strategy: str) -> dict[str, Any] | None:
    """The fields of the shipped recipe of a model with a strategy; None: there is none any more."""
    try:
        return dict(flat_fields(load_recipe(model, strategy=strategy).model_dump()))
    except InputError:
        return None


def _varied(family: list[dict[str, Any]]) -> set[str]:
    """The fields that are not the same in all recipes of a family."""
    first = family[0]
    return {field for own in family for field in own.keys() | first.keys() if own.get(field) != first.get(field)}


def variant_label(differs: dict[str, Any]) -> str:
    """A few words for a recipe: its init or its changed fields, or a hash of them when those are many; mostly ""."""
    if set(differs) == {"model.init"}:
        return str(differs["model.init"])
    if len(differs) <= MOST_SHOWN:
        return ", ".join(f"{f.rpartition('.')[2]}={v}" for f, v in differs.items())
    # the list of recipes below the table spells it out; the same with every strategy
    return digest({f: v for f, v in differs.items() if not f.startswith(_KNOBS)})


def recipe_fingerprint(recipe: Recipe) -> str:
    """Hash of a recipe alone."""
    # as in `RunSpec.fingerprint`, so that a field that is new changes no old name
    return digest(recipe.model_dump(mode="json", exclude_defaults=True))


def digest(value: Any) -> str:
    """A short hash of a value that JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=4).hexdigest()
