"""One run from data to record: the one place where the whole line is visible."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ferbench.data.dataset import Dataset, Split, image_ids
from ferbench.data.protocol import clean_test, training_subset
from ferbench.environment import Arithmetic, choose_device, describe, peak_memory_bytes, stream_seed
from ferbench.errors import InputError
from ferbench.evaluation.metrics import compute, scores_by_split
from ferbench.evaluation.predict import predict_logits
from ferbench.evaluation.predictions import Predictions, predictions_of
from ferbench.evaluation.throughput import BATCH_SIZES, measure_throughput
from ferbench.models import MODELS, build, head_name
from ferbench.models.cost import count_cost
from ferbench.probe import Choice, choose_arithmetic
from ferbench.records.places import HONEST
from ferbench.records.record import SHARED, ArithmeticUsed, Cost, Environment, EpochRow, RunRecord, Throughput, utc_now
from ferbench.records.store import CHECKPOINT, Store, weights_digest
from ferbench.training.batches import Batches
from ferbench.training.checkpoint import Checkpoint
from ferbench.training.epochs import ValScores, Watcher
from ferbench.training.fit import Fitted, Trainer, TrainingDivergedError, fit
from ferbench.training.heads import replace_head
from ferbench.training.strategies import strategy_of
from ferbench.training.treatment import Treatment

if TYPE_CHECKING:
    from pathlib import Path

    from ferbench.recipe import Recipe
    from ferbench.spec import RunSpec

CHECKPOINT_VERSION = 4
"""Raised whenever older checkpoints cannot be gone on from."""


@dataclass(frozen=True)
class Prepared:
    """A run set up on a device: its trainer and the ways to evaluate it."""

    spec: RunSpec
    dataset: Dataset
    trainer: Trainer

    def predict(self, network: nn.Module, name: str, split: Split, size: int = 0) -> Predictions:
        """A network's predictions on a split, at the recipe's input size where no other is given."""
        return predict_split(network, self.spec.recipe, self.dataset, self.trainer.arithmetic, name, split, size)

    def validate(self, network: nn.Module, size: int) -> ValScores:
        """What val says of a network, at that image size."""
        scores = compute(self.predict(network, "val", self.dataset.val, size), "accuracy", "macro_f1", "nll")
        return ValScores(scores["accuracy"], scores["macro_f1"], scores["nll"], self._honest_score(network, size))

    def _honest_score(self, network: nn.Module, size: int) -> float | None:
        """Where test chooses the epoch: the score by which val would have."""
        honest = self.dataset.honest
        if honest is None:
            return None
        select = self.spec.recipe.training.select
        return compute(self.predict(network, "val", honest, size), select)[select]


def predict_split(
    network: nn.Module,
    recipe: Recipe,
    dataset: Dataset,
    arithmetic: Arithmetic,
    name: str,
    split: Split,
    size: int = 0,
) -> Predictions:
    """A network's predictions on a split, at the recipe's input size where no other is given.

    Raises:
        TrainingDivergedError: they are not finite: the loss of the last batches came before their update.
    """
    batches = Batches.of(split, len(dataset.classes), recipe.model, recipe.training, arithmetic)
    logits = predict_logits(network, batches.evaluation(size or recipe.model.input_size), arithmetic)
    if not np.isfinite(logits).all():
        raise TrainingDivergedError(f"training diverged: the logits of {name} are not all finite")
    return predictions_of(name, dataset.classes, image_ids(name, len(split)), split.labels, logits)


@dataclass(frozen=True)
class Stage:
    """What a run goes on from."""

    set_up: Callable[[RunSpec, Dataset, Arithmetic], Prepared]
    """In place of `set_up`."""
    cost: Cost
    """Of the run before."""
    finished_at: str
    """When that had ended."""


def set_up(
    spec: RunSpec,
    dataset: Dataset,
    arithmetic: Arithmetic,
    train: Split | None = None,
    network: nn.Module | None = None,
) -> Prepared:
    """A run ready to be trained.

    Args:
        arithmetic: see `probe.choose_arithmetic`.
        train: training images instead of the budget's share of the data set's.
        network: in place of the recipe's, as it was drawn.
    """
    recipe, n_classes = spec.recipe, len(dataset.classes)
    torch.manual_seed(stream_seed(spec.seed, "init"))
    network = (
        (network or build_network(recipe, n_classes)).to(arithmetic.device).to(memory_format=arithmetic.memory_format)
    )
    images = training_subset(dataset.train, spec.budget.fraction) if train is None else train
    strategy = strategy_of(recipe.imbalance.strategy)
    trainer = Trainer(
        network,
        head_name(MODELS[recipe.model.name], network),
        Batches.of(images, n_classes, recipe.model, recipe.training, arithmetic, spec.batch_size),
        Treatment(strategy, images.counts(n_classes), recipe.imbalance.params, images.labels),
        recipe,
        epochs=spec.epochs,
        seed=spec.seed,
        arithmetic=arithmetic,
    )
    return Prepared(spec, dataset, trainer)


def build_network(recipe: Recipe, n_classes: int) -> nn.Module:
    """A recipe's network, with the classifier that its strategy asks for."""
    network, strategy = build(recipe.model, n_classes), strategy_of(recipe.imbalance.strategy)
    replace_head(network, head_name(MODELS[recipe.model.name], network), strategy.head, recipe.imbalance.params)
    return network


