"""What is made of a finished run's weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ferbench.again import run_again, stage_of
from ferbench.data.dataset import Dataset
from ferbench.data.synthetic import generate
from ferbench.errors import InputError
from ferbench.evaluation import throughput
from ferbench.evaluation.metrics import compute
from ferbench.inputs import load_recipe
from ferbench.plan import make_plan
from ferbench.records.store import Store
from ferbench.runner import build_network, run_one
from ferbench.spec import DECOUPLED, Budget, DataKey, RunSpec
from ferbench.training.imbalance import STRATEGIES

EPOCHS = 10
CLASSIFIER = "head.1"
"""The plain CNN's linear layer."""
SMALL = {
    "model.input_size": 16,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.03,
    "training.epochs": EPOCHS,
    "training.batch_size": 16,
    "training.precision.cpu": "fp32",
    "training.channels_last": True,
    "training.start_size": 0,
}


class Nobody:
    def on_note(self, text): ...
    def on_batch(self, epoch: int, images: int) -> None: ...
    def on_epoch(self, epoch: object) -> None: ...


def spec_of(dataset: Dataset, strategy: str, tta: str = "none") -> RunSpec:
    recipe = load_recipe("plain_cnn", strategy=strategy, overrides=SMALL)
    budget = Budget(name="full", fraction=1.0, epochs=0, batch_size=0)
    key = DataKey(name=dataset.name, fingerprint=dataset.fingerprint, protocol="official")
    return RunSpec(recipe=recipe, seed=0, budget=budget, data=key, tta=tta)


@pytest.fixture(scope="module")
def drawn() -> Dataset:
    return generate(seed=3, train=210, val=70, test=70)


@pytest.fixture(scope="module")
def store(drawn, tmp_path_factory) -> Store:
    """With a finished run without a strategy."""
    found = Store(tmp_path_factory.mktemp("results"))
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        run_one(spec_of(drawn, "none"), drawn, found, "cpu", Nobody())
    return found


