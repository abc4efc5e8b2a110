"""What tells recipes for the same model and strategy from each other."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ferbench.recipe import Recipe
from ferbench.tables import flat_fields

ItemT = TypeVar("ItemT")


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
    """By fingerprint, the fields in which a recipe differs from others for the same model and strategy."""
    families: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for key, recipe in recipes.items():
        families[recipe.model.name, recipe.imbalance.strategy][key] = dict(flat_fields(recipe.model_dump()))
    differing: dict[str, dict[str, Any]] = {}
    for family in families.values():
        varied = _varied(list(family.values()))
        differing |= {key: {f: v for f, v in own.items() if f in varied} for key, own in family.items()}
    return differing


def _varied(family: list[dict[str, Any]]) -> set[str]:
    """The fields that are not the same in all recipes of a family."""
    first = family[0]
    return {field for own in family for field in own.keys() | first.keys() if own.get(field) != first.get(field)}


def variant_label(differs: dict[str, Any], key: str) -> str:
    """A few words for a recipe: its init or its changed fields, or its fingerprint when those are many; mostly ""."""
    if set(differs) == {"model.init"}:
        return str(differs["model.init"])
    # more than two changes are no label; the list of recipes below the table spells them out
    return ", ".join(f"{f.rpartition('.')[2]}={v}" for f, v in differs.items()) if len(differs) < 3 else key


def recipe_fingerprint(recipe: Recipe) -> str:
    """Hash of a recipe alone."""
    # as in `RunSpec.fingerprint`, so that a field that is new changes no old name
    return digest(recipe.model_dump(mode="json", exclude_defaults=True))


def digest(value: Any) -> str:
    """A short hash of a value that JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=4).hexdigest()
