from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's data, settings or results; the cache is shared by the tests of a session."""
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("FERBENCH_CACHE", str(base / "cache"))
    monkeypatch.setenv("FERBENCH_CONFIG", str(base / "config"))
    monkeypatch.delenv("FERBENCH_DATA", raising=False)
    monkeypatch.delenv("FERBENCH_RESULTS", raising=False)


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
