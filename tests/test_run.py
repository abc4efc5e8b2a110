"""The whole line, as a user runs it: real processes, real files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ferbench.models import MODELS

# no probe, and small images: what they would show is tests/test_probe.py's and tests/models'
FIXED = [w for f in ("precision.cpu=fp32", "channels_last=true") for w in ("--set", f)]
SHORT = ("--budget", "full", "--set", "training.epochs=1", *FIXED)
SMALL = [w for f in ("input_size=16", "start_size=0") for w in ("--set", f)] + FIXED


def run_folder(results: Path) -> Path:
    (record,) = results.glob("runs/*/*/*/record.json")
    return record.parent


def test_all_models_end_to_end(ferbench, faces, tmp_path):
    small = ("--budget", "quick", *FIXED, "--set", "input_size=32", "--set", "start_size=0")
    asked = ("run", "--models", "all", "--data", faces, *small)
    first = ferbench(*asked)
    assert first.returncode == 0, first.stderr
    records = [json.loads(p.read_text()) for p in tmp_path.glob("results/runs/faces/quick/*/record.json")]
    models = {r["spec"]["recipe"]["model"]["name"] for r in records}
    assert models == {"plain_cnn", "vgg16", "resnet18", "efficientnet_b2", "efficientnet_v2_s"}
    for record in records:
        assert record["status"] == "ok"
        assert record["scores"]["test"]["n"] == 70
        assert 0 <= record["scores"]["test"]["values"]["accuracy"] <= 1
        assert {t["batch_size"] for t in record["cost"]["inference"]} == {1, 256}
        assert record["cost"]["peak_memory_bytes"] > 1e8
        # paths of the user's machine stay out of what is published
        assert str(faces.parent) not in json.dumps(record)
    for model in models:
        assert MODELS[model].title in first.stdout

    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob("results/runs/*/*/*/record.json")}
    again = ferbench(*asked)
    assert again.returncode == 0
    assert times == {p: p.stat().st_mtime_ns for p in times}, "what is done is not done again"

    report = ferbench("report")
    assert report.returncode == 0, report.stderr
    text = (tmp_path / "results/README.md").read_text()
    assert "faces" in text and "FER2013" not in text.partition("## ")[2].partition("\n")[0]
    assert ferbench("report", "--check").returncode == 0
    assert ferbench("rescore", "--check").returncode == 0
    (tmp_path / "results/leaderboard.csv").write_text("stale")
    assert ferbench("report", "--check").returncode == 1


def test_from_runs_under_a_protocol_to_what_can_be_said_of_them(ferbench, faces, tmp_path):
    asked = (
        "--data",
        faces,
        "--models",
        "plain_cnn",
        "--seeds",
        "0,1",
        "--budget",
        "quick",
        "--protocol",
        "stratified-naive",
    )
    result = ferbench("run", *asked, "--tta", "flip", *SMALL)
    assert result.returncode == 0, result.stderr
    assert "drawn image by image" in result.stderr
    small = "input_size=16, start_size=0"
    assert f"Plain CNN ({small})" in result.stdout and f"Plain CNN ({small}, TTA flip)" in result.stdout
    assert len(list((tmp_path / "results/runs/faces/quick").iterdir())) == 4
    result = ferbench("ensemble", "--from", "plain_cnn-*")
    assert result.returncode == 0, result.stderr
    assert "test accuracy" in result.stdout
    result = ferbench("compare", "plain_cnn", f"Plain CNN ({small}, TTA flip)")
    assert result.returncode == 0, result.stderr
    assert "in accuracy" in result.stdout.splitlines()[0]
    assert ferbench("report").returncode == 0
    assert ferbench("report", "--check").returncode == 0
    assert "equals the one computed" in ferbench("rescore", "--check").stdout
    text = (tmp_path / "results/README.md").read_text()
    assert "## faces, protocol stratified-naive, budget quick" in text
    assert "--protocol stratified-naive --tta flip" in text
    assert "faces-stratified-naive-quick-reliability.png" in text
    assert "Published results" not in text
    assert "impossible on the 3,589 images" in ferbench("claims").stdout


def test_python_interface(faces, tmp_path):
    import ferbench

    records = ferbench.run(
        models="plain_cnn",
        data=faces,
        budget="full",
        overrides={"training.epochs": 1},
        results=tmp_path,
        progress=False,
    )
    assert [r.status for r in records] == ["ok"]
    board = ferbench.leaderboard(tmp_path)
    assert list(board["model"]) == ["plain_cnn"]
    assert board["test_accuracy"][0] == pytest.approx(records[0].scores["test"].values["accuracy"], abs=1e-6)


def test_failed_run_is_recorded_and_the_rest_goes_on(ferbench, faces, tmp_path):
    diverging = ("--set", "optimizer.lr=1e30", "--set", "schedule.name=constant", "--set", "schedule.warmup=0")
    result = ferbench("run", "--models", "plain_cnn,resnet18", "--data", faces, *SHORT, *diverging)
    assert result.returncode == 1
    assert "2 of 2 runs failed" in result.stderr and "diverged" in result.stderr
    assert "Traceback" not in result.stderr
    records = [json.loads(p.read_text()) for p in tmp_path.glob("results/runs/*/*/*/record.json")]
    assert [r["status"] for r in records] == ["failed", "failed"]
    assert all("diverged" in r["reason"] for r in records)


def test_imagenet_without_network_names_the_file(ferbench, faces, tmp_path):
    result = ferbench(
        "run", "--models", "resnet18", "--data", faces, "--init", "imagenet", *SHORT,
        env={"TORCH_HOME": str(tmp_path / "hub"), "https_proxy": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert result.returncode == 1
    assert "put https://" in result.stderr and "resnet18-f37072fd.pth" in result.stderr


def test_dry_run_trains_nothing(ferbench, faces, tmp_path):
    result = ferbench("run", "--models", "plain_cnn", "--data", faces, "--seeds", "0,1", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "2 runs, 0 done before, 2 to do" in result.stdout
    assert result.stdout.count("about") == 3
    assert not (tmp_path / "results").exists()


@pytest.fixture(scope="module")
def uninterrupted(faces, tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("whole")
    subprocess.run(long_run(faces, results), check=True, capture_output=True, cwd=results)
    return run_folder(results)


def long_run(faces: Path, results: Path) -> list[str]:
    return [
        sys.executable, "-m", "ferbench", "run", "--models", "plain_cnn", "--data", str(faces),
        "--results", str(results), "--budget", "full", "--set", "training.epochs=5", "--set", "training.ema_decay=0.9",
        "--set", "augment.mixup=0.4", "--set", "augment.cutmix=0.4",
    ]  # fmt: skip


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # a test run in a shell's background inherits Ctrl-C as ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip


def workers_of(process: subprocess.Popen) -> list[int]:
    """Children of the fork server, which is the command's child."""
    (server,) = children(process.pid)
    return children(server)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("victim", "how", "code"),
    [
        ("parent", signal.SIGINT, 130),
        ("parent", signal.SIGTERM, 143),
        ("parent", signal.SIGKILL, -9),
        ("worker", signal.SIGKILL, 1),
    ],
)
def test_stopped_run_goes_on_to_the_same_bits(victim, how, code, faces, tmp_path, uninterrupted):
    process = started(long_run(faces, tmp_path))
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 2/5" in line:
            break
    (worker,) = workers_of(process)
    os.kill(worker if victim == "worker" else process.pid, how)
    assert process.wait(timeout=60) == code
    assert "Traceback" not in process.stderr.read()
    wait_until_gone(worker)
    assert next(tmp_path.glob("runs/*/*/*/checkpoint.pt")).is_file()

    second = subprocess.run(long_run(faces, tmp_path), capture_output=True, text=True, check=True)
    assert "epoch 2/5" in second.stderr, "finished epochs are shown again"
    resumed = run_folder(tmp_path)
    assert not (resumed / "checkpoint.pt").exists()
    assert same_history(resumed, uninterrupted)
    for split in ("val", "test"):
        with np.load(resumed / f"{split}.npz") as a, np.load(uninterrupted / f"{split}.npz") as b:
            assert all(np.array_equal(a[key], b[key]) for key in b.files)
    a, b = load_file(resumed / "weights.safetensors"), load_file(uninterrupted / "weights.safetensors")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_runs_at_once_stop_together(how, code, faces, tmp_path):
    process = started([*long_run(faces, tmp_path), "--seeds", "0,1", "--jobs-per-gpu", "2"])
    assert process.stderr is not None
    seen = ""
    while not all(f"seed {seed}: epoch 1/5" in seen for seed in (0, 1)):
        line = process.stderr.readline()
        assert line, seen
        seen += line
    workers = workers_of(process)
    assert len(workers) == 2
    process.send_signal(how)
    assert process.wait(timeout=60) == code
    assert "Traceback" not in process.stderr.read()
    for worker in workers:
        wait_until_gone(worker)
    assert len(list(tmp_path.glob("runs/*/*/*/checkpoint.pt"))) == 2
    assert not list(tmp_path.glob("runs/*/*/*/record.json"))


