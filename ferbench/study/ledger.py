"""A study as its storage has it: which trials there are, what the next one is, and what became of each."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from ferbench.environment import stream_seed
from ferbench.records.record import utc_now
from ferbench.records.stored import StoredT, from_json
from ferbench.records.study import Choices, Dimension, Limit, Promotion, StudySpec, Value, direction
from ferbench.study.attempts import (
    BEYOND,
    MOST_ATTEMPTS,
    PROPOSED,
    attempt_of,
    queue,
    retry,
    rounded,
    seconds,
    seconds_before,
    slot,
)
from ferbench.study.search import pruner_of, sampler_of
from ferbench.study.storage import Keeper, quiet

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

    from ferbench.study.space import Space

_SPEC, _LIMIT, _READY, _UNPRUNED, _PLACES, _PROMOTION = (
    "spec", "limit", "ready", "unpruned", "environments", "promotion",
)  # fmt: skip
"""Attributes of a study."""
_LONGEST_MAKING = 10.0
"""Seconds that making a study may take."""


@dataclass(frozen=True)
class Asked:
    """A trial that is to be trained now."""

    trial: Trial
    slot: int
    """The trial's number; the number in the storage is the attempt's."""
    attempt: int
    params: dict[str, Value]
    seconds_before: float
    """Of earlier attempts."""


class Ledger:
    """One study in its storage.

    Args:
        study: as Optuna has it.
        spec: as it is stored in there.
    """

    def __init__(self, study: Study, spec: StudySpec, keeper: Keeper) -> None:
        self.study, self.spec, self._keeper = study, spec, keeper
        study.pruner = pruner_of(spec)

    @property
    def name(self) -> str:
        """The study's."""
        return self.study.study_name

    @property
    def poll_seconds(self) -> float:
        """How often to look again at the trials of other processes."""
        return self._keeper.poll_seconds

    @property
    def limit(self) -> Limit:
        """How much the study may use."""
        return _read(Limit, self.study, _LIMIT)

    def set_limit(self, limit: Limit) -> None:
        """Change how much it may use."""
        self.study.set_user_attr(_LIMIT, limit.model_dump_json())

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Where trials ran, as `records.record.Environment`."""
        return list(self.study.user_attrs.get(_PLACES, []))

    def note_environment(self, place: dict[str, Any]) -> None:
        """Remember where a trial runs."""
        if place not in (known := self.environments):
            self.study.set_user_attr(_PLACES, [*known, place])

    @property
    def unpruned(self) -> dict[str, dict[str, Any]]:
        """Trial number -> `curve` and `value` of a pruned trial that was gone on with."""
        attributes, start = self.study.user_attrs, f"{_UNPRUNED}:"
        # older audits kept all in one attribute, where two at once could lose what the other had found
        found = dict(attributes.get(_UNPRUNED, {}))
        return found | {name.removeprefix(start): v for name, v in attributes.items() if name.startswith(start)}

    def note_unpruned(self, number: int, curve: list[float], value: float | None) -> None:
        """Remember the whole curve of a pruned trial, and its value unless it diverged on the way."""
        self.study.set_user_attr(f"{_UNPRUNED}:{number}", {"curve": curve, "value": value})

    @property
    def promotion(self) -> Promotion | None:
        """The last one that was written, or else tried."""
        return _read(Promotion, self.study, _PROMOTION) if _PROMOTION in self.study.user_attrs else None

    def note_promotion(self, promotion: Promotion) -> None:
        """Remember that a trial was trained again; one whose recipe was written is only forgotten for another such."""
        # None: from before that was recorded
        if promotion.is_recipe or self.promotion is None or self.promotion.is_recipe is False:
            self.study.set_user_attr(_PROMOTION, promotion.model_dump_json())

    def trials(self) -> list[FrozenTrial]:
        """The last attempt of each trial, by the trial's number."""
        trials = self.study.get_trials(deepcopy=False)
        last = {slot(t): t for t in trials if not t.user_attrs.get(BEYOND)}
        return [last[number] for number in sorted(last)]

    def ask(self, space: Space) -> Asked | None:
        """The next trial, now held by this process; None: the limit is reached, or all that is left is at work.

        The proposal depends on the trials so far and their number alone, so that a study that was stopped goes on as
        if it had not been.
        """
        with self._keeper.asking():
            if not self._is_next():
                return None
            with quiet():
                trial = self.study.ask()
            self._keeper.hold(trial)
        number = slot(trial)
        trials = self.trials()
        rank = [slot(t) for t in trials].index(number)
        if self._is_beyond(rank):
            is_new = trial.number == number
            if not is_new:
                # begun under a higher limit, it waits for another such; first, as whoever dies here must not lose it
                params = trials[rank].system_attrs["fixed_params"]
                queue(self.study, params, number, attempt_of(trial), seconds_before(trial))
            trial.set_user_attr(BEYOND, True)
            self._tell(trial, state=TrialState.FAIL)
            return None if is_new else self.ask(space)
        # not before `ask`, when another machine may see the same rank; Optuna draws when a value is suggested
        self.study.sampler = sampler_of(self.spec, stream_seed(self.spec.seed, f"trial {rank}") % 2**32)
        params = space.walk(lambda name, dimension: _suggest(trial, name, dimension, name in space.integers))
        trial.set_user_attr(PROPOSED, params)
        return Asked(trial, number, attempt_of(trial), rounded(params, trial.distributions), seconds_before(trial))

    def has_next(self) -> bool:
        """Whether there is a trial to ask for now."""
        with self._keeper.asking():
            return self._is_next()

    def _is_next(self) -> bool:
        self._keeper.bury(self.study, retry)
        trials = self.trials()
        waiting = any(t.state == TrialState.WAITING and not self._is_beyond(i) for i, t in enumerate(trials))
        return waiting or self._spent(trials) < self.limit.amount

    def _spent(self, trials: list[FrozenTrial]) -> float:
        unit = self.limit.unit
        if unit == "trials":
            return len(trials)
        if unit == "epochs":
            # what is at work is counted as if it went to the end
            running = sum(t.state == TrialState.RUNNING for t in trials)
            # a trial that fails at once counts as one epoch, so that a study of nothing else ends too
            ended = sum(max(len(t.user_attrs.get("curve", ())), 1) for t in trials if t.state.is_finished())
            return running * self.spec.epochs + ended
        return sum(seconds(t) for t in trials)

    def _is_beyond(self, rank: int) -> bool:
        """Whether a trial with so many before it is over the limit: processes asked at once, or it was higher."""
        return self.limit.unit == "trials" and rank >= self.limit.amount

    def is_over(self) -> bool:
        """Whether every trial has ended, here and elsewhere, and the limit is reached."""
        trials = self.trials()
        left = [i for i, t in enumerate(trials) if not t.state.is_finished()]
        ended = all(trials[i].state == TrialState.WAITING and self._is_beyond(i) for i in left)
        return ended and self._spent(trials) >= self.limit.amount

    def should_prune(self, asked: Asked, epoch: int, value: float) -> bool:
        """Whether the trial has shown enough after an epoch; `value` is the first objective then."""
        self._keeper.beat()
        if self.is_lost(asked):
            return True
        if len(self.spec.objectives) > 1:
            return False
        with quiet():
            asked.trial.report(value, epoch - 1)
            return asked.trial.should_prune()

    def beat(self) -> None:
        """The trials of this process are still at work."""
        self._keeper.beat()

    def complete(self, asked: Asked, values: list[float], facts: dict[str, Any]) -> None:
        """The trial ran to its end."""
        self._end(asked, facts, values=values)

    def prune(self, asked: Asked, facts: dict[str, Any]) -> None:
        """The trial was stopped as hopeless."""
        self._end(asked, facts, state=TrialState.PRUNED)

    def fail(self, asked: Asked, reason: str, facts: dict[str, Any]) -> None:
        """The trial cannot be trained, and would fail again."""
        self._end(asked, {**facts, "reason": reason}, state=TrialState.FAIL)

    def hand_back(self, asked: Asked, reason: str, seconds: float, *, killed: bool) -> str | None:
        """Queue the trial again, to go on from its checkpoint; what kills its worker again and again fails, and why."""
        if self.is_lost(asked):
            self._keeper.release(asked.trial)
            return None
        if killed and asked.attempt >= MOST_ATTEMPTS:
            reason = f"{reason}, {asked.attempt} times"
            self.fail(asked, reason, {"seconds": seconds})
            return reason
        queue(self.study, asked.trial.params, asked.slot, asked.attempt + killed, seconds)
        self._tell(asked.trial, state=TrialState.FAIL)
        return None

    def _end(self, asked: Asked, facts: dict[str, Any], **outcome: Any) -> None:
        # another machine may have taken it for dead, and another attempt be at work: what comes of this one is void
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            for name, value in facts.items():
                asked.trial.set_user_attr(name, value)
        self._tell(asked.trial, **outcome)

    def _tell(self, trial: Trial, **outcome: Any) -> None:
        try:
            with quiet():
                self.study.tell(trial, **outcome, skip_if_finished=True)
        finally:
            self._keeper.release(trial)

    def is_lost(self, asked: Asked) -> bool:
        """Whether another machine has taken the trial for dead, so that nothing can come of it here."""
        return self.study.get_trials(deepcopy=False)[asked.trial.number].state != TrialState.RUNNING


