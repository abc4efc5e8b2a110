"""What a study may change: study files, checked against the recipe that they start from. No optuna here.

`studies/defaults.toml` says how studies search, a model's own file what. A dimension of the space is a table under the
dotted name of a recipe field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ferbench.errors import InputError
from ferbench.inputs import changed_recipe, recipe_fields, source_path
from ferbench.knobs import strategy_defaults
from ferbench.models import check
from ferbench.recipe import Recipe
from ferbench.records.study import COSTS, SCORES, Choices, Dimension, Limit, Pruner, Range, Sampler, Value
from ferbench.toml import flat_fields, known, read_toml, shipped, validated
from ferbench.training.strategies import check_corrections, strategy_of

KNOB = "imbalance.params."


class StudyFile(BaseModel):
    """A study file over studies/defaults.toml."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    objectives: list[str]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    limit: Limit
    sampler: Sampler
    pruner: Pruner
    space: dict[str, Dimension]


def study_names() -> list[str]:
    """Recipes that have a study file."""
    return sorted(p.stem for p in shipped("studies").glob("*.toml") if p.stem != "defaults")


def load_study(source: str) -> tuple[str, StudyFile]:
    """The recipe that a study starts from, and what its file says.

    Args:
        source: a recipe's name, timm:NAME, or the path of a study file, MODEL.toml.

    Raises:
        InputError: no such file, an unknown field, an empty range, or what else cannot be searched.
    """
    path = source_path("study", source, study_names())
    own = read_toml(path)
    table = read_toml(shipped("studies", "defaults.toml"))
    for name, value in own.items():
        # a limit or a sampler is changed field by field, the space is the file's own
        both = isinstance(value, dict) and isinstance(table.get(name), dict)
        table[name] = {**table[name], **value} if both else value
    study = validated(StudyFile, _kinds(table, path), str(path))
    _check(study, str(path))
    return (Path(source).stem if source.endswith(".toml") else source), study


