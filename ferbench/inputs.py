"""Recipes and budgets out of the TOML files that people write.

`baselines/defaults.toml` holds every field, a model's own file what differs, `budgets.toml` the budgets.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ferbench.errors import InputError
from ferbench.knobs import check_knobs, strategy_knobs
from ferbench.recipe import Recipe
from ferbench.spec import Budget, ProtocolName
from ferbench.toml import dotted_fields, flat_fields, known, merged, read_toml, shared_toml, shipped, validated

STRATEGY = "imbalance.strategy"
_NOT_RECIPES = ("defaults", "budgets", "strategies", "published")
_BUDGETS = shipped("baselines", "budgets.toml")
FROM_SCRATCH: dict[str, Any] = {"model.init": "scratch", "training.freeze_epochs": 0, "training.freeze_norm": False}
"""What changes in a recipe that starts from ImageNet weights where there are none: a backbone frozen as it was drawn,
or norms that know nothing of the images, would learn nothing."""
_BASE = "base"
"""Key of a recipe file: the recipe whose fields it has where it says nothing."""
_ABOUT = ("paper", "provenance")
"""Tables of a recipe file that say where its values come from."""


@cache
def recipe_names() -> tuple[str, ...]:
    """Names of the shipped recipes, those of published systems as "papers/NAME"."""
    folder = shipped("baselines")
    own = sorted(p.stem for p in folder.glob("*.toml") if p.stem not in _NOT_RECIPES)
    return (*own, *sorted(f"papers/{p.stem}" for p in folder.glob("papers/*.toml")))


class Paper(BaseModel):
    """What a recipe says of the published system that it follows: its table [paper]."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)

    source: str
    protocol: ProtocolName
    """The system's own."""
    assumed: list[str]
    """Dotted fields that no source gives."""


def load_paper(source: str) -> Paper | None:
    """What a recipe says of a published system; None: it follows none.

    Raises:
        InputError: no such recipe, or a field is unknown.
    """
    path = recipe_path(source)
    table = read_toml(path).get("paper")
    if table is None:
        return None
    paper = validated(Paper, table, path.name)
    for field in paper.assumed:
        if not field.startswith("imbalance.params."):
            known(field, recipe_fields(), "field", f"{path.name}, paper.assumed")
    return paper


def load_budget(name: str) -> Budget:
    """The named budget of baselines/budgets.toml.

    Raises:
        InputError: there is none of that name.
    """
    table = shared_toml(_BUDGETS)
    known(name, table, "budget")
    fields = {field: value for field, value in table[name].items() if field != "about"}
    return validated(Budget, {"name": name, **fields}, _BUDGETS.name)


def budgets() -> dict[str, str]:
    """What each budget is good for, in words that go on from "it", by name; the most telling first."""
    return {name: fields["about"] for name, fields in shared_toml(_BUDGETS).items()}


def load_recipe(
    source: str, *, strategy: str | None = None, init: str | None = None, overrides: dict[str, Any] | None = None
) -> Recipe:
    """The recipe of a model, a shipped recipe's name or a TOML file, with what the caller changes.

    Args:
        source: a model's name, a recipe's name or a path ending in .toml. A file has the fields of the recipe that it
            names as `base` where it says nothing (of a published system the fields alone, not the protocol), else those
            of baselines/defaults.toml.
        strategy: imbalance strategy, with its default knobs.
        init: replaces model.init.
        overrides: dotted field -> value, as `--set` gives them.

    Raises:
        InputError: no such recipe, an unknown field or a value out of range, named with its file.
    """
    path = recipe_path(source)
    table = _table(source)
    if init is not None:
        table["model"]["init"] = init
    table["imbalance"] = _imbalance(table["imbalance"], strategy, path.name)
    where = f"{path.name} with --set" if overrides else path.name
    for key, value in (overrides or {}).items():
        _set(table, key, value)
    recipe = validated(Recipe, table, where)
    check_knobs(recipe.imbalance, where)
    return recipe


