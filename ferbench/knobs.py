"""The numbers that imbalance strategies take: their values in baselines/strategies.toml, and what they may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ferbench.errors import InputError
from ferbench.recipe import Below1, Fraction, ImbalanceRecipe, NonNegative, Positive
from ferbench.spec import AND
from ferbench.toml import known, read_toml, shared_toml, shipped, validated

_STRATEGIES = shipped("baselines", "strategies.toml")


def strategy_defaults() -> dict[str, dict[str, float]]:
    """Every strategy's knobs, by strategy."""
    return read_toml(_STRATEGIES)


def strategy_knobs(name: str, where: str = "") -> dict[str, float]:
    """The knobs of a strategy, or of several with + between their names.

    Raises:
        InputError: one is unknown, or two have a knob of the same name.
    """
    defaults, knobs = shared_toml(_STRATEGIES), dict[str, float]()
    for part in name.split(AND):
        known(part, defaults, "strategy", where)
        if twice := knobs.keys() & defaults[part].keys():
            raise InputError(f"strategy {name}: several of its parts have a knob {min(twice)}")
        knobs |= defaults[part]
    return knobs


class _Knobs(BaseModel):
    """What knobs may be, whatever the strategy that has them. Meanings: baselines/strategies.toml."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    alpha: Positive | None = None
    beta: Below1 | None = None
    clip: NonNegative | None = None
    gamma: NonNegative | None = None
    head: Below1 | None = None
    kappa: Annotated[float, Field(ge=1)] | None = None
    lr: Positive | None = None
    max_margin: NonNegative | None = None
    most: NonNegative | None = None
    p: NonNegative | None = None
    power: float | None = None
    q: NonNegative | None = None
    scale: Positive | None = None
    share: Fraction | None = None
    smoothing: Fraction | None = None
    stage: Positive | None = None
    start: Fraction | None = None
    tail: Below1 | None = None
    tau: NonNegative | None = None
    threshold: Fraction | None = None
    weight: NonNegative | None = None


def check_knobs(imbalance: ImbalanceRecipe, where: str) -> None:
    """Refuse knobs that the strategy does not have, or that are out of range, and miss none of its own.

    Raises:
        InputError: a knob is unknown, out of range or missing.
    """
    knobs = strategy_knobs(imbalance.strategy, where)
    for knob in imbalance.params:
        known(knob, knobs, f"knob of strategy {imbalance.strategy}", where)
    validated(_Knobs, imbalance.params, f"{where}, imbalance.params")
    for knob in knobs:
        if knob not in imbalance.params:
            raise InputError(f"{where}: field 'imbalance.params.{knob}' is missing")