def _kinds(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """The table with each dimension validated as what it is, so that a fault is named once."""
    space = table.get("space", {})
    if not isinstance(space, dict) or not space:
        raise InputError(f"{path}: no [space]: there is nothing to search")
    found = {}
    for name, dimension in space.items():
        if not isinstance(dimension, dict):
            raise InputError(
                f"{path}: space.{name} = {dimension!r}: a table is expected, such as {{low = 1, high = 2}}"
            )
        kind = Choices if "choices" in dimension else Range
        found[name] = validated(kind, dimension, f'{path}, space."{name}"')
    return {**table, "space": found}


def _check(study: StudyFile, where: str) -> None:
    check_objectives(study.objectives, where)
    fields = recipe_fields()
    seen: dict[str, Dimension] = {}
    for name, dimension in study.space.items():
        here = f'{where}, space."{name}"'
        if name.startswith(KNOB):
            knobs = sorted({k for table in strategy_defaults().values() for k in table})
            known(name.removeprefix(KNOB), knobs, "knob of a strategy", here)
        else:
            known(name, fields, "field", where)
        if name == "model.name":
            raise InputError(f"{here}: a study is of one model")
        for parent, values in dimension.when.items():
            if not isinstance(above := seen.get(parent), Choices):
                raise InputError(f"{here}: when: {parent!r} is no field with choices above this one")
            if not values:
                raise InputError(f"{here}: when.{parent} = []: at least one value is expected")
            for value in values:
                _one_of(value, above.choices, f"{here}: when.{parent}")
        _check_extent(dimension, here)
        seen[name] = dimension


def check_objectives(objectives: list[str], where: str) -> None:
    """Refuse what a study cannot aim at.

    Raises:
        InputError: the first is no val score, another one no cost, or one is named twice.
    """
    known(objectives[0] if objectives else "", SCORES, "first objective", where)
    for objective in objectives[1:]:
        known(objective, COSTS, "further objective", where)
    if len(set(objectives)) < len(objectives):
        raise InputError(f"{where}: {', '.join(objectives)}: each objective is expected once")


def _check_extent(dimension: Dimension, where: str) -> None:
    if isinstance(dimension, Choices):
        if len(dimension.choices) < 2:
            raise InputError(f"{where}: choices = {dimension.choices}: at least two are expected")
        return
    if not dimension.low < dimension.high:
        raise InputError(f"{where}: the range from low = {dimension.low} to high = {dimension.high} is empty")
    if dimension.log and dimension.low <= 0:
        raise InputError(f"{where}: low = {dimension.low}: a logarithmic range begins above 0")


def _one_of(value: Value, choices: list[Value], where: str) -> None:
    # True == 1 in Python, not in a recipe
    if not any(value == c and type(value) is type(c) for c in choices):
        raise InputError(f"{where}: {value!r} is none of the choices {', '.join(map(repr, choices))}")


class Space:
    """A study's space around the recipe that it starts from.

    Args:
        baseline: that recipe.
        dimensions: dotted field -> what it may be, parents first.
        where: the study, for messages.

    Raises:
        InputError: the baseline lies outside, or a value at the border makes no recipe.
    """

    def __init__(self, baseline: Recipe, dimensions: Mapping[str, Dimension], where: str) -> None:
        self.baseline, self.dimensions, self._where = baseline, dimensions, where
        values = dict(flat_fields(baseline.model_dump()))
        self.integers = frozenset(n for n in dimensions if type(values.get(n)) is int)
        self.start = self._start(values)
        self._check_borders()

    def walk(self, suggest: Callable[[str, Dimension], Value]) -> dict[str, Value]:
        """The values of the fields that count, asked for one by one, parents first."""
        params: dict[str, Value] = {}
        for name, dimension in self.dimensions.items():
            if all(params.get(parent) in values for parent, values in dimension.when.items()):
                params[name] = suggest(name, dimension)
        return params

    def recipe(self, params: Mapping[str, Value]) -> Recipe:
        """The recipe with these values.

        Raises:
            InputError: they do not go together.
        """
        recipe = changed_recipe(self.baseline, params, self._where)
        check(recipe.model)
        strategy = strategy_of(recipe.imbalance.strategy)
        if strategy.posthoc or strategy.decoupled:
            raise InputError(f"{self._where}: {strategy.name} starts from a finished run: there is nothing to search")
        check_corrections(strategy)
        return recipe

    def _start(self, values: dict[str, Any]) -> dict[str, Value]:
        """The baseline's own values."""

        def own(name: str, dimension: Dimension) -> Value:
            here = f'{self._where}, space."{name}"'
            if name not in values:
                raise InputError(f"{here}: the baseline has no such field")
            value: Value = values[name]
            if isinstance(dimension, Choices):
                _one_of(value, [_as(value, c) for c in dimension.choices], f"{here}: the baseline's {name}")
            elif isinstance(value, bool | str) or not dimension.low <= value <= dimension.high:
                raise InputError(
                    f"{here}: the baseline's {name} = {value} lies outside {dimension.low} to {dimension.high}"
                )
            return value

        return self.walk(own)

    def _check_borders(self) -> None:
        """Refuse values that no recipe takes now, not in the middle of a study."""
        for name, dimension in self.dimensions.items():
            ends = dimension.choices if isinstance(dimension, Choices) else [dimension.low, dimension.high]
            for value in ends:
                if name in self.integers and type(value) is not int:
                    raise InputError(f'{self._where}, space."{name}": {value!r}: a whole number is expected')
                self.recipe(self.with_parents({name: value}))

    def with_parents(self, params: dict[str, Value]) -> dict[str, Value]:
        """Values, and some of the fields on which these depend, and of those on which those depend."""
        above = {p: v[0] for name in params for p, v in self.dimensions[name].when.items()}
        return {**self.with_parents(above), **params} if above else params


def _as(value: Value, choice: Value) -> Value:
    """A choice as the recipe has it: 0 of a field that takes fractions is 0.0."""
    return float(choice) if type(value) is float and type(choice) is int else choice
