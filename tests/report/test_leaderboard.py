from __future__ import annotations

import math
import random
import re

import pytest

from ferbench.report.frame import csv, frame
from ferbench.report.leaderboard import build, leaderboard


def test_ranks_by_accuracy_then_macro_f1(records):
    (track,) = build(records).tracks
    assert [(e.rank, e.model) for e in track.entries] == [(1, "resnet18"), (2, "vgg16"), (3, "plain_cnn")]


def test_means_and_standard_deviations(records):
    first, second, third = build(records).tracks[0].entries
    assert first.test["accuracy"].mean == pytest.approx(0.9)
    assert first.test["accuracy"].sd == pytest.approx(0.2 / math.sqrt(2))
    assert first.test["macro_f1"].mean == pytest.approx(0.8)
    assert first.test["macro_f1"].sd == pytest.approx(0.4 / math.sqrt(2))
    assert first.val["accuracy"].mean == pytest.approx(0.875)
    assert second.test["macro_f1"].mean == pytest.approx(37 / 45)
    assert second.test["macro_f1"].sd == 0
    assert third.test["macro_f1"].mean == pytest.approx(7 / 9)
    # recall of angry 1, happy 1/2, sad 1
    assert third.test["balanced_accuracy"].mean == pytest.approx(2.5 / 3)


def test_class_scores_are_means_over_seeds(records):
    scores = build(records).tracks[0].entries[0].per_class
    assert scores["angry"].f1 == pytest.approx(0.9)
    assert scores["angry"].precision == pytest.approx((1 + 2 / 3) / 2)
    assert scores["sad"].recall == pytest.approx(0.5)


def test_entry_holds_cost_seeds_and_runs(records):
    entry = build(records).tracks[0].entries[0]
    assert entry.seeds == (0, 1)
    assert entry.best_epochs == (3, 3)
    assert entry.runs == (records[0].id, records[1].id)
    assert (entry.parameters, entry.macs) == (11_000_000, 94_000_000)
    assert entry.train_seconds == 75
    assert entry.inference == {1: 110, 256: 256 * 110}
    assert (entry.title, entry.init, entry.variant, entry.device) == ("ResNet-18", "scratch", "", "Test GPU")


def test_single_seed_has_no_deviation(make_run):
    entry = build([make_run()[0]]).tracks[0].entries[0]
    assert entry.test["accuracy"].mean == 1
    assert entry.test["accuracy"].sd is None


def test_speeds_of_different_machines_are_not_averaged(make_run):
    entry = build([make_run(seed=0)[0], make_run(seed=1, device="Other GPU")[0]]).tracks[0].entries[0]
    assert entry.device == "Other GPU; Test GPU"
    assert entry.train_seconds is None
    assert entry.inference == {}
    assert entry.parameters == 11_000_000


def test_tracks_do_not_mix(make_run):
    wanted = [
        {"data": "fer2013", "budget": "full", "fingerprint": "a"},
        {"data": "fer2013", "budget": "full", "fingerprint": "b"},
        {"data": "fer2013", "budget": "quick", "fingerprint": "a"},
        {"data": "fer2013", "budget": "demo", "fingerprint": "a"},
        {"data": "ferplus-majority", "budget": "full", "fingerprint": "a"},
        {"data": "synthetic", "budget": "full", "fingerprint": "a"},
        {"data": "synthetic", "budget": "demo", "fingerprint": "a"},
    ]
    records = [make_run(**w)[0] for w in wanted]
    random.Random(0).shuffle(records)
    tracks = build(records).tracks
    found = [{"data": t.data.name, "budget": t.budget.name, "fingerprint": t.data.fingerprint} for t in tracks]
    assert found == wanted
    assert all(len(t.entries) == 1 for t in tracks)
    assert len({t.slug for t in tracks}) == len({t.title for t in tracks}) == 7
    assert tracks[2].slug == "fer2013-quick"


