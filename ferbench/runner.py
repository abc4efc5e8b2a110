"""One run from data to record: the one place where the whole line is visible."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ferbench.data.dataset import Dataset, Split
from ferbench.data.protocol import training_subset
from ferbench.environment import Arithmetic, choose_arithmetic, choose_device, describe, stream_seed
from ferbench.errors import InputError
from ferbench.evaluation.metrics import METRICS, score
from ferbench.evaluation.predict import predict_logits
from ferbench.evaluation.predictions import Predictions, predictions_of
from ferbench.evaluation.throughput import measure_throughput
from ferbench.models import MODELS, build, head_name
from ferbench.models.cost import count_cost
from ferbench.records.record import Cost, Environment, EpochRow, RunRecord, Throughput, utc_now
from ferbench.records.store import Store
from ferbench.training.batches import Batches
from ferbench.training.checkpoint import Checkpoint
from ferbench.training.fit import Trainer, ValScores, Watcher, fit
from ferbench.training.imbalance import STRATEGIES, build_loss, image_weights

if TYPE_CHECKING:
    from ferbench.recipe import RunSpec


@dataclass(frozen=True)
class Bench:
    """A run set up on a device: its trainer and the ways to evaluate it."""

    spec: RunSpec
    dataset: Dataset
    arithmetic: Arithmetic
    trainer: Trainer

    def predict(self, network: nn.Module, name: str, split: Split) -> Predictions:
        """A network's predictions on a split."""
        recipe, classes = self.spec.recipe, self.dataset.classes
        batches = Batches.of(split, len(classes), recipe.model, recipe.training, self.arithmetic.device)
        logits = predict_logits(network, batches.evaluation(), self.arithmetic)
        ids = self.dataset.image_ids(name)[: len(split)]
        return predictions_of(name, classes, ids, split.labels, logits)

    def validate(self, network: nn.Module) -> ValScores:
        """What val says of a network."""
        predictions = self.predict(network, "val", self.dataset.val)
        true, k = predictions.labels, len(predictions.classes)
        likelihood = predictions.probabilities[np.arange(len(true)), true]
        return ValScores(
            accuracy=METRICS["accuracy"].compute(true, predictions.predicted, k),
            macro_f1=METRICS["macro_f1"].compute(true, predictions.predicted, k),
            nll=float(-np.log(np.maximum(likelihood, 1e-12)).mean()),
        )


def set_up(spec: RunSpec, dataset: Dataset, device: torch.device, train: Split | None = None) -> Bench:
    """A run ready to be trained.

    Args:
        train: training images instead of the budget's share of the data set's.
    """
    recipe, n_classes = spec.recipe, len(dataset.classes)
    arithmetic = choose_arithmetic(getattr(recipe.training.precision, device.type), device)
    torch.manual_seed(stream_seed(spec.seed, "init"))
    network = build(recipe.model, n_classes).to(device)
    if recipe.training.channels_last:
        network = network.to(memory_format=torch.channels_last)
    images = training_subset(dataset.train, spec.budget.fraction) if train is None else train
    strategy, params = STRATEGIES[recipe.imbalance.strategy], recipe.imbalance.params
    counts = images.counts(n_classes)
    trainer = Trainer(
        network,
        head_name(MODELS[recipe.model.name], network),
        Batches.of(images, n_classes, recipe.model, recipe.training, device, spec.batch_size),
        build_loss(strategy, counts, params),
        recipe,
        epochs=spec.epochs,
        seed=spec.seed,
        arithmetic=arithmetic,
        image_weights=image_weights(strategy, counts, params, images.labels),
    )
    return Bench(spec, dataset, arithmetic, trainer)


