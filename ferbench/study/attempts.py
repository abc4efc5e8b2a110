"""A trial and its attempts: one that was killed or stopped goes on in another, to Optuna a trial of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from ferbench.records.study import Value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

MOST_ATTEMPTS = 3
"""A trial whose process was killed so often is not tried again: it may be what kills it."""
PROPOSED = "proposed"
"""Attribute of a trial whose values are all proposed: they, as Optuna has them."""
BEYOND = "beyond"
"""Attribute of an attempt that was set aside, as its trial was over the limit."""
_SLOT, _ATTEMPT, _BEFORE = "slot", "attempt", "seconds_before"
"""Attributes of a trial: the number of its first attempt, which attempt it is, and the seconds of those before."""


def slot(trial: FrozenTrial | Trial) -> int:
    """The number of the trial of which this is an attempt."""
    number: int = trial.user_attrs.get(_SLOT, trial.number)
    return number


def params_of(trial: FrozenTrial) -> dict[str, Value]:
    """The values with which a trial is trained."""
    params: dict[str, Value] = trial.params or trial.system_attrs.get("fixed_params", {})
    return rounded(params, trial.distributions)


def rounded(params: Mapping[str, Value], drawn_from: Mapping[str, BaseDistribution]) -> dict[str, Value]:
    """Values, those from a range of fractions with four digits: more decide nothing, and recipes are read by people."""
    return {name: _rounded(value, drawn_from.get(name)) for name, value in params.items()}


def _rounded(value: Value, drawn_from: BaseDistribution | None) -> Value:
    if not isinstance(drawn_from, FloatDistribution):
        return value
    return min(max(float(f"{value:.4g}"), drawn_from.low), drawn_from.high)


def attempt_of(trial: FrozenTrial | Trial) -> int:
    """From 1, which attempt of the trial this is."""
    number: int = trial.user_attrs.get(_ATTEMPT, 1)
    return number


def seconds_before(trial: FrozenTrial | Trial) -> float:
    """Of attempts before this one."""
    return float(trial.user_attrs.get(_BEFORE, 0.0))


def seconds(trial: FrozenTrial) -> float:
    """How long its device was at it, earlier attempts included; of one at work, until now."""
    if "seconds" in trial.user_attrs:
        return float(trial.user_attrs["seconds"])
    started = trial.datetime_start
    if trial.state != TrialState.RUNNING or started is None:
        return seconds_before(trial)
    # Optuna's times are local and do not say so
    sitting = (datetime.now(UTC) - started.astimezone(UTC)).total_seconds()
    return seconds_before(trial) + max(sitting, 0.0)


def retry(study: Study, trial: FrozenTrial) -> None:
    """Queue another attempt of a trial whose process died, unless it has one, had too many, or is over the limit."""
    if trial.user_attrs.get(BEYOND):
        return
    number, attempt = slot(trial), attempt_of(trial) + 1
    later = any(slot(t) == number and t.number > trial.number for t in study.get_trials(deepcopy=False))
    if not later and attempt <= MOST_ATTEMPTS:
        # what it did not come to propose is proposed again, from the same seed
        params = trial.user_attrs.get(PROPOSED, trial.system_attrs.get("fixed_params", {}))
        queue(study, params, number, attempt, seconds_before(trial))


def queue(study: Study, params: dict[str, Value], number: int, attempt: int, seconds_before: float) -> None:
    """Have a trial's next attempt be the study's next trial."""
    study.enqueue_trial(params, user_attrs={_SLOT: number, _ATTEMPT: attempt, _BEFORE: seconds_before})
