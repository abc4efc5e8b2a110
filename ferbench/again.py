"""What is made of a finished run's weights: other views of the images, and other classifiers on the frozen backbone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ferbench.data.dataset import Dataset
from ferbench.data.protocol import clean_test
from ferbench.environment import Arithmetic, choose_device, describe, peak_memory_bytes, stream_seed
from ferbench.errors import InputError
from ferbench.evaluation.metrics import compute, scores_by_split
from ferbench.evaluation.predict import predict_logits
from ferbench.evaluation.predictions import predictions_of
from ferbench.evaluation.views import Views, view_maps
from ferbench.models import MODELS, head_name
from ferbench.recipe import ONE_SIZE
from ferbench.records.record import Environment, RunRecord, derived_record
from ferbench.records.store import WEIGHTS, Store
from ferbench.runner import (
    Prepared,
    Stage,
    build_network,
    check_dataset,
    predict_split,
    run_one,
    set_up,
    shared,
    throughput_of,
    untimed,
    weights_of,
)
from ferbench.training.batches import Batches
from ferbench.training.epochs import Watcher
from ferbench.training.heads import last_linear, put, replace_head
from ferbench.training.strategies import strategy_of

if TYPE_CHECKING:
    from ferbench.recipe import Recipe
    from ferbench.spec import RunSpec

TAUS = 31
"""Values that are tried on val, from 0 to the most."""


def run_again(
    spec: RunSpec,
    dataset: Dataset,
    store: Store,
    device_name: str,
    watcher: Watcher,
    at_once: int = 1,
    notes: Sequence[str] = (),
) -> RunRecord:
    """The stored record of a run that starts from another one's weights; arguments as `runner.run_one`.

    Raises:
        InputError: that run is not done, its weights are not there, or the data are not those of the spec.
    """
    check_dataset(spec, dataset)
    source = spec.source
    if not store.is_done(source):
        raise InputError(f"{source.id}: is not done here, and this run starts from it")
    if not (store.folder(source) / WEIGHTS).is_file():
        strategy = source.recipe.imbalance.strategy
        raise InputError(
            f"{source.id}: its weights are not here (git leaves them out): "
            f"--imbalance {strategy} --redo trains it again"
        )
    if spec.tta != "none":
        return _look_again(spec, dataset, store, device_name, at_once)
    if not spec.own_epochs:
        return _tau_normalise(spec, dataset, store, device_name, at_once)
    base = store.record(source)
    assert base.cost is not None
    told = f"{spec.own_epochs} epochs of the classifier alone on the frozen backbone of {source.id}"
    after = Stage(partial(_set_up_again, store=store), base.cost, base.finished_at)
    return run_one(spec, dataset, store, device_name, watcher, at_once, [*notes, told], after)


def _set_up_again(spec: RunSpec, dataset: Dataset, arithmetic: Arithmetic, *, store: Store) -> Prepared:
    """The source's network with a classifier that learns alone: drawn afresh (cRT) or scaled (LWS)."""
    network = _loaded(spec, spec.source, store, len(dataset.classes))
    if spec.recipe.imbalance.strategy == "crt":
        torch.manual_seed(stream_seed(spec.seed, "classifier"))
        last_linear(network, head_name(MODELS[spec.recipe.model.name], network))[1].reset_parameters()
    return set_up(stage_of(spec), dataset, arithmetic, network=network)


def stage_of(spec: RunSpec) -> RunSpec:
    """A decoupled run's second stage as a training: the classifier alone, for its share of the epochs."""
    epochs = spec.own_epochs
    stage = {"freeze_epochs": epochs, "freeze_lr": spec.recipe.imbalance.params["lr"], "freeze_norm": True}
    training = spec.recipe.training.model_copy(update={**stage, **ONE_SIZE, "patience": 0, "ema_decay": 0.0})
    recipe = spec.recipe.model_copy(update={"training": training})
    return spec.model_copy(update={"recipe": recipe, "budget": spec.budget.model_copy(update={"epochs": epochs})})


def _loaded(spec: RunSpec, source: RunSpec, store: Store, n_classes: int) -> nn.Module:
    """The network of the source with its weights, and with the classifier that the run asks for."""
    from safetensors.torch import load_file

    def scratch(recipe: Recipe) -> Recipe:
        # weights that the file replaces need not be fetched
        return recipe.model_copy(update={"model": recipe.model.model_copy(update={"init": "scratch"})})

    network = build_network(scratch(source.recipe), n_classes)
    network.load_state_dict(load_file(store.folder(source) / WEIGHTS))
    own, had = (strategy_of(s.recipe.imbalance.strategy).head for s in (spec, source))
    if own != had:
        head = head_name(MODELS[spec.recipe.model.name], network)
        replace_head(network, head, own, spec.recipe.imbalance.params)
    return network


