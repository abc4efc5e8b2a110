"""How long a run should take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ferbench.again import stage_of
from ferbench.data.protocol import training_subset
from ferbench.environment import choose_device
from ferbench.evaluation.views import view_maps
from ferbench.probe import choose_arithmetic
from ferbench.recipe import ONE_SIZE
from ferbench.runner import set_up
from ferbench.training.epochs import Nobody, ValScores

if TYPE_CHECKING:
    from torch import nn

    from ferbench.data.dataset import Dataset
    from ferbench.spec import RunSpec


CPU_BATCHES = 4
GPU_BATCHES = 40
"""Enough that the first ones and a smaller last one, which are not replayed, do not set the pace."""


def estimate_seconds(spec: RunSpec, dataset: Dataset, device_name: str) -> float:
    """How long a run should take, from a few training steps and evaluation batches timed here and now."""
    epochs, staged = spec.own_epochs, spec.source != spec and spec.own_epochs > 0
    spec = stage_of(spec) if staged else spec
    # one stage too: what is prepared is prepared before the timed epoch
    training = spec.recipe.training.model_copy(update=ONE_SIZE if staged else {**ONE_SIZE, "freeze_epochs": 0})
    spec = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"training": training})})
    # a share of every class: a loss may refuse to leave one out
    n_batches = GPU_BATCHES if choose_device(device_name).type == "cuda" else CPU_BATCHES
    train = training_subset(dataset.train, n_batches * spec.batch_size / len(dataset.train))
    val = dataset.val.take(np.arange(min(512, len(dataset.val))))
    choice = choose_arithmetic(spec, len(dataset.classes), choose_device(device_name))
    prepared = set_up(spec, dataset, choice.arithmetic, train)
    trainer, evaluations = prepared.trainer, []

    def validate(network: nn.Module, size: int) -> ValScores:
        start = time.perf_counter()
        prepared.predict(network, "val", val)
        evaluations.append(time.perf_counter() - start)
        return ValScores(0.0, 0.0, 0.0)

    trainer.epochs = 2
    trainer.freeze_epochs = 2 if staged else 0
    for _ in range(2):
        timed = trainer.run_epoch(validate, Nobody())
    images = len(training_subset(dataset.train, spec.budget.fraction))
    per_image = evaluations[-1] / len(val)
    n_test = 0 if dataset.test is None else len(dataset.test)
    if spec.tta != "none":
        return (len(dataset.val) + n_test) * per_image * len(view_maps(spec.tta))
    if not epochs:
        # val once more, for the choice that it makes
        return (2 * len(dataset.val) + n_test) * per_image
    epoch = images / timed.images_per_second + len(dataset.val) * per_image
    return epochs * epoch + (len(dataset.val) + n_test) * per_image
