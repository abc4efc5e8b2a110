"""Time to an accuracy: the number that counts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ferbench.environment import choose_device, describe, process_age
from ferbench.errors import RunFailedError
from ferbench.jobs import run_many
from ferbench.listener import Silence
from ferbench.plan import Plan
from ferbench.records.bench import BenchRecord, BenchRow, rounded
from ferbench.records.record import Environment, RunRecord, utc_now
from ferbench.records.store import Store

if TYPE_CHECKING:
    from ferbench.spec import RunSpec


class _Reached(Exception):
    """No error: the target."""


@dataclass
class _Clock(Silence):
    """Takes the time of every epoch's end, and stops at the target."""

    target: float
    start: float
    """Age of the process that is taken for its birth."""
    seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    reason: str = ""

    def on_epoch(self, spec: RunSpec, row: dict[str, Any]) -> None:
        self.seconds.append(process_age() - self.start)
        self.accuracy.append(row["val_accuracy"])
        # while images grow, val has their size, and no such epoch could be chosen
        if row["val_accuracy"] >= self.target and row["input_size"] == spec.recipe.model.input_size:
            raise _Reached

    def on_end(self, spec: RunSpec, record: RunRecord | None) -> None:
        self.reason = (record and record.reason) or ""


def measure_time_to_accuracy(plan: Plan, spec: RunSpec, target: float, start: float = 0.0) -> BenchRecord:
    """Val accuracy after each epoch and the seconds since this process started, up to the target.

    The run is `ferbench run`'s own, in a folder that is thrown away; where the target is reached, test is never seen.

    Args:
        start: age of this process in seconds from which on it is counted.

    Raises:
        RunFailedError: the run failed.
    """
    clock = _Clock(target, start)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_many(replace(plan, specs=(spec,), store=Store(folder)), clock)
            if clock.reason:
                raise RunFailedError(clock.reason)
            note = "not reached"
        except _Reached:
            note = "reached"
    samples = {"s": rounded(clock.seconds), "val accuracy": rounded(clock.accuracy)}
    return BenchRecord(
        suite="accuracy",
        subject=spec.id,
        finished_at=utc_now(),
        environment=Environment(**describe(choose_device(plan.device))),
        settings={"target": target, "epochs": spec.epochs, "batch size": spec.batch_size, "data": spec.data.name},
        rows=[BenchRow(name=spec.id, samples=samples, note=note)],
    )
