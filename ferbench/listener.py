"""Who is told how runs and trials go: `jobs` and `study` tell, `progress` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ferbench.records.record import RunRecord
    from ferbench.records.study import TrialRow, Value
    from ferbench.spec import RunSpec


class Listener(Protocol):
    """Somebody to tell how the runs go; of several at once the events come in turn."""

    def on_start(self, spec: RunSpec, images: int) -> None:
        """A run starts; an epoch has `images` training images."""

    def on_note(self, spec: RunSpec, text: str) -> None:
        """A line about the run that a person may want to read."""

    def on_batch(self, spec: RunSpec, epoch: int, images: int) -> None:
        """`images` of the epoch are through."""

    def on_epoch(self, spec: RunSpec, row: dict[str, Any]) -> None:
        """An epoch has ended, now or before the run was stopped; fields as in `EpochRow`."""

    def on_end(self, spec: RunSpec, record: RunRecord | None) -> None:
        """A run has ended; None: another process is at it."""


class Silence:
    """A listener that tells nobody."""

    def on_start(self, spec: RunSpec, images: int) -> None:
        """Nothing."""

    def on_note(self, spec: RunSpec, text: str) -> None:
        """Nothing."""

    def on_batch(self, spec: RunSpec, epoch: int, images: int) -> None:
        """Nothing."""

    def on_epoch(self, spec: RunSpec, row: dict[str, Any]) -> None:
        """Nothing."""

    def on_end(self, spec: RunSpec, record: RunRecord | None) -> None:
        """Nothing."""


class TrialListener(Protocol):
    """Somebody to tell how a study goes; of several trials at once the events come in turn."""

    def on_trial(self, number: int, params: dict[str, Value], attempt: int) -> None:
        """A trial starts, or goes on if it was begun before."""

    def on_trial_epoch(self, number: int, row: dict[str, Any]) -> None:
        """An epoch has ended, now or before the trial was stopped; fields as in `EpochRow`."""

    def on_trial_end(self, trial: TrialRow, best: TrialRow | None) -> None:
        """A trial has ended, or its worker has and it is tried again; `best` is the study's best so far."""

    def on_wait(self, numbers: list[int]) -> None:
        """Nothing is left but trials that other processes are at."""
