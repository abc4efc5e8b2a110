"""What a user types, and what they are told when it is wrong."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest


def test_help_names_the_commands(ferbench):
    result = ferbench("--help")
    assert result.returncode == 0
    for command in ("run", "report", "compare", "ensemble", "claims", "rescore", "list", "data"):
        assert command in result.stdout


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("models", ["plain_cnn", "vgg16", "resnet18", "efficientnet_b2", "efficientnet_v2_s", "timm:NAME"]),
        ("strategies", ["none", "inverse", "effective_number", "balanced_sampling", "focal", "logit_adjusted"]),
        ("recipes", ["plain_cnn", "timm"]),
        ("metrics", ["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "rarest_f1", "nll", "brier", "ece"]),
        ("protocols", ["official", "official-clean", "folder", "stratified-naive", "oracle"]),
        ("budgets", ["full", "short", "quick", "demo"]),
        ("fields", ["model.input_size", "optimizer.lr", "training.precision.cpu", "imbalance.params"]),
    ],
)
def test_list(ferbench, kind, expected):
    result = ferbench("list", kind)
    assert result.returncode == 0
    assert set(expected) <= {line.split()[0] for line in result.stdout.splitlines()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--models", "vgg"], "unknown model 'vgg' (did you mean vgg16"),
        (["run", "--models", "xyz*"], "no model matches 'xyz*'"),
        (["run", "--models", "timm:"], "unknown model 'timm:'"),
        (
            ["run", "--models", "plain_cnn_fst"],
            "unknown model or recipe 'plain_cnn_fst' (did you mean plain_cnn_fast?)",
        ),
        (
            ["run", "--recipe", "papers/inside"],
            "unknown model or recipe 'papers/inside' (did you mean papers/insideout?)",
        ),
        (["run", "--imbalance", "focall"], "unknown strategy 'focall' (did you mean focal"),
        (["run", "--seeds", "one"], "--seeds 'one': expected whole numbers"),
        (["run", "--seeds", "-1"], "seed -1 is out of range"),
        (["run", "--seeds", "1_0"], "--seeds '1_0': expected whole numbers"),
        (["run", "--jobs-per-gpu", "9" * 5000], "expected a whole number from 1"),
        (["run", "--data", ""], "data: nothing at ''"),
        (["run", "--budget", "ful"], "unknown budget 'ful' (did you mean full?)"),
        (["run", "--set", "lr"], "--set 'lr': expected key=value"),
        (["run", "--set", "optimizer.lrr=1"], "fields like it: optimizer.lr"),
        (
            ["run", "--set", "size=16"],
            "--set size: unknown field (fields like it: model.input_size, training.batch_size",
        ),
        (["run", "--set", "xyz=16"], "--set xyz: unknown field (`ferbench list fields` shows all)"),
        (["run", "--set", "name=x"], "--set name: several fields are called so: model.name, optimizer.name"),
        (
            ["run", "--models", "plain_cnn", "--init", "imagenet"],
            "init = imagenet: there are no such weights of plain_cnn",
        ),
        (["run", "--set", "optimizer.lr=-1"], "optimizer.lr = -1: Input should be greater than 0"),
        (["run", "--set", "epochs=3"], "budget demo sets epochs = 2 for every model"),
        (["run", "--models", "vgg16", "--set", "stem_stride=2"], "vgg16: model.stem_stride = 2 is not possible"),
        (["run", "--models", "vgg16", "--set", "drop_path=0.1"], "model.drop_path = 0.1 has no effect there"),
        (["run", "--models", "nowhere.toml"], "no recipe file 'nowhere.toml'"),
        (["run", "--device", "tpu"], "--device tpu: unknown (auto, cpu, cuda or cuda:N)"),
        (["run", "--data", "nowhere"], "data: nothing at 'nowhere'"),
        (["run", "--labels", "ferplus=x.csv"], "--labels"),
        (["run", "--protocol", "oficial"], "unknown protocol 'oficial' (did you mean official"),
        (["run", "--models", "plain_cnn_fast", "--tta", "flip"], "looks at mirror images already (model.flip_tta)"),
        (["run", "--tta", "flop"], "--tta 'flop': expected none, flip, ten-crop or random:N"),
        (["data", "info", "--protocol", "folders"], "unknown protocol 'folders' (did you mean folder"),
        (["compare", "a", "b"], "no results folder results"),
        (["ensemble", "--from", "a*"], "no results folder results"),
        (["report"], "no results folder results"),
        (["rescore"], "no results folder results"),
        (["data", "info", "nowhere"], "nothing at 'nowhere'"),
        (["data", "add", "nowhere"], "nothing at 'nowhere'"),
        (["run", "--model", "vgg16"], "No such option: --model"),
        (["list", "modells"], "'modells' is not one of 'models'"),
        (["ensemble"], "Missing option '--from' (see `python -m ferbench ensemble --help`)"),
        (["tune", "stats"], "No such command 'stats'. Did you mean 'status'?"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(ferbench, tmp_path, words, message):
    result = ferbench(*words)
    assert result.returncode == 2
    # but for the word about synthetic faces, which comes before
    *before, said = result.stderr.splitlines()
    assert said.startswith("ferbench: ") and message in said, result.stderr
    assert not any(line.startswith("ferbench: ") for line in before)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "results").exists()


def test_device_that_is_not_here_is_exit_2_and_no_failed_run(ferbench, tmp_path):
    for more in ((), ("--dry-run",)):
        result = ferbench("run", "--models", "plain_cnn", "--device", "cuda:99", *more)
        assert result.returncode == 2
        assert "--device cuda:99: this machine has" in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("record.json"))


def test_files_that_cannot_be_written_are_named_in_a_line(ferbench, faces, tmp_path):
    (tmp_path / "afile").touch()
    for words in (
        ["run", "--models", "plain_cnn", "--data", faces],
        ["tune", "--models", "plain_cnn", "--data", faces],
    ):
        result = ferbench(*words, "--results", "afile")
        assert result.returncode == 2
        assert "afile" in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr


def test_reader_of_a_pipe_may_have_enough(tmp_path):
    command = (
        f"{shlex.quote(sys.executable)} -m ferbench claims --results {tmp_path} | head -1; echo ${{PIPESTATUS[*]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["0 0"]
    assert done.stderr == ""


def test_data_add_and_info(ferbench, faces):
    assert "faces (folders), remembered" in ferbench("data", "add", faces).stdout
    info = ferbench("data", "info")
    assert info.returncode == 0
    assert "not the official FER2013" in info.stdout
    assert "total" in info.stdout and "210" in info.stdout


def test_without_data_it_says_so_in_a_line(ferbench, tmp_path):
    result = ferbench("run", "--models", "plain_cnn", "--dry-run", env={"FERBENCH_CONFIG": str(tmp_path / "none")})
    assert result.returncode == 0, result.stderr
    assert "No FER2013 found" in result.stderr and "ferbench data download" in result.stderr
    assert "synthetic" in result.stdout


def test_download_without_network_names_the_manual_way(ferbench):
    result = ferbench("data", "download", env={"https_proxy": "http://127.0.0.1:9"})
    assert result.returncode == 2
    assert "ferbench data add PATH" in result.stderr and "Traceback" not in result.stderr


def test_recipe_file_of_ones_own(ferbench, faces, tmp_path):
    (tmp_path / "mine.toml").write_text('[model]\nname = "resnet18"\nstem_stride = 4\n[training]\nepochs = 1\n')
    result = ferbench("run", "--models", "mine.toml", "--data", faces)
    assert result.returncode == 0, result.stderr
    assert "resnet18" in result.stdout.lower() or "ResNet-18" in result.stdout
    (tmp_path / "mine.toml").write_text('[model]\nname = "resnet18"\nstemstride = 4\n')
    wrong = ferbench("run", "--models", "mine.toml", "--data", faces)
    assert wrong.returncode == 2
    assert "mine.toml: unknown field 'model.stemstride' (did you mean model.stem_stride?)" in wrong.stderr
