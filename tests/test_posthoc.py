from __future__ import annotations

import numpy as np
import pytest

from ferbench.errors import InputError
from ferbench.evaluation.metrics import compute
from ferbench.evaluation.predictions import Predictions, predictions_of
from ferbench.jobs import run_many
from ferbench.knobs import strategy_defaults
from ferbench.listener import Silence
from ferbench.plan import make_plan
from ferbench.posthoc import adjust, class_bias, logit_adjustment, shifted
from ferbench.records.store import Store
from ferbench.report.entries import Entry
from ferbench.report.leaderboard import build
from ferbench.report.rescore import rescore
from ferbench.training.imbalance import STRATEGIES

COUNTS = np.array([90, 9, 1])
ROWS = [s for s in STRATEGIES if s.posthoc]


def given(probabilities: list[list[float]], labels: list[int]) -> Predictions:
    p = np.array(probabilities, np.float32)
    return Predictions("val", ("a", "b", "c"), np.array([f"{i}" for i in range(len(p))]), np.array(labels, np.uint8), p)


def test_shift_by_hand():
    # odds .6 : .3 : .1, times 1, 2 and 4, are .6 : .6 : .4
    after = shifted(given([[0.6, 0.3, 0.1]], [0]), np.log([1.0, 2.0, 4.0]))
    assert after.probabilities[0] == pytest.approx([0.375, 0.375, 0.25])


def test_tau_undoes_a_prior_that_was_put_in():
    """Even classes, seen by a model that believes them to be as uneven as the training images: tau is 1."""
    random = np.random.Generator(np.random.PCG64(0))
    labels = np.repeat(np.arange(3, dtype=np.uint8), 3000)
    x = random.normal(size=(9000, 3)) + 2 * np.eye(3)[labels]
    likelihood = 2 * x
    val = predictions_of("val", "abc", [f"{i:05d}" for i in range(9000)], labels, likelihood + np.log(COUNTS / 100))
    shift = logit_adjustment(val, COUNTS, {"most": 2.0})
    tau = -shift[2] / np.log(0.01)
    assert tau == pytest.approx(1, abs=0.25)
    assert shift == pytest.approx(-tau * np.log(COUNTS / 100))
    assert compute(shifted(val, shift))["macro_f1"] > compute(val)["macro_f1"] + 0.05


def test_nothing_is_shifted_where_nothing_helps():
    perfect = given([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]], [0, 1, 2])
    for find in (logit_adjustment, class_bias):
        assert (find(perfect, COUNTS, {"most": 2.0}) == 0).all()


# the rare class comes second each time: .5 against .4, so a bias of ln 1.25 = .22 or a little more is enough
def test_bias_of_the_class_that_is_never_chosen():
    val = given([[0.5, 0.1, 0.4], [0.9, 0.06, 0.04], [0.1, 0.8, 0.1]], [2, 0, 1])
    bias = class_bias(val, COUNTS, {"most": 2.0})
    assert compute(shifted(val, bias))["macro_f1"] == 1
    assert np.count_nonzero(bias) == 1
    assert max(abs(bias)) == pytest.approx(0.3)


@pytest.mark.parametrize("row", ROWS, ids=lambda s: s.name)
def test_val_never_gets_worse(row):
    random = np.random.Generator(np.random.PCG64(4))
    labels = np.repeat(np.arange(3, dtype=np.uint8), COUNTS)
    val = predictions_of(
        "val", "abc", [f"{i}" for i in range(100)], labels, random.normal(size=(100, 3)) + np.eye(3)[labels]
    )
    find = {"posthoc_logit_adjustment": logit_adjustment, "posthoc_class_bias": class_bias}[row.name]
    shift = find(val, COUNTS, strategy_defaults()[row.name])
    assert compute(shifted(val, shift))["macro_f1"] >= compute(val)["macro_f1"]


def test_it_is_told_from_training_by_its_name():
    for row in STRATEGIES:
        assert bool(row.posthoc) == row.name.startswith("posthoc_")


@pytest.fixture
def plan(faces, tmp_path):
    return make_plan("plain_cnn", source=faces, imbalance="posthoc_*", results=tmp_path / "results", budget="quick")


def test_plan_trains_once_for_all(plan):
    assert [s.recipe.imbalance.strategy for s in plan.specs] == [
        "none",
        "posthoc_logit_adjustment",
        "posthoc_class_bias",
    ]
    assert {s.trained.id for s in plan.specs} == {plan.specs[0].id}


def finished_run(plan, finished) -> tuple[Store, Predictions]:
    """The plan's training, as if done, with predictions that never say the rarest class."""
    store, spec, dataset = plan.store, plan.specs[0], plan.dataset
    plan.write_facts()
    splits = []
    for name, split in dataset.splits():
        if name != "train":
            logits = np.eye(len(dataset.classes))[split.labels] * 0.5
            logits[:, 1] -= 0.6
            ids = [f"{name}-{i:05d}" for i in range(len(split))]
            splits.append(predictions_of(name, dataset.classes, ids, split.labels, logits))
    from ferbench.evaluation.metrics import score

    store.write_run(finished(spec).model_copy(update={"scores": {p.split: score(p) for p in splits}}), splits)
    return store, splits[1]


def test_run_adjusts_in_this_process_what_is_trained(plan, finished, monkeypatch):
    store, before = finished_run(plan, finished)
    monkeypatch.setattr("ferbench.workers.subprocess.Popen", None)
    records = run_many(plan, Silence())
    assert [r.status for r in records] == ["ok"] * 3
    after = store.predictions(plan.specs[2], "test")
    assert compute(after)["macro_f1"] > compute(before)["macro_f1"]
    assert "log-probabilities shifted as val chose: " in records[2].notes[-1]
    assert rescore(store, write=False) == []
    (track,) = build(store.records()).tracks
    entries: dict[str, Entry] = {e.strategy: e for e in track.entries}
    assert not entries["posthoc_class_bias"].is_trained
    # its seeds are those of the run it starts from, so that the two are compared in pairs
    assert entries["posthoc_class_bias"].trained == entries["none"].runs
    # nothing twice
    assert plan.missing() == []


def test_a_run_that_has_not_ended_well_is_told(plan, finished):
    with pytest.raises(
        InputError, match=f"{plan.specs[0].id}, which posthoc_class_bias starts from, has not ended well"
    ):
        adjust(plan.specs[2], plan.store)
