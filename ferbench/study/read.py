"""Rows and records out of a study's storage."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from ferbench.records.record import Environment, utc_now
from ferbench.records.study import StudyRecord, TrialRow
from ferbench.study.attempts import MOST_ATTEMPTS, attempt_of, params_of, seconds, slot
from ferbench.study.ledger import Ledger
from ferbench.toml import validated

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from ferbench.records.store import Store

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
FEWEST_FOR_IMPORTANCE = 5
"""Completed trials."""


def row_of(trial: FrozenTrial, unpruned: dict[str, dict[str, Any]] | None = None) -> TrialRow:
    """A trial, given by its last attempt."""
    facts, attempt = trial.user_attrs, attempt_of(trial)
    whole = (unpruned or {}).get(str(slot(trial)), {})
    reason = facts.get("reason")
    if trial.state == TrialState.FAIL and reason is None:
        reason = f"its process was killed {attempt} times" if attempt >= MOST_ATTEMPTS else "its process was killed"
    return TrialRow.model_validate(
        {
            "number": slot(trial),
            "state": STATES[trial.state],
            "params": params_of(trial),
            "values": trial.values if trial.state == TrialState.COMPLETE else [],
            "curve": facts.get("curve", []),
            "best_epoch": facts.get("best_epoch"),
            "seconds": round(seconds(trial), 1),
            "attempts": attempt,
            "reason": reason,
            "unpruned": whole.get("curve"),
            "unpruned_value": whole.get("value"),
        }
    )


def read_study(name: str, ledger: Ledger) -> StudyRecord:
    """The record of a study as its storage has it now."""
    unpruned = ledger.unpruned
    return StudyRecord(
        name=name,
        spec=ledger.spec,
        limit=ledger.limit,
        trials=[row_of(t, unpruned) for t in ledger.trials()],
        importances=_importances(ledger),
        environments=[validated(Environment, e, f"study {name}, environments") for e in ledger.environments],
        promotion=ledger.promotion,
        finished_at=utc_now(),
    )


def _importances(ledger: Ledger) -> dict[str, dict[str, float]]:
    """How much of the first objective each field explains over the completed trials, by two evaluators."""
    done = ledger.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < FEWEST_FOR_IMPORTANCE or len({t.values[0] for t in done}) == 1:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    evaluators = {
        "ped_anova": PedAnovaImportanceEvaluator(),
        "fanova": FanovaImportanceEvaluator(seed=ledger.spec.seed),
    }
    # PED-ANOVA asks what makes a value small, unless it can see for itself which way is better
    target = None if len(ledger.spec.objectives) == 1 else lambda t: -t.values[0]
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, evaluator in evaluators.items():
            shares = get_param_importances(ledger.study, evaluator=evaluator, target=target)
            found[name] = {field: round(share, 4) for field, share in shares.items()}
    return found


def write_study(store: Store, name: str, ledger: Ledger) -> StudyRecord:
    """The record of a study, now stored."""
    record = read_study(name, ledger)
    store.write_study(record)
    return record