def check_dataset(spec: RunSpec, dataset: Dataset) -> None:
    """Refuse data that a run was not asked for.

    Raises:
        InputError: they are not those of the spec, or have no test split.
    """
    if dataset.fingerprint != spec.data.fingerprint:
        raise InputError(f"{spec.id}: the data have fingerprint {dataset.fingerprint}, not {spec.data.fingerprint}")
    if dataset.test is None:
        raise InputError(f"{dataset.name} has no test split: nothing could be reported")


def run_one(
    spec: RunSpec,
    dataset: Dataset,
    store: Store,
    device_name: str,
    watcher: Watcher,
    at_once: int = 1,
    notes: Sequence[str] = (),
    after: Stage | None = None,
) -> RunRecord:
    """The stored record of a finished run; training goes on from the checkpoint if there is one.

    Args:
        at_once: how many runs share the device, which the record must say: its speeds are not those of one alone.
        notes: what else the record must say.
        after: the run that this one goes on from, if there is one.

    Raises:
        InputError: the data are not those of the spec, or have no test split.
        TrainingDivergedError: the loss, or what the network says of val, is no longer finite.
    """
    check_dataset(spec, dataset)
    start = time.perf_counter()
    device = choose_device(device_name)
    # now, not at the end: the source may change while a run goes on
    environment = Environment(**describe(device))
    since = None if after is None else after.finished_at
    init = weights_digest(spec.recipe.model.init)
    checkpoint = checkpoint_of(spec, store.folder(spec), device, store, since)
    choice = chosen_arithmetic(spec, dataset, device, checkpoint)
    if device.type == "cuda":
        # the probe's candidates need more than the run, whose peak is recorded
        torch.cuda.reset_peak_memory_stats(device)
    watcher.on_note(f"computes in {choice}")
    prepared = (set_up if after is None else after.set_up)(spec, dataset, choice.arithmetic)
    # now, not at the end: a network whose operations cannot be counted must not be trained in vain
    macs = count_cost(spec.recipe.model, len(dataset.classes))[1]
    fitted = fit(prepared.trainer, prepared.validate, checkpoint, watcher)
    trained = time.perf_counter()
    predictions = _predictions(prepared, fitted)
    scores = scores_by_split(predictions, clean_test(dataset))
    seconds = max(fitted.elapsed, trained - start) + time.perf_counter() - trained
    cost = _cost(prepared, fitted, seconds, macs, after)
    record = RunRecord(
        id=spec.id,
        spec=spec,
        status="ok",
        reason=None,
        finished_at=utc_now(),
        best_epoch=fitted.best_epoch,
        history=[EpochRow(**asdict(e)) for e in fitted.history],
        scores=scores,
        cost=cost,
        environment=environment,
        arithmetic=_used(choice),
        source_finished_at=since,
        init_digest=init,
        notes=[*dataset.notes, *notes, *_own_notes(prepared, at_once), *untimed(cost.inference)],
    )
    store.write_run(record, predictions, weights_of(prepared.trainer.network))
    checkpoint.path.unlink(missing_ok=True)
    return record