def quick(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(throughput, "TIMED_SECONDS", 0.0)
    patch.setattr(throughput, "WARMUP_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def no_time_on_throughput(monkeypatch):
    quick(monkeypatch)


def tensors(store: Store, spec: RunSpec) -> dict[str, torch.Tensor]:
    return load_file(store.folder(spec) / "weights.safetensors")


def test_rows_and_names_agree():
    assert [row.name for row in STRATEGIES if row.decoupled] == list(DECOUPLED)


@pytest.mark.parametrize("strategy", ["crt", "lws"])
def test_only_the_classifier_changes(strategy, store, drawn):
    spec = spec_of(drawn, strategy)
    assert spec.source == spec_of(drawn, "none") and spec.trained == spec
    record = run_again(spec, drawn, store, "cpu", Nobody())
    before, after = tensors(store, spec.source), tensors(store, spec)
    build_network(spec.recipe, 7).load_state_dict(after)
    head = CLASSIFIER
    for name, tensor in before.items():
        if not name.startswith(head):
            assert torch.equal(after[name], tensor), name
    if strategy == "crt":
        assert not torch.equal(after[f"{head}.weight"], before[f"{head}.weight"])
    else:
        assert torch.equal(after[f"{head}.weight"], before[f"{head}.weight"])
        assert not torch.equal(after[f"{head}.factor"], torch.ones(7))
    # three tenths of ten epochs
    assert [row.epoch for row in record.history] == [1, 2, 3]
    assert f"3 epochs of the classifier alone on the frozen backbone of {spec.source.id}" in record.notes
    base = store.record(spec.source)
    own = sum(row.seconds for row in record.history)
    assert record.cost.train_seconds == pytest.approx(base.cost.train_seconds + own)
    # 210 images an epoch
    assert record.cost.images_per_second * record.cost.train_seconds == pytest.approx(210 * (EPOCHS + 3))
    assert record.cost.parameters == sum(p.numel() for p in build_network(spec.recipe, 7).parameters())
    assert store.is_done(spec)


def test_the_classifiers_stage_has_one_size_and_one_augmentation(drawn):
    recipe = load_recipe(
        "plain_cnn", strategy="crt", overrides={"training.start_size": 24, "training.start_strength": 0.2}
    )
    training = stage_of(spec_of(drawn, "crt").model_copy(update={"recipe": recipe})).recipe.training
    assert (training.start_size, training.start_strength) == (0, 1.0)


@pytest.mark.parametrize(
    ("strategy", "tta", "epochs"),
    [
        ("none", "none", EPOCHS),
        ("crt", "none", 3),
        ("crt", "flip", 0),
        ("none", "flip", 0),
        ("tau_norm", "none", 0),
        ("posthoc_class_bias", "none", 0),
    ],
)
def test_epochs_that_a_run_trains_itself(strategy, tta, epochs, drawn):
    assert spec_of(drawn, strategy, tta).own_epochs == epochs


def test_tau_norm_divides_by_a_power_of_the_length_that_val_chooses(store, drawn):
    spec = spec_of(drawn, "tau_norm")
    record = run_again(spec, drawn, store, "cpu", Nobody())
    base = store.record(spec.source)
    assert (record.history, record.cost.train_seconds) == (base.history, base.cost.train_seconds)
    (note,) = (n for n in record.notes if "class vectors" in n)
    tau = float(note.split("the power ")[1].split()[0])
    assert 0 <= tau <= 1.5
    # by hand: the backbone's features times the divided vectors
    weights = tensors(store, spec.source)
    network = build_network(spec.source.recipe, 7).eval()
    network.load_state_dict(weights)
    head = CLASSIFIER
    linear = network.get_submodule(head)
    features = []
    linear.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    recipe = spec.recipe.model
    images = torch.from_numpy(drawn.val.images)[:, None].float() / 255
    images = torch.nn.functional.interpolate(images, (16, 16), mode="bilinear", align_corners=False)
    with torch.no_grad():
        network((images - recipe.mean) / recipe.std)
    scaled = weights[f"{head}.weight"] / weights[f"{head}.weight"].norm(dim=1, keepdim=True) ** tau
    expected = torch.softmax(features[0] @ scaled.T, 1).numpy()
    np.testing.assert_allclose(store.predictions(spec, "val").probabilities, expected, atol=2e-4)
    # tau 0 only drops the biases, so val's choice is at least as good as that
    no_bias = torch.softmax(features[0] @ weights[f"{head}.weight"].T, 1).numpy()
    scores = [compute(store.predictions(spec, "val"), "macro_f1")["macro_f1"]]
    plain = replace(store.predictions(spec, "val"), probabilities=no_bias.astype(np.float32))
    scores.append(compute(plain, "macro_f1")["macro_f1"])
    assert scores[0] >= scores[1]


def test_views_of_a_decoupled_run_use_its_own_weights(store, drawn):
    for strategy in ("lws", "tau_norm"):
        spec = spec_of(drawn, strategy)
        if not store.is_done(spec):
            run_again(spec, drawn, store, "cpu", Nobody())
        flipped = spec_of(drawn, strategy, "flip")
        assert flipped.source == spec
        record = run_again(flipped, drawn, store, "cpu", Nobody())
        assert f"weights of {spec.id}" in record.notes[-1]


@pytest.mark.parametrize("strategy", DECOUPLED)
def test_without_the_run_that_they_start_from(strategy, drawn, tmp_path):
    spec = spec_of(drawn, strategy)
    with pytest.raises(InputError, match=f"{spec.source.id}: is not done here, and this run starts from it"):
        run_again(spec, drawn, Store(tmp_path), "cpu", Nobody())


def test_plan_trains_first_what_they_start_from(faces: Path, tmp_path):
    plan = make_plan("plain_cnn", source=faces, imbalance="tau_norm,crt", tta="flip", results=tmp_path)
    order = [(s.recipe.imbalance.strategy, s.tta) for s in plan.specs]
    assert order[0] == ("none", "none")
    assert set(order[1:3]) == {("tau_norm", "none"), ("crt", "none")}
    assert set(order[3:]) == {("tau_norm", "flip"), ("crt", "flip")}
    with pytest.raises(InputError, match="protocol oracle: crt"):
        make_plan("plain_cnn", source=faces, imbalance="crt", protocol="oracle", results=tmp_path)


def test_redo_is_of_what_was_asked_for(faces: Path, tmp_path, finished, predictions):
    plan = make_plan("plain_cnn", source=faces, imbalance="tau_norm", results=tmp_path)
    plain, divided = plan.specs
    assert plan.needed == {plain.id}
    assert plan.todo(redo=True) == plan.missing() == [plain, divided]
    plan.store.write_run(finished(plain), predictions)
    assert plan.todo(redo=True) == plan.missing() == [divided]
    both = make_plan("plain_cnn", source=faces, imbalance="none,tau_norm", results=tmp_path)
    assert both.needed == set() and both.todo(redo=True) == [plain, divided]


def test_what_was_made_of_weights_that_are_gone_is_not_done(store, drawn, tmp_path):
    spec = spec_of(drawn, "tau_norm")
    if not store.is_done(spec):
        run_again(spec, drawn, store, "cpu", Nobody())
    record, source = store.record(spec), store.record(spec.source)
    assert record.source_finished_at == source.finished_at and store.is_done(spec)
    store.write_record(source.model_copy(update={"finished_at": "2027-01-01T00:00:00+00:00"}))
    assert not store.is_done(spec)
    store.write_record(source)
    # records from before this was noted
    store.write_record(record.model_copy(update={"source_finished_at": None}))
    assert store.is_done(spec)


@pytest.mark.parametrize(("strategy", "tta"), [("none", "flip"), ("tau_norm", "none"), ("crt", "none")])
def test_other_data_are_refused(strategy, tta, store):
    other = generate(seed=4, train=210, val=70, test=70)
    spec = spec_of(generate(seed=3, train=210, val=70, test=70), strategy, tta)
    with pytest.raises(InputError, match=f"the data have fingerprint {other.fingerprint}"):
        run_again(spec, other, store, "cpu", Nobody())
