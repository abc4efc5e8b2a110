"""What pruning saved and what it missed: pruned trials, gone on with to their end."""

from __future__ import annotations

import fcntl
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ferbench.errors import InputError
from ferbench.listener import TrialListener
from ferbench.records.store import CHECKPOINT
from ferbench.records.study import TrialRow, best_of
from ferbench.study.plan import StudyPlan
from ferbench.study.read import row_of
from ferbench.workers import Worker, Workers, death

_PATIENCE = 0.5
"""Seconds between looks at a trial that another audit is at."""


@dataclass
class _Rest:
    """A pruned trial at work again."""

    row: TrialRow
    device: str
    began: float
    lock: ExitStack
    """Held until it has ended."""
    curve: list[float] = field(default_factory=list)
    ended: bool = False


def finish_pruned(plan: StudyPlan, listener: TrialListener) -> bool:
    """Whether the pruned trials of a study have been trained to their end, from their checkpoints where they were kept.

    Their curves are noted beside the study, which learns nothing from them. A trial that diverges has come to its end;
    one that fails or whose worker is killed, as where memory is short, is left for another time, and one that another
    audit on this machine is at is waited for.

    Raises:
        InputError: a device is not there.
    """
    with ExitStack() as locks, Workers[_Rest](plan.environment()) as workers:
        audit = _Audit(plan, listener, locks)
        while audit.fill(workers) or workers.at_work or audit.wait():
            for worker, event in workers.hear(_PATIENCE):
                if not worker.task.ended:
                    # one that is killed cannot say so
                    facts = event or {"event": "failed", "reason": death(worker.exit_code)}
                    audit.hear(worker, facts.pop("event"), facts)
        return audit.all_ended


class _Audit:
    def __init__(self, plan: StudyPlan, listener: TrialListener, locks: ExitStack) -> None:
        self._plan, self._ledger, self._listener, self._locks = plan, plan.ledger, listener, locks
        self._rows = [row_of(t) for t in plan.ledger.trials()]
        self._todo = [r for r in self._rows if r.state == "pruned" and r.reason is None and not self._is_noted(r)]
        self._waited_for: list[int] = []
        self.all_ended = True

    def _is_noted(self, row: TrialRow) -> bool:
        return str(row.number) in self._ledger.unpruned

    def fill(self, workers: Workers[_Rest]) -> bool:
        """Have trials gone on with while there are places and trials; whether any was."""
        any_started = False
        for row in list(self._todo):
            if len(workers.at_work) >= self._plan.workers:
                break
            folder, lock = self._plan.trial_folder(row.number), ExitStack()
            if not _is_locked(folder, lock):
                continue
            self._locks.enter_context(lock)
            self._todo.remove(row)
            # another audit may have noted it since the trials were listed
            if self._is_noted(row):
                lock.close()
                continue
            self._listener.on_trial(row.number, row.params, row.attempts)
            device = self._plan.free_device(rest.device for rest in workers.at_work)
            job = self._plan.job(row.number, row.params, device)
            workers.start(job, folder / "worker.log", _Rest(row, device, time.monotonic(), lock))
            any_started = True
        return any_started

    def wait(self) -> bool:
        """Whether other audits are still at trials of this study."""
        if not self._todo:
            return False
        others = [row.number for row in self._todo]
        if others != self._waited_for:
            self._waited_for = others
            self._listener.on_wait(others)
        return True

    def hear(self, worker: Worker[_Rest], said: str, facts: dict[str, Any]) -> None:
        """See to what a worker says."""
        rest = worker.task
        if said == "refused":
            raise InputError(facts["reason"])
        if said == "epoch":
            rest.curve.append(facts[f"val_{self._ledger.spec.objectives[0]}"])
            self._listener.on_trial_epoch(rest.row.number, facts)
            worker.tell("go")
        elif said == "done":
            seconds = round(time.monotonic() - rest.began, 1)
            self._end(rest, {"state": "complete", "curve": rest.curve, "seconds": seconds, **facts}, facts["values"][0])
        elif said in ("failed", "pruned"):
            self._end(rest, {"state": "failed", "reason": facts["reason"]}, None, has_failed=said == "failed")

    def _end(self, rest: _Rest, told: dict[str, Any], value: float | None, *, has_failed: bool = False) -> None:
        rest.ended = True
        if has_failed:
            self.all_ended = False
        else:
            self._ledger.note_unpruned(rest.row.number, rest.curve, value)
            (self._plan.trial_folder(rest.row.number) / CHECKPOINT).unlink(missing_ok=True)
        rest.lock.close()
        self._listener.on_trial_end(rest.row.model_copy(update=told), best_of(self._rows))


def _is_locked(folder: Path, until: ExitStack) -> bool:
    """Whether this process now holds a trial's folder, until the end of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    file = until.enter_context((folder / ".lock").open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        until.close()
        return False
    return True