def test_runs_at_once_end_in_the_same_bits_as_one_alone(faces, tmp_path, uninterrupted):
    command = [*long_run(faces, tmp_path), "--seeds", "0,1", "--jobs-per-gpu", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"^up to 2 runs at once: [0-9,]+ training images/s together$", result.stderr, re.MULTILINE)
    first, second = sorted(p.parent for p in tmp_path.glob("runs/*/*/*/record.json"))
    assert same_history(first, uninterrupted)
    assert not same_history(second, uninterrupted), "another seed"


@pytest.mark.parametrize("n", ["0", "-1", "1.5", "two", ""])
def test_number_of_jobs_is_a_whole_number_from_1(n, ferbench, faces, tmp_path):
    result = ferbench("run", "--models", "plain_cnn", "--data", faces, "--jobs-per-gpu", n)
    assert result.returncode == 2
    assert result.stderr == f"ferbench: --jobs-per-gpu {n!r}: expected a whole number from 1\n"
    assert not (tmp_path / "results").exists()


def wait_until_gone(pid: int) -> None:
    for _ in range(300):
        if not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


def same_history(a: Path, b: Path) -> bool:
    def history(folder: Path) -> list[dict]:
        rows = json.loads((folder / "record.json").read_text())["history"]
        timing = ("seconds", "images_per_second")
        return [{k: v for k, v in row.items() if k not in timing} for row in rows]

    return history(a) == history(b)
