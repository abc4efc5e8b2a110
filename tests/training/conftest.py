"""A data set that is learned in seconds, and a training of the plain CNN on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ferbench.data.dataset import Dataset, Split
from ferbench.inputs import load_recipe
from ferbench.probe import choose_arithmetic
from ferbench.runner import Prepared, set_up
from ferbench.spec import Budget, DataKey, RunSpec

SIDE = 16
SHARES = np.array([0, 0, 0, 1, 1, 2], np.uint8)
"""Three classes, three to two to one."""

# every number that a test counts on, so that tuning the shipped recipes changes no test
SMALL = {
    "model.input_size": SIDE,
    "model.dropout": 0.2,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.03,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "optimizer.clip_norm": 0.0,
    "optimizer.backbone_lr": 1.0,
    "optimizer.layer_decay": 1.0,
    "schedule.name": "one_cycle",
    "schedule.warmup": 0.2,
    "schedule.start": 0.05,
    "schedule.final": 0.001,
    "training.epochs": 4,
    "training.batch_size": 16,
    "training.precision.cpu": "fp32",
    "training.channels_last": True,
    "training.label_smoothing": 0.1,
    "training.ema_decay": 0.0,
    "training.start_size": 0,
    "training.select": "accuracy",
    "training.patience": 0,
    "training.freeze_epochs": 0,
    "training.freeze_norm": False,
    # the place of the spot is the class, so geometry must not move it much
    "augment.flip": 0.0,
    "augment.shift": 0.05,
    "augment.rotate": 0.0,
    "augment.zoom": 0.12,
    "augment.brightness": 0.1,
    "augment.contrast": 0.2,
    "augment.erase": 0.25,
    "augment.erase_size": 0.15,
    "augment.mixup": 0.0,
    "augment.cutmix": 0.0,
}


class Nobody:
    def on_note(self, text: str) -> None: ...
    def on_batch(self, epoch: int, images: int) -> None: ...
    def on_epoch(self, epoch: object) -> None: ...


def spots(n: int, seed: int) -> Split:
    """Noise with a white spot at the upper left, the middle or the lower right."""
    labels = np.resize(SHARES, n)
    images = np.random.default_rng(seed).integers(60, 190, (n, SIDE, SIDE)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        at = slice(label * 5, label * 5 + 5)
        image[at, at] = 255
    return Split(images, labels, tuple(f"image {i}" for i in range(n)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are split by thread, so bits are only the same with as many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def nobody() -> Nobody:
    return Nobody()


@pytest.fixture
def make_bench() -> Callable[..., Prepared]:
    """A run of the plain CNN set up on 48 of these images, with overrides of the small recipe."""

    def build(
        overrides: dict[str, Any] | None = None, *, strategy: str = "none", seed: int = 0, n: int = 48
    ) -> Prepared:
        recipe = load_recipe("plain_cnn", strategy=strategy, overrides={**SMALL, **(overrides or {})})
        dataset = Dataset("spots", "test", ("upper", "middle", "lower"), spots(n, 0), spots(24, 1), None, "0", False)
        budget = Budget(name="full", fraction=1.0, epochs=0, batch_size=0)
        key = DataKey(name="spots", fingerprint="0", protocol="official")
        spec = RunSpec(recipe=recipe, seed=seed, budget=budget, data=key)
        return set_up(spec, dataset, choose_arithmetic(spec, 3, torch.device("cpu")).arithmetic)

    return build
