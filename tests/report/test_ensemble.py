from __future__ import annotations

import re

import numpy as np
import pytest

from ferbench.ensemble import ROUNDS, make_ensemble, select
from ferbench.errors import InputError
from ferbench.evaluation.predictions import Predictions, average
from ferbench.inputs import load_recipe
from ferbench.records.store import Store
from ferbench.report.entries import Entry
from ferbench.report.evidence import weigh_all
from ferbench.report.leaderboard import build
from ferbench.report.markdown import render
from ferbench.report.rescore import rescore

LABELS = np.array([0, 0, 1, 1], np.uint8)


def given(first_class: list[float], labels: np.ndarray = LABELS) -> Predictions:
    p = np.array(first_class, np.float32)
    return Predictions("val", ("a", "b"), np.array(list("wxyz")), labels, np.column_stack([p, 1 - p]))


# A is right on the first three, B on the last two, C on the first two; A and B average to .6 .6 .3 .4: all right
A, B, C = given([0.8, 0.8, 0.4, 0.6]), given([0.4, 0.4, 0.2, 0.2]), given([0.9, 0.9, 0.9, 0.9])


def test_average_by_hand():
    mean = average([A, B], np.array([1, 1]))
    assert mean.probabilities[:, 0] == pytest.approx([0.6, 0.6, 0.3, 0.4])
    weighted = average([A, B], np.array([3, 1]))
    assert weighted.probabilities[:, 0] == pytest.approx([0.7, 0.7, 0.35, 0.5])


def test_val_chooses_what_helps_and_stops_where_nothing_does():
    weights, path = select([A, B, C], "accuracy")
    assert weights.tolist() == [1, 1, 0]
    # A alone has three of four, with B all
    assert path == pytest.approx([0.75, 1.0])


def test_a_single_run_may_be_best():
    perfect = given([0.9, 0.9, 0.1, 0.1])
    weights, path = select([C, perfect], "nll")
    assert weights.tolist() == [0, 1]
    assert path == pytest.approx([-np.log(0.9)], rel=1e-5)


def test_selection_ends():
    weights, path = select([A, A], "accuracy")
    assert weights.sum() == len(path) <= ROUNDS


def test_ensemble_is_stored_ranked_and_rescored(store):
    record = make_ensemble(store, "resnet18-*,plain_cnn-*")
    ids = {r.id: r for r in store.records()}
    assert {m.run for m in record.members} <= {i for i in ids if not i.startswith("vgg16")} == set(record.candidates)
    assert store.ensembles() == [record]
    # what is stored is the mean of the members
    weights = np.array([m.weight for m in record.members])
    mean = average([store.predictions(ids[m.run].spec, "test") for m in record.members], weights)
    assert record.scores["test"].values["accuracy"] == (mean.predicted == mean.labels).mean()
    board = build(store.records(), store.ensembles())
    entry = next(e for e in board.tracks[0].entries if e.model == "ensemble")
    assert [e.rank for e in board.tracks[0].entries] == [1, 2, 3, 4]
    assert entry.parameters == sum(ids[m.run].cost.parameters for m in record.members)
    assert rescore(store, write=False) == []
    text = render(weigh_all(board, store), store.records())
    assert f"Ensemble ({entry.variant})" in text
    first = record.members[0]
    assert f"- Ensemble ({entry.variant}): {first.weight} x `{first.run}`" in text
    # the command in the report makes it again
    (command,) = re.findall("^ferbench ensemble --from (.*) --metric accuracy$", text, re.MULTILINE)
    assert make_ensemble(store, command).id == record.id


def test_what_is_made_of_a_candidate_is_none(store):
    """Views of all runs: beside the runs they count nothing, by themselves they are candidates."""
    runs = [r for r in store.records() if r.spec.recipe.model.name == "resnet18"]
    for run in runs:
        spec = run.spec.model_copy(update={"tta": "flip"})
        splits = [store.predictions(run.spec, split) for split in ("val", "test")]
        store.write_run(run.model_copy(update={"id": spec.id, "spec": spec}), splits)
    assert set(make_ensemble(store, "resnet18-*").candidates) == {r.id for r in runs}
    assert all("-flip-" in i for i in make_ensemble(store, "resnet18-*-flip-*").candidates)


def test_ensemble_of_what_was_done_again_is_not_ranked(store):
    record = make_ensemble(store, "resnet18-*,plain_cnn-*")
    member = next(r for r in store.records() if r.id == record.members[0].run)
    store.write_record(member.model_copy(update={"finished_at": "2999-01-01T00:00:00+00:00"}))
    (track,) = build(store.records(), store.ensembles()).tracks
    assert "ensemble" not in {e.model for e in track.entries}
    assert [(f.id, f.is_outdated) for f in track.failures] == [(record.id, True)]