def open_or_create(
    storage: BaseStorage, name: str, spec: StudySpec, limit: Limit, start: dict[str, Value], keeper: Keeper
) -> Ledger:
    """The study of that name, made if there is none, its baseline queued as trial 0.

    What a process has left half made is made whole; the spec of one that is there is its own.
    """
    with keeper.asking(), quiet():
        try:
            study = optuna.create_study(
                storage=storage, study_name=name, directions=[direction(o) for o in spec.objectives]
            )
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name)
            _wait_until_ready(study, keeper)
        if _READY not in study.user_attrs:
            study.set_user_attr(_SPEC, spec.model_dump_json())
            study.set_user_attr(_LIMIT, limit.model_dump_json())
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(start)
            study.set_user_attr(_READY, utc_now())
    return Ledger(study, _read(StudySpec, study, _SPEC), keeper)


def _wait_until_ready(study: Study, keeper: Keeper) -> None:
    """Wait while another machine may be making the study; on this one nobody is, in an `asking` block."""
    end = time.monotonic() + (0 if keeper.is_exclusive else _LONGEST_MAKING)
    while _READY not in study.user_attrs and time.monotonic() < end:
        time.sleep(0.1)


def open_ledger(storage: BaseStorage, name: str, keeper: Keeper) -> Ledger | None:
    """A study that is there; None: it is not, or not yet whole."""
    with quiet():
        try:
            study = optuna.load_study(storage=storage, study_name=name)
        except KeyError:
            return None
    if _READY not in study.user_attrs:
        return None
    return Ledger(study, _read(StudySpec, study, _SPEC), keeper)


def _read(kind: type[StoredT], study: Study, name: str) -> StoredT:
    return from_json(kind, study.user_attrs[name], f"study {study.study_name}, {name}")


def _suggest(trial: Trial, name: str, dimension: Dimension, is_integer: bool) -> Value:
    if isinstance(dimension, Choices):
        chosen: Value = trial.suggest_categorical(name, dimension.choices)  # type: ignore[assignment]
        return chosen
    if is_integer:
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
