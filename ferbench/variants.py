"""What tells recipes for the same model from each other."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

from ferbench.errors import InputError
from ferbench.inputs import FROM_SCRATCH, STRATEGY, changed_recipe, load_recipe, recipe_names
from ferbench.recipe import Recipe
from ferbench.spec import Budget
from ferbench.toml import flat_fields

ItemT = TypeVar("ItemT")

MOST_SHOWN = 2
"""Changed fields that make a label."""
_KNOBS = "imbalance.params."
UNNAMED = (STRATEGY, "training.precision.", "training.channels_last", "training.compile")
"""Beginnings of fields that have a column of their own in a leaderboard, or should change nothing but the speed."""


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


def differing_fields(recipes: dict[str, Recipe], budget: Budget) -> dict[str, dict[str, Any]]:
    """By fingerprint, the fields in which a recipe differs from the one shipped for its model and strategy.

    Where none is shipped, from the first other one for the same model. How a run is computed is no difference, nor is
    what the budget decides.
    """
    unnamed = (*UNNAMED, *budget.decided)
    shipped = cache(shipped_recipe)
    firsts: dict[str, Recipe] = {}
    differing = {}
    for key, recipe in recipes.items():
        usual = shipped(recipe.model.name, recipe.imbalance.strategy) or firsts.setdefault(recipe.model.name, recipe)
        differing[key] = {f: v for f, v in changed_fields(recipe, usual).items() if not f.startswith(unnamed)}
    return differing


def shipped_recipe(model: str, strategy: str | None) -> Recipe | None:
    """The shipped recipe of a model with a strategy, or its own one; None: there is none any more."""
    try:
        return load_recipe(model, strategy=strategy)
    except InputError:
        return None


def changed_fields(recipe: Recipe, usual: Recipe) -> dict[str, Any]:
    """The recipe's values of the dotted fields in which it is not the usual one."""
    # most tables are the usual ones, and are not taken apart
    changed = {name for name in Recipe.model_fields if getattr(recipe, name) != getattr(usual, name)}
    known = dict(flat_fields(usual.model_dump(include=changed)))
    return {f: v for f, v in flat_fields(recipe.model_dump(include=changed)) if known.get(f) != v}


def variant_label(recipe: Recipe, differs: dict[str, Any], unnamed: tuple[str, ...] = UNNAMED) -> str:
    """A few words for what a recipe changes of its model's shipped one; mostly "".

    Its init or its changed fields; where those are many, another shipped recipe and what it changes of that, or a hash.

    Args:
        differs: the changed fields and their values; below the table, where they are many.
        unnamed: beginnings of fields that are not named.
    """
    if len(differs) <= MOST_SHOWN:
        return _fields(differs)
    has_column = STRATEGY in unnamed
    near: list[tuple[str, dict[str, Any]]] = []
    for name, other in _other_recipes(recipe.model.name, recipe.imbalance.strategy if has_column else None):
        tables = [n for n in Recipe.model_fields if getattr(recipe, n) != getattr(other, n)]
        # a study has thousands of recipes that are nowhere near
        if sum(not any(u.startswith(f"{n}.") for u in unnamed) for n in tables) <= MOST_SHOWN:
            rest = {f: v for f, v in changed_fields(recipe, other).items() if not f.startswith(unnamed)}
            near.append((name, rest))
    name, rest = min(near, key=lambda other: len(other[1]), default=("", differs))
    if len(rest) <= MOST_SHOWN:
        return ", ".join(filter(None, (name, _fields(rest))))
    # the same with every strategy, where that is named beside it
    return digest({f: v for f, v in differs.items() if not (has_column and f.startswith(_KNOBS))})


def _fields(changed: dict[str, Any]) -> str:
    if set(changed) == {"model.init"}:
        return str(changed["model.init"])
    short = [f.rpartition(".")[2] for f in changed]
    return ", ".join(f"{n if short.count(n) == 1 else f}={v}" for n, (f, v) in zip(short, changed.items(), strict=True))


@cache
def _other_recipes(model: str, strategy: str | None) -> tuple[tuple[str, Recipe], ...]:
    """The shipped recipes for a model that do not have its name, by name, with a strategy; None: their own one.

    Those that start from ImageNet weights also as they train from scratch.
    """
    named = [(name, shipped_recipe(name, strategy)) for name in recipe_names() if name != model]
    found = [(name, recipe) for name, recipe in named if recipe is not None and recipe.model.name == model]
    scratch = [(f"{n}, scratch", changed_recipe(r, FROM_SCRATCH, n)) for n, r in found if r.model.init == "imagenet"]
    return (*found, *scratch)


def recipe_fingerprint(recipe: Recipe) -> str:
    """Hash of a recipe alone."""
    # as in `RunSpec.fingerprint`, so that a field that is new changes no old name
    return digest(recipe.model_dump(mode="json", exclude_defaults=True))


def digest(value: Any) -> str:
    """A short hash of a value that JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=4).hexdigest()