def run_one(spec: RunSpec, dataset: Dataset, store: Store, device_name: str, watcher: Watcher) -> RunRecord:
    """The stored record of a finished run; training goes on from the checkpoint if there is one.

    Raises:
        InputError: the data are not those of the spec, or have no test split.
        TrainingDivergedError: the loss is no longer finite.
    """
    if dataset.fingerprint != spec.data.fingerprint:
        raise InputError(f"{spec.id}: the data have fingerprint {dataset.fingerprint}, not {spec.data.fingerprint}")
    if dataset.test is None:
        raise InputError(f"{dataset.name} has no test split: nothing could be reported")
    start = time.perf_counter()
    device = choose_device(device_name)
    # now, not at the end: the source may change while a run goes on
    environment = Environment(**describe(device))
    bench = set_up(spec, dataset, device)
    folder = store.folder(spec)
    checkpoint = Checkpoint(folder / "checkpoint.pt", f"{spec.fingerprint} {device.type}", store.writing)
    trainer = bench.trainer
    fitted = fit(trainer, bench.validate, checkpoint, watcher)
    this_sitting = time.perf_counter() - start
    predictions = [
        bench.predict(trainer.network, "val", dataset.val),
        bench.predict(trainer.network, "test", dataset.test),
    ]
    peak = peak_memory_bytes(device)
    parameters, macs = count_cost(spec.recipe.model, len(dataset.classes))
    train_seconds = sum(e.seconds for e in fitted.history)
    cost = Cost(
        train_seconds=train_seconds,
        total_seconds=max(fitted.elapsed, this_sitting),
        images_per_second=sum(e.seconds * e.images_per_second for e in fitted.history) / train_seconds,
        peak_memory_bytes=peak,
        parameters=parameters,
        macs=macs,
        inference=[
            Throughput(batch_size=b, images_per_second=rate, rounds=rounds)
            for b, rate, rounds in measure_throughput(
                trainer.network, spec.recipe.model.input_size, spec.recipe.training.channels_last, bench.arithmetic
            )
        ],
    )
    record = RunRecord(
        id=spec.id,
        spec=spec,
        status="ok",
        reason=None,
        finished_at=utc_now(),
        best_epoch=fitted.best_epoch,
        history=[EpochRow(**asdict(e)) for e in fitted.history],
        scores={p.split: score(p) for p in predictions},
        cost=cost,
        environment=environment,
        notes=[*dataset.notes, *_arithmetic_note(spec, bench.arithmetic)],
    )
    _write_weights(store, spec, trainer.network)
    store.write_run(record, predictions)
    checkpoint.path.unlink(missing_ok=True)
    return record


def estimate_seconds(spec: RunSpec, dataset: Dataset, device_name: str) -> float:
    """How long a run should take, from a few training steps and evaluation batches timed here and now."""
    # a share of every class: a loss may refuse to leave one out
    train = training_subset(dataset.train, 4 * spec.batch_size / len(dataset.train))
    val = dataset.val.take(np.arange(min(512, len(dataset.val))))
    bench = set_up(spec, dataset, choose_device(device_name), train)
    trainer, evaluations = bench.trainer, []

    def validate(network: nn.Module) -> ValScores:
        start = time.perf_counter()
        bench.predict(network, "val", val)
        evaluations.append(time.perf_counter() - start)
        return ValScores(0.0, 0.0, 0.0)

    trainer.epochs = 2
    trainer.freeze_epochs = 0
    for _ in range(2):
        timed = trainer.run_epoch(validate, _Nobody())
    images = len(training_subset(dataset.train, spec.budget.fraction))
    per_image = evaluations[-1] / len(val)
    n_test = 0 if dataset.test is None else len(dataset.test)
    epoch = images / timed.images_per_second + len(dataset.val) * per_image
    return spec.epochs * epoch + (len(dataset.val) + n_test) * per_image


class _Nobody:
    def on_batch(self, epoch: int, images: int) -> None:
        pass

    def on_epoch(self, epoch: object) -> None:
        pass


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: on the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _arithmetic_note(spec: RunSpec, arithmetic: Arithmetic) -> list[str]:
    wanted = getattr(spec.recipe.training.precision, arithmetic.device.type)
    return (
        [] if wanted == arithmetic.name else [f"{wanted} is not to be had on this device: {arithmetic.name} was used"]
    )


def _write_weights(store: Store, spec: RunSpec, network: nn.Module) -> None:
    from safetensors.torch import save

    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    store.write(store.folder(spec) / "weights.safetensors", save(tensors))
