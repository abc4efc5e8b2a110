"""Invented runs with few images, so that every score can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferbench.evaluation.metrics import score
from ferbench.evaluation.predictions import Predictions
from ferbench.inputs import load_budget, load_recipe
from ferbench.records.record import Cost, Environment, EpochRow, RunRecord, Throughput
from ferbench.records.store import Store
from ferbench.spec import DataKey, RunSpec

CLASSES = ("angry", "happy", "sad")
LABELS = {"val": [0, 1, 2, 2], "test": [0, 0, 1, 1, 2]}

# test labels are 0 0 1 1 2, val labels 0 1 2 2
#
#   model      seed  test predicted  accuracy  F1 angry  happy  sad   macro-F1  val predicted  val accuracy
#   resnet18   0     0 0 1 1 2       1.0       1         1      1     1         0 1 2 2        1.0
#   resnet18   1     0 0 1 1 0       0.8       4/5       1      0     3/5       0 1 2 0        0.75
#   vgg16      0     0 1 1 1 2       0.8       2/3       4/5    1     37/45     0 1 2 2        1.0
#   vgg16      1     0 1 1 1 2       0.8       2/3       4/5    1     37/45     0 1 2 2        1.0
#   plain_cnn  0     0 0 1 2 2       0.8       1         2/3    2/3   7/9       0 1 1 1        0.5
#   plain_cnn  1     0 0 1 2 2       0.8       1         2/3    2/3   7/9       0 1 2 1        0.75
#
# so resnet18 leads with 0.9 (sd 0.2/sqrt 2); vgg16 and plain_cnn tie at 0.8, and macro-F1 puts vgg16 first
PREDICTED = {
    ("resnet18", 0): ([0, 0, 1, 1, 2], [0, 1, 2, 2]),
    ("resnet18", 1): ([0, 0, 1, 1, 0], [0, 1, 2, 0]),
    ("vgg16", 0): ([0, 1, 1, 1, 2], [0, 1, 2, 2]),
    ("vgg16", 1): ([0, 1, 1, 1, 2], [0, 1, 2, 2]),
    ("plain_cnn", 0): ([0, 0, 1, 2, 2], [0, 1, 1, 1]),
    ("plain_cnn", 1): ([0, 0, 1, 2, 2], [0, 1, 2, 1]),
}
PARAMETERS = {"resnet18": 11_000_000, "vgg16": 15_000_000, "plain_cnn": 4_000_000}

Run = tuple[RunRecord, list[Predictions]]


def predictions(split: str, predicted: list[int]) -> Predictions:
    probabilities = np.full((len(predicted), 3), 0.1, np.float32)
    probabilities[np.arange(len(predicted)), predicted] = 0.8
    ids = np.array([f"{split}-{i:05d}" for i in range(len(predicted))])
    return Predictions(split, CLASSES, ids, np.array(LABELS[split], np.uint8), probabilities)


def environment(device: str = "Test GPU", **changes: Any) -> Environment:
    fields = dict.fromkeys(("ferbench", "python", "torch", "torchvision", "timm", "numpy", "scikit_learn"), "1")
    known = {"commit": "abc", "platform": "Linux", "device": device, "device_type": "cuda", "threads": 4}
    return Environment.model_validate({**fields, **known, **changes})


def history(val_accuracy: float, epochs: int = 3) -> list[EpochRow]:
    return [
        EpochRow(
            epoch=i + 1,
            lr=0.1,
            train_loss=2.0 - 0.3 * i,
            val_accuracy=val_accuracy - 0.1 * (epochs - 1 - i),
            val_macro_f1=0.5,
            val_nll=1.0,
            seconds=1.0,
            images_per_second=100.0,
        )
        for i in range(epochs)
    ]


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """A finished run and its predictions."""

    def build(
        model: str = "resnet18",
        seed: int = 0,
        *,
        strategy: str = "none",
        init: str | None = None,
        overrides: dict[str, Any] | None = None,
        budget: str = "full",
        data: str = "fer2013",
        fingerprint: str = "f00d",
        device: str = "Test GPU",
        protocol: str = "official",
    ) -> Run:
        recipe = load_recipe(model, strategy=strategy, init=init, overrides=overrides)
        key = DataKey.model_validate({"name": data, "fingerprint": fingerprint, "protocol": protocol})
        spec = RunSpec(recipe=recipe, seed=seed, budget=load_budget(budget), data=key)
        test, val = PREDICTED[model, seed]
        splits = [predictions("val", val), predictions("test", test)]
        if protocol == "oracle":
            # val would have chosen an epoch in which the first test image is wrong too
            splits.append(replace(predictions("test", [1, *test[1:]]), split="honest"))
        scores = {p.split: score(p) for p in splits}
        rates = [Throughput(batch_size=b, images_per_second=float(b * (100 + 20 * seed)), rounds=5) for b in (1, 256)]
        cost = Cost(
            train_seconds=60.0 + 30 * seed,
            total_seconds=100.0,
            images_per_second=1000.0,
            peak_memory_bytes=1,
            parameters=PARAMETERS[model],
            macs=94_000_000,
            inference=rates,
        )
        record = RunRecord(
            id=spec.id,
            spec=spec,
            status="ok",
            reason=None,
            finished_at="2026-01-01T00:00:00+00:00",
            best_epoch=3,
            history=history(scores["val"].values["accuracy"]),
            scores=scores,
            cost=cost,
            environment=environment(device),
            notes=["read from a test"],
        )
        return record, splits

    return build


@pytest.fixture
def make_failure(make_run: Callable[..., Run]) -> Callable[..., RunRecord]:
    """A failed run."""

    def build(reason: str, *args: Any, **kwargs: Any) -> RunRecord:
        record, _ = make_run(*args, **kwargs)
        changes = {"status": "failed", "reason": reason, "best_epoch": None, "history": [], "scores": {}, "cost": None}
        return record.model_copy(update=changes)

    return build


@pytest.fixture
def runs(make_run: Callable[..., Run]) -> list[Run]:
    """The six runs of the table above."""
    return [make_run(model, seed) for model, seed in PREDICTED]


@pytest.fixture
def records(runs: list[Run]) -> list[RunRecord]:
    return [record for record, _ in runs]


@pytest.fixture
def store(tmp_path: Path, runs: list[Run]) -> Store:
    """The six runs in a results folder."""
    store = Store(tmp_path / "results")
    for record, splits in runs:
        store.write_run(record, splits)
    return store
