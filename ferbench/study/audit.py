"""What pruning saved and what it missed: pruned trials, gone on with to their end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ferbench.errors import InputError
from ferbench.listener import TrialListener
from ferbench.records.study import TrialRow, best_of
from ferbench.study.plan import StudyPlan
from ferbench.study.read import row_of
from ferbench.workers import Workers, death


@dataclass
class _Rest:
    """A pruned trial at work again."""

    row: TrialRow
    device: str
    began: float
    curve: list[float] = field(default_factory=list)
    ended: bool = False


def finish_pruned(plan: StudyPlan, listener: TrialListener) -> bool:
    """Whether the pruned trials of a study have been trained to their end, from their checkpoints where they were kept.

    Their curves are noted beside the study, which learns nothing from them. A trial that diverges has come to its end;
    one that fails or whose worker is killed, as where memory is short, is left for another time.

    Raises:
        InputError: a device is not there.
    """
    ledger, all_ended = plan.ledger, True
    rows, noted = [row_of(t) for t in ledger.trials()], ledger.unpruned
    todo = [r for r in rows if r.state == "pruned" and r.reason is None and str(r.number) not in noted]
    with Workers[_Rest](plan.environment()) as workers:
        while todo or workers.at_work:
            while todo and len(workers.at_work) < plan.workers:
                row = todo.pop(0)
                listener.on_trial(row.number, row.params, row.attempts)
                device = plan.free_device(rest.device for rest in workers.at_work)
                log = plan.trial_folder(row.number) / "worker.log"
                workers.start(plan.job(row.number, row.params, device), log, _Rest(row, device, time.monotonic()))
            for worker, event in workers.hear():
                rest, facts = worker.task, event or {"event": "failed", "reason": death(worker.exit_code)}
                said = facts.pop("event")
                if rest.ended:
                    continue
                if said == "refused":
                    raise InputError(facts["reason"])
                if said in ("failed", "pruned"):
                    rest.ended = True
                    if said == "pruned":
                        ledger.note_unpruned(rest.row.number, rest.curve, None)
                    else:
                        all_ended = False
                    told = {"state": "failed", "reason": facts["reason"]}
                    listener.on_trial_end(rest.row.model_copy(update=told), best_of(rows))
                elif said == "epoch":
                    rest.curve.append(facts[f"val_{ledger.spec.objectives[0]}"])
                    listener.on_trial_epoch(rest.row.number, facts)
                    worker.tell("go")
                elif said == "done":
                    rest.ended = True
                    ledger.note_unpruned(rest.row.number, rest.curve, facts["values"][0])
                    seconds = round(time.monotonic() - rest.began, 1)
                    done = {"state": "complete", "curve": rest.curve, "seconds": seconds, **facts}
                    listener.on_trial_end(rest.row.model_copy(update=done), best_of(rows))
    return all_ended
