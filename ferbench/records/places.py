"""Where the files of runs and ensembles are, below the results folder."""

from __future__ import annotations

from ferbench.records.ensemble import EnsembleRecord
from ferbench.spec import RunSpec

PREDICTED_SPLITS = ("val", "test")
HONEST = "honest"
"""Predictions on test of the epoch that val would have chosen, beside those of protocol oracle."""


def predicted_splits(spec: RunSpec) -> tuple[str, ...]:
    """Of what a run's predictions are stored."""
    # what is made of an oracle's weights afterwards is of the chosen epoch alone
    is_oracle = spec.data.protocol == "oracle" and spec.trained == spec
    return (*PREDICTED_SPLITS, HONEST) if is_oracle else PREDICTED_SPLITS


def run_place(spec: RunSpec, run: str = "") -> str:
    """The folder of a run below that of the results.

    Args:
        run: the spec's id where it is known, which takes longer to find than all else in the place.
    """
    return f"runs/{spec.data.name}/{spec.budget.name}/{run or spec.id}"


def ensemble_place(record: EnsembleRecord) -> str:
    """The folder of an ensemble below that of the results."""
    return f"ensembles/{record.data.name}/{record.budget.name}/{record.id}"