def test_recipes_of_one_model_are_told_apart(make_run):
    records = [
        make_run()[0],
        make_run(init="imagenet")[0],
        make_run("vgg16")[0],
        make_run("vgg16", overrides={"optimizer.lr": 0.01})[0],
        make_run("plain_cnn", overrides={"optimizer.lr": 0.01, "training.epochs": 7, "augment.flip": 0.0})[0],
        make_run("plain_cnn")[0],
        make_run("plain_cnn", strategy="focal")[0],
    ]
    entries = build(records).tracks[0].entries
    labels = {e.label for e in entries}
    assert len(labels) == len({e.slug for e in entries}) == 7
    assert {"ResNet-18", "ResNet-18 (imagenet)", "VGG16-BN", "VGG16-BN (lr=0.01)"} < labels
    assert {"Plain CNN", "Plain CNN + focal"} < labels
    long = next(e for e in entries if e.differs.get("training.epochs") == 7)
    assert re.fullmatch("[0-9a-f]{8}", long.variant)
    assert long.slug == f"plain_cnn-none-{long.variant}"
    assert set(long.differs) == {"optimizer.lr", "training.epochs", "augment.flip"}


def test_the_same_recipe_computed_in_another_way_is_called_by_its_device(make_run):
    fixed, as_bf16 = {"training.channels_last": False}, {"training.precision.cuda": "bf16"}
    records = [make_run()[0], make_run(overrides=fixed, device="Intel, 2 cores")[0]]
    found = {e.label: e.slug for e in build(records).tracks[0].entries}
    assert found == {
        "ResNet-18 (Test GPU)": "resnet18-none-Test_GPU",
        "ResNet-18 (Intel, 2 cores)": "resnet18-none-Intel_2_cores",
    }
    # what is made of them is called by where they were trained, whoever made it
    flipped = [r.spec.model_copy(update={"tta": "flip"}) for r in records]
    views = [
        record.model_copy(update={"spec": spec, "id": spec.id, "environment": other.environment})
        for record, spec, other in zip(records, flipped, reversed(records), strict=True)
    ]
    for some in (views[:1], views):
        found = {e.label: e.trained for e in build([*records, *some]).tracks[0].entries}
        for record in records[: len(some)]:
            assert found[f"ResNet-18 (TTA flip, {record.environment.device})"] == (record.id,)
    # and so is the same recipe with a strategy, where it ran
    helped = make_run(strategy="focal", overrides=fixed, device="Intel, 2 cores")[0]
    found = [e.label for e in build([*records, helped]).tracks[0].entries if e.strategy == "focal"]
    assert found == ["ResNet-18 (Intel, 2 cores) + focal"]
    # of no help where two have the same
    records.append(make_run(overrides=as_bf16)[0])
    assert all(e.variant == e.recipe for e in build(records).tracks[0].entries)


def test_a_changed_recipe_shows_when_it_is_alone(make_run):
    (entry,) = build([make_run("plain_cnn", overrides={"model.input_size": 24})[0]]).tracks[0].entries
    assert (entry.label, entry.slug) == ("Plain CNN (input_size=24)", "plain_cnn-none-input_size_24")


def test_a_changed_recipe_shows_with_every_strategy(make_run):
    small = {"model.input_size": 16}
    records = [
        make_run("plain_cnn")[0],
        make_run("plain_cnn", strategy="focal", overrides=small)[0],
        make_run("plain_cnn", strategy="ldam", overrides=small)[0],
        make_run("plain_cnn", strategy="ldam", overrides={**small, "imbalance.params.scale": 10.0})[0],
    ]
    labels = [e.label for e in build(records).tracks[0].entries]
    assert sorted(labels) == [
        "Plain CNN",
        "Plain CNN (input_size=16) + focal",
        "Plain CNN (input_size=16) + ldam",
        "Plain CNN (input_size=16, scale=10.0) + ldam",
    ]


def test_many_changes_have_one_name_for_all_strategies(make_run):
    many = {"optimizer.lr": 0.01, "training.epochs": 7, "augment.flip": 0.0}
    records = [make_run("plain_cnn", strategy=s, overrides=many)[0] for s in ("none", "focal")]
    entries = build([*records, make_run("plain_cnn")[0]]).tracks[0].entries
    names = {e.name for e in entries}
    assert len(names) == 2 and "Plain CNN" in names
    assert len({e.slug for e in entries}) == 3


