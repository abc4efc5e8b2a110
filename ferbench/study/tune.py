"""The loop of a study: ask for trials, have workers train them, prune, and tell what became of each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ferbench.errors import InputError, RunFailedError
from ferbench.listener import TrialListener
from ferbench.records.store import CHECKPOINT
from ferbench.records.study import best_of
from ferbench.study.ledger import Asked
from ferbench.study.plan import StudyPlan
from ferbench.study.read import row_of
from ferbench.workers import Worker, Workers, death

MOST_FAILURES = 5
"""Trials in a row after which a study gives up."""
_LONGEST_SILENCE = 5.0
"""Seconds after which held trials show that they are still at work."""


@dataclass
class _AtWork:
    """A trial and what its worker has said of it."""

    asked: Asked
    epochs: int
    """Of the trial if it is not pruned."""
    device: str
    began: float
    curve: list[float] = field(default_factory=list)
    ended: bool = False


def tune(plan: StudyPlan, listener: TrialListener, *, keep_pruned: bool = False) -> int:
    """Have a study go on until its limit is reached and no trial is at work, here or elsewhere; how many failed here.

    A worker that is killed costs its trial the epoch that it was in. What ends this function, Ctrl-C too, hands its
    trials back, to be gone on with.

    Args:
        keep_pruned: whether checkpoints of pruned trials stay, for `audit.finish_pruned`.

    Raises:
        InputError: a device is not there.
        RunFailedError: one trial after the other failed.
    """
    loop = _Loop(plan, listener, keep_pruned)
    with Workers[_AtWork](plan.environment()) as workers:
        try:
            while loop.fill(workers) or workers.at_work or loop.wait():
                loop.listen(workers)
        finally:
            loop.hand_back(workers)
    return loop.failures


class _Loop:
    def __init__(self, plan: StudyPlan, listener: TrialListener, keep_pruned: bool) -> None:
        self._plan, self._ledger, self._listener, self._keep = plan, plan.ledger, listener, keep_pruned
        self._has_begun, self.failures, self._in_a_row = False, 0, 0
        self._waited_for: list[int] = []

    def fill(self, workers: Workers[_AtWork]) -> bool:
        """Start trials while there are places and trials; whether any was started."""
        any_started = False
        if not self._has_begun:
            if not self._ledger.has_next():
                return False
            self._probe(workers)
        while len(workers.at_work) < self._plan.workers and (asked := self._ledger.ask(self._plan.space)):
            any_started = True
            try:
                self._start(asked, workers)
            except BaseException:
                self._ledger.hand_back(asked, "stopped", asked.seconds_before, killed=False)
                raise
        return any_started

    def _probe(self, workers: Workers[_AtWork]) -> None:
        """Have what trials compute in timed, before one is held: it takes longer than a heartbeat may be late."""
        if self._plan.workers > 1:
            for job in self._plan.probes():
                workers.probe(job, self._plan.trial_folder(0) / "worker.log")
        self._has_begun = True

    def _start(self, asked: Asked, workers: Workers[_AtWork]) -> None:
        self._listener.on_trial(asked.slot, asked.params, asked.attempt)
        device = self._plan.free_device(task.device for task in workers.at_work)
        try:
            job = self._plan.job(asked.slot, asked.params, device)
        except InputError as error:
            self._ledger.fail(asked, str(error), {"seconds": asked.seconds_before})
            self._tell_end(asked)
            self._count(str(error))
            return
        log = self._plan.trial_folder(asked.slot) / "worker.log"
        workers.start(job, log, _AtWork(asked, job.spec.epochs, device, time.monotonic()))

    def _count(self, failure: str | None) -> None:
        """Give up where trial after trial fails: the fault is not the trials'."""
        if failure is None:
            self._in_a_row = 0
            return
        self.failures += 1
        self._in_a_row += 1
        if self._in_a_row >= MOST_FAILURES:
            raise RunFailedError(
                f"{self._plan.name}: {self._in_a_row} trials failed one after the other, the last: {failure}"
            )

    def listen(self, workers: Workers[_AtWork]) -> None:
        """Wait until workers say something, and see to it."""
        if not workers.at_work:
            return
        for worker, event in workers.hear(_LONGEST_SILENCE):
            if event is not None:
                self._hear(worker, event.pop("event"), event)
            elif not worker.task.ended:
                task = worker.task
                failure = self._ledger.hand_back(task.asked, death(worker.exit_code), self._spent(task), killed=True)
                task.ended = True
                self._tell_end(task.asked)
                if failure is not None:
                    self._forget_checkpoint(task)
                    self._count(failure)
        self._ledger.beat()

    def _hear(self, worker: Worker[_AtWork], said: str, facts: dict[str, Any]) -> None:
        task = worker.task
        if said == "refused":
            raise InputError(facts["reason"])
        if said == "started":
            self._ledger.note_environment(facts["environment"])
        elif said == "epoch":
            value = facts[f"val_{self._ledger.spec.objectives[0]}"]
            task.curve.append(value)
            self._listener.on_trial_epoch(task.asked.slot, facts)
            hopeless = self._ledger.should_prune(task.asked, facts["epoch"], value)
            # after the last epoch there is nothing to save
            worker.tell("prune" if hopeless and facts["epoch"] < task.epochs else "go")
        elif said in ("done", "pruned", "failed"):
            self._end(task, said, facts)

    def _end(self, task: _AtWork, said: str, facts: dict[str, Any]) -> None:
        # the checkpoint is then that of another attempt
        is_lost = self._ledger.is_lost(task.asked)
        known = {"curve": task.curve, "seconds": self._spent(task)}
        if said == "done":
            values = facts.pop("values")
            self._ledger.complete(task.asked, values, {**known, **facts})
        elif said == "pruned":
            self._ledger.prune(task.asked, {**known, **{k: v for k, v in facts.items() if v}})
        else:
            self._ledger.fail(task.asked, facts["reason"], known)
        task.ended = True
        # one that diverged is not gone on with
        is_kept = said == "pruned" and self._keep and not facts.get("reason")
        if not is_lost and not is_kept:
            self._forget_checkpoint(task)
        self._tell_end(task.asked)
        self._count(facts["reason"] if said == "failed" else None)

    def _forget_checkpoint(self, task: _AtWork) -> None:
        (self._plan.trial_folder(task.asked.slot) / CHECKPOINT).unlink(missing_ok=True)

    def _spent(self, task: _AtWork) -> float:
        return task.asked.seconds_before + time.monotonic() - task.began

    def _tell_end(self, asked: Asked) -> None:
        trials = self._ledger.trials()
        rows = [row_of(t) for t in trials]
        row = next(r for r in rows if r.number == asked.slot)
        self._listener.on_trial_end(row, best_of(rows))

    def wait(self) -> bool:
        """Whether other processes are still at trials of this study, after a while of waiting for them."""
        if self._ledger.is_over():
            return False
        others = [t.number for t in map(row_of, self._ledger.trials()) if t.state == "running"]
        if others and others != self._waited_for:
            self._waited_for = others
            self._listener.on_wait(others)
        time.sleep(min(self._ledger.poll_seconds, 5.0))
        return True

    def hand_back(self, workers: Workers[_AtWork]) -> None:
        """Queue again what is still at work: this process is about to end."""
        for task in workers.at_work:
            if not task.ended:
                self._ledger.hand_back(task.asked, "stopped", self._spent(task), killed=False)