def _used(choice: Choice) -> ArithmeticUsed:
    used = choice.arithmetic
    return ArithmeticUsed(precision=used.name, channels_last=used.channels_last, probe=choice.images_per_second)


def _predictions(prepared: Prepared, fitted: Fitted) -> list[Predictions]:
    """Of val and test; where test chose the epoch, also those of test at the epoch that val would have chosen."""
    dataset, network = prepared.dataset, prepared.trainer.network
    assert dataset.test is not None
    found = [prepared.predict(network, "val", dataset.val), prepared.predict(network, "test", dataset.test)]
    if fitted.rival_weights:
        rival = copy.deepcopy(network)
        rival.load_state_dict(fitted.rival_weights)
        found.append(replace(prepared.predict(rival, "test", dataset.test), split=HONEST))
    return found


def _cost(prepared: Prepared, fitted: Fitted, seconds: float, macs: int, after: Stage | None) -> Cost:
    spec, trainer = prepared.spec, prepared.trainer
    # before the speed of inference is measured, which takes memory of its own
    peak = peak_memory_bytes(trainer.arithmetic.device)
    trained = [(e.seconds, e.images_per_second) for e in fitted.history]
    if after is not None:
        trained.append((after.cost.train_seconds, after.cost.images_per_second))
        seconds += after.cost.total_seconds
    train_seconds = sum(s for s, _ in trained)
    return Cost(
        train_seconds=train_seconds,
        total_seconds=seconds,
        images_per_second=sum(s * rate for s, rate in trained) / train_seconds,
        peak_memory_bytes=peak,
        # a strategy may have another classifier
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        macs=macs,
        inference=throughput_of(trainer.network, spec, trainer.arithmetic),
    )


def throughput_of(network: nn.Module, spec: RunSpec, arithmetic: Arithmetic) -> list[Throughput]:
    """How fast a run's network is at inference."""
    return [
        Throughput(batch_size=b, images_per_second=rate, rounds=rounds)
        for b, rate, rounds in measure_throughput(network, spec.recipe.model.input_size, arithmetic)
    ]


def checkpoint_of(
    spec: RunSpec, folder: Path, device: torch.device, store: Store, since: str | None = None
) -> Checkpoint:
    """Where a run's state is kept while it is under way.

    Args:
        since: when the run had ended that it starts from, if there is one.
    """
    origin = since or weights_digest(spec.recipe.model.init)
    key = f"{CHECKPOINT_VERSION} {spec.fingerprint} {device.type}{f' {origin}' if origin else ''}"
    return Checkpoint(folder / CHECKPOINT, key, store.writing)


def chosen_arithmetic(spec: RunSpec, dataset: Dataset, device: torch.device, checkpoint: Checkpoint) -> Choice:
    """What a stopped run computed in, so that it ends in the same bits, or what a new one should."""
    choice = choose_arithmetic(spec, len(dataset.classes), device)
    saved = checkpoint.load()
    return choice if saved is None else replace(choice, arithmetic=Arithmetic(device, *saved["arithmetic"]))


def shared(at_once: int) -> list[str]:
    """What the record of a run says that had others beside it."""
    return [f"up to {at_once} runs {SHARED}: speeds are lower than alone"] if at_once > 1 else []


def untimed(inference: Sequence[Throughput]) -> list[str]:
    """What a record says of batches whose inference speed it lacks."""
    missing = sorted({*BATCH_SIZES} - {t.batch_size for t in inference})
    return [f"no memory for the speed of inference with {size} images at once" for size in missing]


def _own_notes(prepared: Prepared, at_once: int) -> list[str]:
    used = prepared.trainer.arithmetic
    wanted = getattr(prepared.spec.recipe.training.precision, used.device.type)
    told = []
    if wanted not in ("auto", used.name):
        told.append(f"{wanted} is not to be had on this device: {used.name} was used")
    return told + shared(at_once) + prepared.trainer.notes


def weights_of(network: nn.Module) -> bytes:
    """The content of a file of weights."""
    from safetensors.torch import save

    return save({k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()})