def test_how_it_is_computed_is_no_name_but_keeps_recipes_apart(make_run):
    records = [make_run("plain_cnn")[0], make_run("plain_cnn", overrides={"precision.cpu": "fp32"})[0]]
    entries = build(records).tracks[0].entries
    assert {e.variant for e in entries} == {e.recipe for e in entries}
    assert len({e.slug for e in entries}) == 2
    (alone,) = build(records[1:]).tracks[0].entries
    assert alone.label == "Plain CNN"


def test_order_of_a_strategys_knobs_makes_no_other_recipe(make_run):
    runs = [make_run("resnet18", seed, strategy="inverse")[0] for seed in (0, 1)]
    recipe = runs[0].spec.recipe
    knobs = dict(reversed(recipe.imbalance.params.items()))
    assert list(knobs) != list(recipe.imbalance.params)
    other = recipe.model_copy(update={"imbalance": recipe.imbalance.model_copy(update={"params": knobs})})
    runs[0] = runs[0].model_copy(update={"spec": runs[0].spec.model_copy(update={"recipe": other})})
    (entry,) = build(runs).tracks[0].entries
    assert entry.seeds == (0, 1)


def test_failed_runs_are_listed_and_not_ranked(records, make_failure):
    failed = make_failure("out of memory", "vgg16", 0, strategy="focal")
    (track,) = build([*records, failed]).tracks
    assert len(track.entries) == 3
    (failure,) = track.failures
    assert (failure.id, failure.model, failure.strategy, failure.seed) == (failed.id, "vgg16", "focal", 0)
    assert failure.reason == "out of memory"


def test_what_was_made_of_a_run_that_was_done_again_is_not_ranked(make_run):
    """Views of a classifier on the frozen backbone of a run."""
    base = make_run("resnet18", 0)[0].model_copy(update={"finished_at": "1"})
    classifier = make_run("resnet18", 0, strategy="crt")[0].model_copy(
        update={"finished_at": "2", "source_finished_at": "1"}
    )
    spec = classifier.spec.model_copy(update={"tta": "flip"})
    views = classifier.model_copy(update={"id": spec.id, "spec": spec, "finished_at": "3", "source_finished_at": "2"})
    assert classifier.spec.source.id == base.id and spec.source.id == classifier.id
    (track,) = build([base, classifier, views]).tracks
    assert len(track.entries) == 3 and track.failures == ()
    (track,) = build([base.model_copy(update={"finished_at": "9"}), classifier, views]).tracks
    assert [e.strategy for e in track.entries] == ["none"]
    assert {f.id for f in track.failures} == {classifier.id, views.id}
    assert all(f.is_outdated and "has been done again since" in f.reason for f in track.failures)


def test_track_of_failures_only(make_failure):
    (track,) = build([make_failure("no weights")]).tracks
    assert (track.entries, track.n_test, track.classes) == ((), 0, [])


def test_order_of_records_does_not_matter(records, make_run, make_failure):
    records = [*records, make_run(budget="quick")[0], make_failure("x", strategy="focal")]
    board = build(records)
    for seed in range(3):
        random.Random(seed).shuffle(records)
        assert build(records) == board


def test_frame_is_flat(records):
    table = frame(build(records))
    assert list(table["model"]) == ["resnet18", "vgg16", "plain_cnn"]
    row = table.iloc[0]
    assert row["test_accuracy"] == pytest.approx(0.9)
    assert row["val_accuracy"] == pytest.approx(0.875)
    assert row["test_f1_angry"] == pytest.approx(0.9)
    assert (row["seeds"], row["n_seeds"], row["rank"], row["fraction"]) == ("0 1", 2, 1, 1.0)
    assert row["inference_images_per_second_b256"] == 256 * 110
    assert row["runs"].split() == [records[0].id, records[1].id]


def test_csv_writes_rounded_and_whole_numbers(records, make_run):
    header, first, *_, last = csv(build([*records, make_run(budget="quick")[0]])).decode().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert row["test_accuracy_sd"] == "0.141421"
    assert row["parameters"] == "11000000"
    assert dict(zip(header.split(","), last.split(","), strict=True))["test_accuracy_sd"] == ""


def test_no_records():
    assert len(frame(build([]))) == 0


def test_leaderboard_of_a_folder(store):
    assert list(leaderboard(store.root)["rank"]) == [1, 2, 3]