def _arithmetic_of(record: RunRecord, device: torch.device) -> Arithmetic:
    used = record.arithmetic
    return Arithmetic(device, used.precision, used.channels_last) if used else Arithmetic(device, "fp32")


def _look_again(spec: RunSpec, dataset: Dataset, store: Store, device_name: str, at_once: int) -> RunRecord:
    """The stored record of a run's weights with test-time augmentation; all but scores and speed is that run's."""
    source, start = spec.source, time.perf_counter()
    record, device = store.record(source), choose_device(device_name)
    arithmetic = _arithmetic_of(record, device)
    network = _loaded(spec, source, store, len(dataset.classes))
    views = Views(network, view_maps(spec.tta)).to(device).to(memory_format=arithmetic.memory_format)
    note = f"weights of {source.id}, averaged over {len(views.maps)} views ({spec.tta})"
    return _stored(spec, dataset, store, record, views, arithmetic, note, start, at_once, len(views.maps))


def _tau_normalise(spec: RunSpec, dataset: Dataset, store: Store, device_name: str, at_once: int) -> RunRecord:
    """The stored record of a run whose class vectors were divided by a power of their length, which val chose."""
    source, start = spec.source, time.perf_counter()
    record, device = store.record(source), choose_device(device_name)
    arithmetic = _arithmetic_of(record, device)
    network = _loaded(spec, source, store, len(dataset.classes)).to(device)
    network = network.to(memory_format=arithmetic.memory_format)
    name, linear = last_linear(network, head_name(MODELS[spec.recipe.model.name], network))
    weight = linear.weight.detach().double().cpu().numpy()
    put(network, name, nn.Identity())
    split = Batches.of(dataset.val, len(dataset.classes), spec.recipe.model, spec.recipe.training, arithmetic)
    features = np.asarray(predict_logits(network, split.evaluation(spec.recipe.model.input_size), arithmetic))
    lengths = np.linalg.norm(weight, axis=1, keepdims=True)
    taus = np.linspace(0, spec.recipe.imbalance.params["most"], TAUS)
    ids = [str(i) for i in range(len(features))]

    def macro_f1(tau: float) -> float:
        logits = (features @ (weight / lengths**tau).T).astype(np.float32)
        return compute(predictions_of("val", dataset.classes, ids, dataset.val.labels, logits), "macro_f1")["macro_f1"]

    tau = float(taus[int(np.argmax([macro_f1(t) for t in taus]))])
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight / lengths**tau))
        if linear.bias is not None:
            linear.bias.zero_()
    put(network, name, linear)
    note = f"class vectors of {source.id} divided by the power {tau:.2f} of their length, without biases, as val chose"
    weights = weights_of(network)
    return _stored(spec, dataset, store, record, network, arithmetic, note, start, at_once, weights=weights)


def _stored(
    spec: RunSpec,
    dataset: Dataset,
    store: Store,
    record: RunRecord,
    network: nn.Module,
    arithmetic: Arithmetic,
    note: str,
    start: float,
    at_once: int,
    views: int = 1,
    weights: bytes | None = None,
) -> RunRecord:
    """The stored record of a network made of a finished run's weights."""
    assert dataset.test is not None and record.cost is not None
    splits = (("val", dataset.val), ("test", dataset.test))
    predictions = [predict_split(network, spec.recipe, dataset, arithmetic, name, split) for name, split in splits]
    cost = record.cost.model_copy(
        update={
            "macs": record.cost.macs * views,
            "total_seconds": record.cost.total_seconds + time.perf_counter() - start,
            "peak_memory_bytes": peak_memory_bytes(arithmetic.device),
            "inference": throughput_of(network, spec, arithmetic),
        }
    )
    here = Environment(**describe(arithmetic.device))
    if here.device != record.environment.device:
        note += f"; trained on {record.environment.device}"
    scores = scores_by_split(predictions, clean_test(dataset))
    notes = [note, *shared(at_once), *untimed(cost.inference)]
    made = derived_record(record, spec, scores, *notes, cost=cost, environment=here)
    store.write_run(made, predictions, weights)
    return made
