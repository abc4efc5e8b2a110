from __future__ import annotations

import re

import numpy as np
import pytest

from ferbench.errors import InputError
from ferbench.evaluation.predictions import Predictions
from ferbench.report.rescore import rescore


def tampered(record, accuracy: float):
    test = record.scores["test"]
    values = {**test.values, "accuracy": accuracy}
    return record.model_copy(update={"scores": {**record.scores, "test": test.model_copy(update={"values": values})}})


def test_untouched_store_has_no_differences(store):
    assert rescore(store, write=True) == []


@pytest.mark.parametrize("write", [False, True])
def test_tampered_record_is_found_and_repaired(store, records, write):
    record = records[1]
    store.write_record(tampered(record, 0.99))
    assert rescore(store, write=write) == [f"{record.id}: test: accuracy is 0.99 in the record, 0.8 by its predictions"]
    assert store.record(record.spec).scores["test"].values["accuracy"] == pytest.approx(0.8 if write else 0.99)
    assert bool(rescore(store, write=False)) != write


def test_a_score_that_is_no_number_is_no_score(store, records):
    path = store.folder(records[1].spec) / "record.json"
    path.write_text(re.sub('"accuracy": [0-9.]+', '"accuracy": NaN', path.read_text()))
    with pytest.raises(InputError, match=r"record.json: scores.val.values.accuracy = nan"):
        rescore(store, write=True)


def test_record_that_says_ok_has_scores(store, records):
    store.write_record(records[1].model_copy(update={"scores": {}}))
    with pytest.raises(InputError, match="status is ok, but there are no scores"):
        rescore(store, write=False)


def test_tampered_probabilities_are_found(store, runs):
    record, (_, test) = runs[0]
    p = test.probabilities[::-1].copy()  # 2 1 1 0 0 against 0 0 1 1 2: one of five is right
    store.write(
        store.folder(record.spec) / "test.npz",
        Predictions("test", test.classes, test.ids, test.labels, p).to_bytes(),
    )
    lines = rescore(store, write=False)
    assert any("test: accuracy is 1 in the record, 0.2 by its predictions" in line for line in lines)
    assert all(line.startswith(record.id) for line in lines)


def test_tampered_labels_stand_against_the_other_runs(store, runs):
    record, (_, test) = runs[0]
    labels = test.labels[::-1].copy()
    content = Predictions("test", test.classes, test.ids, labels, test.probabilities).to_bytes()
    store.write(store.folder(record.spec) / "test.npz", content)
    (line,) = rescore(store, write=True)
    assert line == f"{record.id}: test: classes, ids or labels are not those of the other runs on the same data"
    assert store.record(record.spec) == record


def test_cut_predictions_do_not_replace_a_record(store, runs):
    record, (_, test) = runs[0]
    content = Predictions("test", test.classes, test.ids[:3], test.labels[:3], test.probabilities[:3]).to_bytes()
    store.write(store.folder(record.spec) / "test.npz", content)
    lines = rescore(store, write=True)
    assert f"{record.id}: test: the record counts 5 images, its predictions 3" in lines
    assert store.record(record.spec) == record


def test_swapped_splits_are_found(store, runs):
    record, (val, _) = runs[0]
    store.write(store.folder(record.spec) / "test.npz", val.to_bytes())
    assert any("of split 'val'" in line for line in rescore(store, write=False))


def test_missing_and_damaged_predictions_are_reported(store, records):
    (store.folder(records[0].spec) / "test.npz").unlink()
    (store.folder(records[1].spec) / "val.npz").write_bytes(b"nonsense")
    lines = rescore(store, write=True)
    assert len(lines) == 2
    assert {line.partition(":")[0] for line in lines} == {records[0].id, records[1].id}
    assert store.record(records[0].spec) == records[0]


def test_failed_runs_are_passed_over(store, make_failure):
    store.write_record(make_failure("x", strategy="focal"))
    assert rescore(store, write=False) == []


def test_same_scores_within_rounding_are_no_difference(store, records):
    store.write_record(tampered(records[1], float(np.nextafter(0.8, 1))))
    assert rescore(store, write=False) == []
