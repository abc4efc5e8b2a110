"""The stored schema of an ensemble: which runs it averages, how they were chosen, what it scores and costs."""

from __future__ import annotations

import hashlib
import json
from typing import Final, Literal

from ferbench.evaluation.metrics import Scores
from ferbench.records.stored import Stored
from ferbench.spec import Budget, DataKey

SCHEMA_VERSION: Final = 1


class Member(Stored):
    """A run in an ensemble."""

    run: str
    """Its id."""
    weight: int
    """How often it was chosen; probabilities are averaged with these weights."""


class EnsembleRecord(Stored):
    """One ensemble of runs on the same data under the same budget."""

    schema_version: Literal[1] = SCHEMA_VERSION
    data: DataKey
    budget: Budget
    candidates: list[str]
    """Ids of the runs from which val chose."""
    metric: str
    """The val score that chose the members."""
    members: list[Member]
    """The most weighty first."""
    path: list[float]
    """Val score after each choice, as far as the best."""
    scores: dict[str, Scores]
    """As in a run's record."""
    finished_at: str
    """UTC, ISO 8601."""
    ferbench: str
    commit: str | None

    @property
    def id(self) -> str:
        """Number of networks and a hash of what decides the predictions."""
        chosen = [self.data.model_dump(), self.budget.model_dump(), [m.model_dump() for m in self.members]]
        digest = hashlib.blake2b(json.dumps(chosen, sort_keys=True).encode(), digest_size=4).hexdigest()
        return f"ensemble{len(self.members)}-{digest}"
