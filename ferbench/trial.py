"""One trial of a study: a training that val alone judges, on data without a test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.environment import choose_device
from ferbench.evaluation.throughput import measure_throughput
from ferbench.models.cost import count_cost
from ferbench.runner import checkpoint_of, chosen_arithmetic, set_up
from ferbench.training.epochs import Watcher
from ferbench.training.fit import fit

if TYPE_CHECKING:
    from ferbench.data.dataset import Dataset
    from ferbench.records.store import Store
    from ferbench.spec import RunSpec
    from ferbench.training.fit import Trainer

INFERENCE_BATCH = 256
"""At which images_per_second is measured."""


def run_trial(
    spec: RunSpec,
    dataset: Dataset,
    store: Store,
    folder: Path,
    device_name: str,
    watcher: Watcher,
    objectives: Sequence[str],
) -> dict[str, Any]:
    """The values of a trial that ran to its end, and its best epoch; it goes on from a checkpoint.

    Args:
        folder: of its checkpoint.
        watcher: ends the trial by raising.
        objectives: see `records.study.StudySpec`.

    Raises:
        ValueError: the data set has a test split: nothing of a study may depend on one.
        TrainingDivergedError: the loss, or what the network says of val, is no longer finite.
    """
    if dataset.test is not None:
        raise ValueError("a trial was given a test split")
    device = choose_device(device_name)
    checkpoint = checkpoint_of(spec, folder, device, store)
    choice = chosen_arithmetic(spec, dataset, device, checkpoint)
    prepared = set_up(spec, dataset, choice.arithmetic)
    fitted = fit(prepared.trainer, prepared.validate, checkpoint, watcher)
    best = asdict(fitted.history[fitted.best_epoch - 1])
    values = [best[f"val_{objectives[0]}"], *(_cost(name, spec, dataset, prepared.trainer) for name in objectives[1:])]
    return {"values": values, "best_epoch": fitted.best_epoch}


def _cost(name: str, spec: RunSpec, dataset: Dataset, trainer: Trainer) -> float:
    if name == "images_per_second":
        size = spec.recipe.model.input_size
        rates = measure_throughput(trainer.network, size, trainer.arithmetic)
        return next(rate for batch, rate, _ in rates if batch == INFERENCE_BATCH)
    if name == "parameters":
        return float(sum(p.numel() for p in trainer.network.parameters()))
    return float(count_cost(spec.recipe.model, len(dataset.classes))[1])