def test_ensemble_of_what_is_outdated_is_not_ranked(store):
    """A member made of another run's predictions, which has been done again since."""
    record = make_ensemble(store, "resnet18-*,plain_cnn-*")
    member = next(r for r in store.records() if r.id == record.members[0].run)
    derived = member.model_copy(update={"source_finished_at": "2000-01-01T00:00:00+00:00"})
    recipe = load_recipe(member.spec.recipe.model.name, strategy="posthoc_class_bias")
    spec = member.spec.model_copy(update={"recipe": recipe})
    made = derived.model_copy(update={"id": spec.id, "spec": spec})
    members = [m.model_copy(update={"run": made.id}) if m.run == member.id else m for m in record.members]
    averaged = record.model_copy(update={"members": members})
    (track,) = build([*store.records(), made], [averaged]).tracks
    assert "ensemble" not in {e.model for e in track.entries}
    assert {f.id for f in track.failures} == {averaged.id, made.id}


def entry_of(store) -> Entry:
    return next(e for e in build(store.records(), store.ensembles()).tracks[0].entries if e.model == "ensemble")


def test_cost_is_that_of_one_network_after_the_other(store):
    """Seed 0 does 100 images/s at batch 1, seed 1 120: together 1/(1/100 + 1/120)."""
    record = make_ensemble(store, "vgg16-*,plain_cnn-*", metric="nll")
    used = record.model_copy(update={"members": [record.members[0].model_copy(update={"run": run, "weight": 1}) for run in record.candidates[:2]]})  # fmt: skip  # noqa: E501
    (store.root / "ensembles").rename(store.root / "elsewhere")
    store.write_ensemble(used, [store.predictions(store.records()[0].spec, s) for s in ("val", "test")])
    entry = entry_of(store)
    assert entry.inference[1] == pytest.approx(1 / (1 / 100 + 1 / 120))
    assert entry.variant == "2 Plain CNN"
    assert (entry.parameters, entry.macs) == (8_000_000, 188_000_000)


def test_rescore_finds_an_ensemble_that_is_not_its_members_mean(store):
    record = make_ensemble(store, "resnet18-*,plain_cnn-*")
    place = next(store.root.glob("ensembles/*/*/*"))
    (place / "test.npz").write_bytes((store.folder(store.records()[-1].spec) / "test.npz").read_bytes())
    assert f"{record.id}: test: its predictions are not the mean of its members'" in rescore(store, write=True)
    assert rescore(store, write=False) == []
    gone = next(r for r in store.records() if r.id == record.members[0].run)
    (store.folder(gone.spec) / "record.json").unlink()
    assert rescore(store, write=False) == [f"{record.id}: its member {gone.id} is not there"]
    # the leaderboard goes on without what it cannot know
    assert entry_of(store).parameters is None


def test_members_predictions_on_other_images_are_told(store):
    record = make_ensemble(store, "resnet18-*,plain_cnn-*")
    spec = next(r.spec for r in store.records() if r.id == record.members[0].run)
    cut = store.predictions(spec, "val").take(np.arange(3))
    store.write(store.folder(spec) / "val.npz", cut.to_bytes())
    lines = rescore(store, write=True)
    assert f"{record.id}: val: its images or classes are not those of its members" in lines


def test_official_runs_come_first_and_a_protocol_can_be_asked_for(tmp_path, make_run):
    store = Store(tmp_path / "results")
    for protocol in ("stratified-naive", "oracle", "official"):
        for seed in (0, 1):
            store.write_run(*make_run("vgg16", seed, protocol=protocol))
    assert make_ensemble(store, "*").data.protocol == "official"
    assert make_ensemble(store, "*", protocol="stratified-naive").data.protocol == "stratified-naive"
    with pytest.raises(InputError, match="0 finished runs fit"):
        make_ensemble(store, "*", protocol="oracle")


def test_ensembles_of_the_same_models_are_told_apart(store):
    first = make_ensemble(store, "plain_cnn-*,vgg16-*")
    other = first.model_copy(update={"members": [m.model_copy(update={"weight": m.weight + 1}) for m in first.members]})
    store.write_ensemble(other, [store.predictions(store.records()[0].spec, s) for s in ("val", "test")])
    labels = [e.label for e in build(store.records(), store.ensembles()).tracks[0].entries]
    assert len(set(labels)) == len(labels) == 5


def test_errors(store, make_run):
    with pytest.raises(InputError, match=r"--from 'resnet50\*': 0 finished runs fit, at least 2"):
        make_ensemble(store, "resnet50*")
    with pytest.raises(InputError, match="unknown metric 'f1'"):
        make_ensemble(store, "*", metric="f1")
    record, (val, test) = make_run("vgg16", 0)
    store.write_run(record, [val.take(np.arange(3)), test])
    with pytest.raises(InputError, match=r"vgg16-none-s0-\w+: its val predictions are of other images than"):
        make_ensemble(store, "*")
