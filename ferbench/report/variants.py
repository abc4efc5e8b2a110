"""What tells recipes for the same model and strategy from each other."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from ferbench.recipe import Recipe


def differing_fields(recipes: Iterable[Recipe]) -> dict[str, dict[str, Any]]:
    """By fingerprint, the fields in which a recipe differs from others for the same model and strategy."""
    families: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for recipe in recipes:
        family = families[recipe.model.name, recipe.imbalance.strategy]
        family[recipe_fingerprint(recipe)] = dict(flat_fields(recipe.model_dump()))
    return {key: _differing(own, list(family.values())) for family in families.values() for key, own in family.items()}


def _differing(own: dict[str, Any], family: list[dict[str, Any]]) -> dict[str, Any]:
    return {field: value for field, value in own.items() if any(o.get(field) != value for o in family)}


def variant_label(differs: dict[str, Any], key: str) -> str:
    """A few words for a recipe: its init or its changed fields, or its fingerprint when those are many; mostly ""."""
    if set(differs) == {"model.init"}:
        return str(differs["model.init"])
    # more than two changes are no label; the list of recipes below the table spells them out
    return ", ".join(f"{f.rpartition('.')[2]}={v}" for f, v in differs.items()) if len(differs) < 3 else key


def flat_fields(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted field, value) of a recipe's nested tables."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat_fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def recipe_fingerprint(recipe: Recipe) -> str:
    """Hash of a recipe alone."""
    return digest(recipe.model_dump(mode="json"))


def digest(value: Any) -> str:
    """A short hash of a value that JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=4).hexdigest()
