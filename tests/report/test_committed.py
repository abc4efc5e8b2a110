"""The results in the repository are what ferbench makes of their records and predictions."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferbench.records.store import PREDICTED_SPLITS, Store
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
    chosen, selects = record.history[record.best_epoch - 1], f"val_{record.spec.recipe.training.select}"
    assert getattr(chosen, selects) == max(getattr(row, selects) for row in record.history)
    # TTA and post-hoc strategies have the history of the run they start from
    if record.spec.trained == record.spec:
        assert chosen.val_accuracy == pytest.approx(record.scores["val"].values["accuracy"], abs=1e-12)
    else:
        assert STORE.is_done(record.spec.trained)
        assert record.history == STORE.record(record.spec.trained).history
    assert len(record.history) == record.spec.epochs
    if record.spec.data.name == "fer2013":
        assert [len(STORE.predictions(record.spec, split)) for split in PREDICTED_SPLITS] == [3589, 3589]
