"""The results in the repository are what ferbench makes of their records and predictions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ferbench.records.places import PREDICTED_SPLITS
from ferbench.records.store import Store
from ferbench.report import check
from ferbench.report.rescore import rescore

STORE = Store(Path(__file__).parents[2] / "results")
RECORDS = STORE.records()
DONE = [r for r in RECORDS if r.status == "ok"]


def test_there_are_results_of_all_five_models():
    models = {r.spec.recipe.model.name for r in DONE if r.spec.data.name == "fer2013"}
    assert {"plain_cnn", "vgg16", "resnet18", "efficientnet_b2", "efficientnet_v2_s"} <= models


def test_committed_leaderboard_equals_the_regenerated_one():
    assert check(STORE) == []


def test_scores_recomputed_from_committed_predictions_equal_the_records():
    assert rescore(STORE, write=False) == []


@pytest.mark.parametrize("record", DONE, ids=lambda r: r.id)
def test_committed_run_can_be_believed(record):
    assert record.id == record.spec.id, "the folder names the spec"
    assert record.environment.commit and "dirty" not in record.environment.commit
    assert not re.search("/(root|home|Users|tmp)/", record.model_dump_json()), "a machine's folder"
    chosen, selects = record.history[record.best_epoch - 1], f"val_{record.spec.recipe.training.select}"
    start = record.spec.recipe.imbalance.params.get("start", 0.0)
    # epochs with all of a strategy, and weights that have seen images of the size that is evaluated
    whole = [
        row
        for row in record.history
        if ((row.epoch - 1) / record.spec.epochs >= start or row is record.history[-1])
        and row.input_size in (None, record.spec.recipe.model.input_size)
    ]
    assert getattr(chosen, selects) == max(getattr(row, selects) for row in whole)
    source = record.spec.source
    has_own_history = source == record.spec or record.spec.recipe.imbalance.strategy in ("crt", "lws")
    if has_own_history and record.spec.tta == "none":
        assert chosen.val_accuracy == pytest.approx(record.scores["val"].values["accuracy"], abs=1e-12)
    if source == record.spec:
        assert len(record.history) == record.spec.epochs
    else:
        # TTA, post-hoc and decoupled strategies start from a finished run
        assert STORE.is_done(source)
        assert has_own_history or record.history == STORE.record(source).history
    counts = STORE.facts(record.spec.data).counts
    for split in PREDICTED_SPLITS:
        assert len(STORE.predictions(record.spec, split)) == sum(counts[split].values())
    if record.spec.data.name == "fer2013" and not record.spec.data.protocol.startswith(("stratified", "folder")):
        assert sum(counts["test"].values()) == 3589
