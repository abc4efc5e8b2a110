"""How long a user waits before anything happens: commands, the first and every later load of a data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ferbench.environment import describe
from ferbench.errors import InputError
from ferbench.records.bench import BenchRecord, BenchRow, rounded
from ferbench.records.record import Environment, utc_now

if TYPE_CHECKING:
    from ferbench.data.dataset import Dataset

COMMANDS = {"ferbench --help": ["--help"], "ferbench list models": ["list", "models"]}
_USAGES = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
_LOAD = """
import json, sys, time
start = time.perf_counter()
from ferbench.data import load
load(sys.argv[1])
seconds = time.perf_counter() - start
from ferbench.environment import peak_resident_bytes
print(json.dumps([seconds, peak_resident_bytes() / 1e6]))
"""


def measure_start(dataset: Dataset, rounds: int) -> BenchRecord:
    """Seconds of commands and loads, each in a process of its own; loads are of the data set as a competition CSV."""
    side = dataset.train.images.shape[1:]
    if side != (48, 48) or len(dataset.classes) > 7:
        raise InputError(
            f"{dataset.name}: the start suite writes it as a competition CSV, which holds 48x48 images of 7 classes"
        )
    rows = []
    for name, words in COMMANDS.items():
        rows.append(BenchRow(name=name, samples={"s": rounded([_command(words) for _ in range(rounds)])}))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fer2013.csv"
        _write_csv(dataset, file)
        first = [_load(file, Path(folder) / f"cache{i}") for i in range(rounds)]
        later = [_load(file, Path(folder) / "cache0") for _ in range(rounds)]
    for name, loads in (("competition CSV, first load", first), ("competition CSV, cached", later)):
        seconds, peak = zip(*loads, strict=True)
        rows.append(BenchRow(name=name, samples={"s": rounded(list(seconds)), "MB": rounded(list(peak))}))
    return BenchRecord(
        suite="start",
        subject="ferbench",
        finished_at=utc_now(),
        environment=Environment(**describe(torch.device("cpu"))),
        settings={"data": dataset.name, "images": sum(len(s) for _, s in dataset.splits())},
        rows=rows,
    )


def _command(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ferbench", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _load(file: Path, cache: Path) -> tuple[float, float]:
    """Seconds and peak MB of loading a file, imports included, the interpreter's own start not."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(file)],
        env={**os.environ, "FERBENCH_CACHE": str(cache)},
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def _write_csv(dataset: Dataset, path: Path) -> None:
    with path.open("w", encoding="ascii") as file:
        file.write("emotion,pixels,Usage\n")
        for name, split in dataset.splits():
            for image, label in zip(split.images, split.labels, strict=True):
                pixels = " ".join(map(str, image.ravel().tolist()))
                file.write(f"{label},{pixels},{_USAGES[name]}\n")