def _table(source: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe file's table over that of its base, or over the defaults, as a new one.

    Args:
        above: files that have this one as their base.
    """
    path = recipe_path(source).resolve()
    own = {key: value for key, value in shared_toml(path).items() if key not in (*_ABOUT, _BASE)}
    base = shared_toml(path).get(_BASE)
    if base is None:
        under = shared_toml(shipped("baselines", "defaults.toml"))
    elif not isinstance(base, str) or path in above:
        why = "a recipe's name or file is expected" if path not in above else "bases go round in a circle"
        raise InputError(f"{path.name}: base = {base!r}: {why}")
    else:
        # a file is looked for from where this one is
        under = _table(str(path.parent / base) if base.endswith(".toml") else base, (*above, path))
    table = merged(_without_knobs(under, own), own, path.name)
    if source.startswith("timm:"):
        table["model"]["name"] = source
    return table


def _without_knobs(under: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A base's table; without its strategy's knobs where there is another strategy over it."""
    imbalance = own.get("imbalance")
    strategy = imbalance.get("strategy") if isinstance(imbalance, dict) else None
    if strategy in (None, under["imbalance"]["strategy"]):
        return under
    return {**under, "imbalance": {"strategy": strategy}}


def changed_recipe(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """A recipe with other values of some dotted fields; a new strategy brings its default knobs along.

    Raises:
        InputError: an unknown field, or a value out of range.
    """
    table = recipe.model_dump()
    strategy = changes.get(STRATEGY, recipe.imbalance.strategy)
    if strategy != recipe.imbalance.strategy:
        table["imbalance"] = _imbalance(table["imbalance"], strategy, where)
    for key, value in changes.items():
        if key != STRATEGY:
            _put(table, key, value)
    changed = validated(Recipe, table, where)
    check_knobs(changed.imbalance, where)
    return changed


def _imbalance(own: dict[str, Any], wanted: str | None, where: str) -> dict[str, Any]:
    """The table of the wanted strategy, or else the file's, with every knob; the file's knobs go with its strategy."""
    chosen = own["strategy"] if wanted is None else wanted
    if not isinstance(chosen, str):
        raise InputError(f"{where}: imbalance.strategy = {chosen!r}: a name is expected")
    defaults = strategy_knobs(chosen, where if wanted is None else "")
    changes = {k: v for k, v in own.items() if k != "params" or chosen == own["strategy"]}
    return merged({"params": defaults}, {**changes, "strategy": chosen}, where, "imbalance.")


def recipe_fields() -> list[str]:
    """Dotted names of a recipe's fields."""
    return dotted_fields(Recipe)


def described_fields() -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value of baselines/defaults.toml or None, meaning) of each field of a recipe."""
    defaults = dict(flat_fields(shared_toml(shipped("baselines", "defaults.toml"))))
    for name in recipe_fields():
        kind: Any = Recipe
        *path, last = name.split(".")
        for part in path:
            kind = kind.model_fields[part].annotation
        yield name, defaults.get(name), " ".join((kind.model_fields[last].description or "").split())


def parse_override(text: str) -> tuple[str, Any]:
    """("optimizer.lr", 0.1) of "optimizer.lr=0.1"; the value is read as TOML, else as a plain string."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InputError(f"--set {text!r}: expected key=value, such as optimizer.lr=0.05")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return key.strip(), value.strip()


def source_path(kind: str, source: str, names: Sequence[str]) -> Path:
    """The path of a recipe or study (kind): a shipped one's name, of those given, timm:NAME, or a path ending in .toml.

    Raises:
        InputError: no such file.
    """
    if source.endswith(".toml"):
        if not Path(source).is_file():
            raise InputError(f"no {kind} file {source!r}")
        return Path(source)
    stem = "timm" if source.startswith("timm:") else source
    known(stem, names, kind)
    return shipped("studies" if kind == "study" else "baselines", f"{stem}.toml")


def recipe_path(source: str) -> Path:
    """The path of a recipe's file; `source` as `load_recipe` takes it."""
    return source_path("recipe", source, recipe_names())


def _set(table: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted field, or at the one field that ends in `key`."""
    if key in (STRATEGY, "strategy"):
        # its knobs come with it, which a single field cannot bring
        raise InputError(f"--set {key}: --imbalance chooses the strategy")
    knobs = table["imbalance"]["params"]
    # what else they may be called is found when the recipe is checked
    fields = [*recipe_fields(), *(f"imbalance.params.{p}" for p in (knobs if isinstance(knobs, dict) else ()))]
    matches = [f for f in fields if f == key or f.endswith(f".{key}")]
    if key not in fields and len(matches) > 1:
        raise InputError(f"--set {key}: several fields are called so: {', '.join(matches)}")
    if key not in fields and not matches:
        near = difflib.get_close_matches(key, fields, n=3, cutoff=0.5) or [f for f in fields if key in f]
        told = f"fields like it: {', '.join(near)}" if near else "`ferbench list fields` shows all"
        raise InputError(f"--set {key}: unknown field ({told})")
    _put(table, key if key in fields else matches[0], value)


def _put(table: dict[str, Any], field: str, value: Any) -> None:
    *path, last = field.split(".")
    for part in path:
        table = table[part]
    table[last] = value
