"""`ferbench tune` as a user has it: all five spaces, real workers, real trainings of a few faces."""

from __future__ import annotations

import csv
import json
import tomllib

import pytest

from ferbench.inputs import load_recipe
from ferbench.models import MAIN_MODELS
from ferbench.records.store import Store
from ferbench.study.promote import TUNED
from ferbench.toml import flat_fields

# on the command line, so that one `tune` after another goes on with the same studies
CHANGES = ("input_size=32", "start_size=0", "precision.cpu=fp32", "channels_last=true")
FIXED = ("--budget", "quick", "--device", "cpu", *(word for change in CHANGES for word in ("--set", change)))


def test_all_five_spaces(ferbench, faces, tmp_path):
    done = ferbench("tune", "--models", "all", "--trials", "2", "--workers", "2", "--data", faces, *FIXED)
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "results")
    records = {r.name: r for r in store.studies()}
    assert set(records) == set(MAIN_MODELS)
    for name, record in records.items():
        assert [t.state for t in record.trials] == ["complete", "complete"], name
        baseline = dict(flat_fields(record.spec.baseline.model_dump()))
        assert record.trials[0].params == {field: baseline[field] for field in record.spec.space}
        assert all(len(t.curve) == 2 and t.values == [t.curve[t.best_epoch - 1]] for t in record.trials)
        assert f"{name}: best val accuracy" in done.stdout
    # trials are no runs: nothing has seen the test split
    assert store.records() == []
    folder = tmp_path / "results" / "studies" / "vgg16"
    assert {p.name for p in folder.glob("*.png")} == {"history.png", "budget.png", "slices.png", "curves.png"}
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [r["trial"] for r in rows] == ["0", "1"] and rows[0]["optimizer.lr"] == "0.001"

    # the rest of its commands, on one of them
    shown = ferbench("tune", "status", "plain*")
    assert "plain_cnn: best val accuracy" in shown.stdout and "2 complete (limit 2 trials)" in shown.stdout
    assert "optimizer.lr = " in ferbench("tune", "best", "plain_cnn").stdout
    assert "no study 'vgg19'" in ferbench("tune", "status", "vgg19").stderr
    refused = ferbench("tune", "promote", "plain_cnn", "--data", faces, "--trial", "1")
    # the study was of short trainings, and an installed package's recipes are not to be changed
    assert refused.returncode == 2 and "--out DIR" in refused.stderr
    own = ferbench("tune", "promote", "plain_cnn", "--data", faces, "--trial", "0", "--out", "mine")
    assert own.returncode == 2 and "study plain_cnn: trial 0, is the baseline" in own.stderr
    again = ferbench("tune", "promote", "plain_cnn", "--data", faces, "--trial", "1", "--seeds", "0", "--out", "mine")
    assert again.returncode == 2 and "seeds other than the study's" in again.stderr
    promoted = ferbench(
        "tune", "promote", "plain_cnn", "--data", faces, "--trial", "1", "--seeds", "5,5", "--out", "mine", "--force"
    )
    assert promoted.returncode == 0, promoted.stderr
    assert "plain_cnn: trial 1 on seeds 5, then the baseline" in promoted.stderr
    text = (tmp_path / "mine" / "plain_cnn.toml").read_text()
    assert text.startswith(TUNED)
    table = tomllib.loads(text)
    assert table["provenance"]["study"] == "plain_cnn" and table["provenance"]["trial"] == 1
    # a recipe that trains as the trial did, --set and all
    (trial,) = (t for t in store.studies()[2].trials if t.number == 1)
    assert store.studies()[2].name == "plain_cnn"
    recipe = load_recipe(str(tmp_path / "mine" / "plain_cnn.toml"))
    runs = {r.id: r for r in store.records()}
    promotion = json.loads((tmp_path / "results" / "studies" / "plain_cnn" / "study.json").read_text())["promotion"]
    assert [runs[i].spec.seed for i in promotion["runs"]] == [5]
    assert [runs[i].spec.recipe for i in promotion["runs"]] == [recipe]
    assert [runs[i].spec.recipe for i in promotion["baseline_runs"]] == [records["plain_cnn"].spec.baseline]
    assert promotion["value"] == trial.values[0] and promotion["is_recipe"] is True
    # the report tells it
    assert ferbench("report").returncode == 0
    text = (tmp_path / "results" / "README.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| plain_cnn "))
    (again,) = (runs[i].scores["val"].values["accuracy"] for i in promotion["runs"])
    assert f"{trial.values[0] - again:+.4f}" in row
    assert ferbench("report", "--check").returncode == 0


def test_two_objectives_and_the_speed_that_was_measured(ferbench, faces, tmp_path):
    words = ("--objective", "macro_f1,images_per_second", "--models", "plain_cnn", "--trials", "2", "--data", faces)
    done = ferbench("tune", *words, *FIXED)
    assert done.returncode == 0, done.stderr
    assert "several objectives: no trial is pruned" in done.stderr
    (record,) = Store(tmp_path / "results").studies()
    for trial in record.trials:
        score, rate = trial.values
        assert 0 < score < 1 and rate > 1
    assert (tmp_path / "results" / "studies" / "plain_cnn" / "pareto.png").is_file()
    assert "front of macro_f1, images_per_second" in ferbench("tune", "best").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trials", "0"), "--trials '0': expected a whole number from 1"),
        (("--trials", ""), "--trials '': expected a whole number from 1"),
        (("--budget", ""), "unknown budget ''"),
        (("--protocol", ""), "unknown protocol ''"),
        (("--name", ""), "--name ''"),
        (("--trials", "3", "--seconds", "9"), "--trials and --seconds: one limit is expected"),
        (("--models", "vgg61"), "vgg61"),
        (("--models", "resnet18", "--workers", "x"), "--workers 'x'"),
        (("--objective", "loss"), "unknown first objective 'loss'"),
        (("--objective", "accuracy,macs,macs"), "accuracy, macs, macs: each objective is expected once"),
        (("--protocol", "oracle"), "must not choose on test"),
        (("status",), "tune --data status: options of status come after its name"),
    ],
)
def test_bad_usage_is_one_line(ferbench, words, said):
    done = ferbench("tune", "--data", "synthetic", *words)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
