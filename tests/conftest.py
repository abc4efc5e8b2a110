from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ferbench.evaluation.metrics import score
from ferbench.evaluation.predictions import Predictions
from ferbench.inputs import load_budget, load_recipe
from ferbench.records.record import Environment, EpochRow, RunRecord, failed_record
from ferbench.spec import DataKey, RunSpec

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the user's data, settings or results; the cache is shared by the tests of a session."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERBENCH_CACHE", str(base / "cache"))
        patch.setenv("FERBENCH_CONFIG", str(base / "config"))
        # how fast a network is does not matter to most tests, and takes four seconds a run
        patch.setenv("FERBENCH_TIMED_SECONDS", "0.05")
        patch.delenv("FERBENCH_DATA", raising=False)
        patch.delenv("FERBENCH_RESULTS", raising=False)
        yield


@pytest.fixture
def ferbench(tmp_path: Path) -> Command:
    """The command line, run in an empty folder as a user's shell would."""

    def run(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ferbench", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", **(env or {})},
            capture_output=True,
            text=True,
            timeout=400,
        )

    return run


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set of 210 + 70 + 70 drawn faces, `split/class/image.png`."""
    from PIL import Image

    from ferbench.data.synthetic import generate

    dataset = generate(seed=5, train=210, val=70, test=70)
    root = tmp_path_factory.mktemp("data") / "faces"
    for name, split in dataset.splits():
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            folder = root / name / dataset.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i}.png")
    return root


CLASSES = ("angry", "happy", "sad")


@pytest.fixture
def spec() -> RunSpec:
    key = DataKey(name="faces", fingerprint="f00d", protocol="official")
    return RunSpec(recipe=load_recipe("plain_cnn"), seed=3, budget=load_budget("quick"), data=key)


@pytest.fixture
def environment() -> Environment:
    known = {"commit": None, "platform": "Linux", "device": "a CPU", "device_type": "cpu", "threads": 2}
    versions = dict.fromkeys(("ferbench", "python", "torch", "torchvision", "timm", "numpy", "scikit_learn"), "1.0")
    return Environment.model_validate({**versions, **known})


@pytest.fixture
def predictions() -> list[Predictions]:
    """Val and test, two images each, the second one wrong."""
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], np.float32)
    return [
        Predictions(s, CLASSES, np.array([f"{s}-00000", f"{s}-00001"]), np.array([0, 2], np.uint8), probabilities)
        for s in ("val", "test")
    ]


@pytest.fixture
def finished(environment: Environment, predictions: list[Predictions]) -> Callable[[RunSpec], RunRecord]:
    """The record of a run that ended well."""
    row = EpochRow(
        epoch=1, lr=0.1, train_loss=1.5, val_accuracy=0.5, val_macro_f1=1 / 3, val_nll=0.7, seconds=2.0,
        images_per_second=105.0,
    )  # fmt: skip
    changes = {"status": "ok", "reason": None, "best_epoch": 1, "history": [row], "notes": ["grün"]}

    def build(spec: RunSpec) -> RunRecord:
        scores = {p.split: score(p) for p in predictions}
        return failed_record(spec, "", environment).model_copy(update={**changes, "scores": scores})

    return build
