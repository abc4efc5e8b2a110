"""From data to record in this process; tests/test_run.py has the same line through the command line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ferbench import environment as environment_module
from ferbench.again import run_again
from ferbench.data.dataset import Dataset, image_ids
from ferbench.data.protocol import divide
from ferbench.data.synthetic import generate
from ferbench.environment import Arithmetic
from ferbench.errors import InputError
from ferbench.estimate import estimate_seconds
from ferbench.evaluation import throughput
from ferbench.evaluation.metrics import score
from ferbench.inputs import load_recipe
from ferbench.models import MODELS
from ferbench.records.record import Environment, RunRecord, Throughput, failed_record
from ferbench.records.store import Store
from ferbench.runner import CHECKPOINT_VERSION, run_one, set_up, untimed
from ferbench.spec import Budget, DataKey, RunSpec
from ferbench.training import fit
from ferbench.training.checkpoint import Checkpoint
from ferbench.training.replay import Replayed

CPU = Arithmetic(torch.device("cpu"), "fp32", channels_last=True)
SMALL = {
    "model.input_size": 16,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.01,
    "training.epochs": 2,
    "training.batch_size": 40,
    "training.precision.cpu": "bf16",
    "training.channels_last": True,
    "training.ema_decay": 0.0,
    "training.start_size": 0,
    "training.select": "accuracy",
    "training.patience": 0,
    "training.freeze_epochs": 0,
}
Run = tuple[Store, RunSpec, RunRecord]


class Nobody:
    def on_note(self, text): ...
    def on_batch(self, epoch: int, images: int) -> None: ...
    def on_epoch(self, epoch: object) -> None: ...


@pytest.fixture(scope="module")
def drawn() -> Dataset:
    return generate(seed=5, train=120, val=40, test=30)


def spec_of(dataset: Dataset, fraction: float = 1.0, batch_size: int = 0, **overrides: object) -> RunSpec:
    recipe = load_recipe("plain_cnn", strategy="sqrt_inverse", overrides={**SMALL, **overrides})
    budget = Budget(name="full", fraction=fraction, epochs=0, batch_size=batch_size)
    key = DataKey(name=dataset.name, fingerprint=dataset.fingerprint, protocol="official")
    return RunSpec(recipe=recipe, seed=1, budget=budget, data=key)


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory) -> Run:
    """A run that went well after it had failed once, on a CPU without bf16."""
    store, spec = Store(tmp_path_factory.mktemp("results")), spec_of(drawn)
    store.write_record(failed_record(spec, "out of memory", Environment(**environment_module.describe(CPU.device))))
    return store, spec, quickly(spec, drawn, store)


def quickly(spec: RunSpec, dataset: Dataset, store: Store) -> RunRecord:
    """`run_one` on a CPU without bf16, with no time spent on throughput."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment_module, "_cpu_has_bf16", lambda: False)
        patch.setattr(throughput, "TIMED_SECONDS", 0.0)
        patch.setattr(throughput, "WARMUP_SECONDS", 0.0)
        return run_one(spec, dataset, store, "cpu", Nobody())


def test_training_that_val_shows_to_have_diverged_has_diverged(drawn, tmp_path):
    # one batch: its loss is that of the weights before
    wild = {"optimizer.lr": 1e30, "optimizer.clip_norm": 0.0, "schedule.name": "constant", "schedule.warmup": 0.0}
    spec = spec_of(drawn, batch_size=120, **wild)
    with pytest.raises(fit.TrainingDivergedError, match=r"^training diverged: the logits of val are not all finite$"):
        quickly(spec, drawn, Store(tmp_path))


def test_a_good_record_takes_the_place_of_a_failed_one(run):
    store, spec, record = run
    assert store.is_done(spec)
    assert store.records() == [record]
    assert (record.status, record.reason, record.id) == ("ok", None, spec.id)


def test_record_says_what_happened(run):
    _, _, record = run
    assert [row.epoch for row in record.history] == [1, 2]
    best = max(record.history, key=lambda row: row.val_accuracy)
    assert record.best_epoch == best.epoch
    assert record.scores["val"].values["accuracy"] == pytest.approx(best.val_accuracy)
    assert record.scores["val"].values["macro_f1"] == pytest.approx(best.val_macro_f1)
    assert record.environment.device_type == "cpu"
    assert "bf16 is not to be had on this device: fp32 was used" in record.notes


def test_cost_adds_up(run):
    _, _, record = run
    cost, seconds = record.cost, sum(row.seconds for row in record.history)
    assert cost.parameters == MODELS["plain_cnn"].parameters
    assert cost.train_seconds == pytest.approx(seconds)
    assert cost.total_seconds > cost.train_seconds > 0
    assert cost.images_per_second == pytest.approx(2 * 120 / seconds)
    assert [t.batch_size for t in cost.inference] == [1, 256]


def test_scores_are_those_of_the_stored_predictions(run, drawn):
    store, spec, record = run
    for name, n in (("val", 40), ("test", 30)):
        predictions = store.predictions(spec, name)
        assert score(predictions) == record.scores[name]
        assert record.scores[name].n == n
        assert predictions.ids.tolist() == image_ids(name, n)
        assert predictions.labels.tolist() == getattr(drawn, name).labels.tolist()
    likelihood = store.predictions(spec, "val").probabilities[np.arange(40), drawn.val.labels]
    # of numbers below 1e-12 nothing but that is told
    nll = -np.log(np.maximum(likelihood.astype(float), 1e-12)).mean()
    assert record.history[record.best_epoch - 1].val_nll == pytest.approx(nll, rel=1e-5)


def test_stored_weights_predict_the_same(run, drawn):
    store, spec, _ = run
    bench = set_up(spec, drawn, CPU)
    bench.trainer.network.load_state_dict(load_file(store.folder(spec) / "weights.safetensors"))
    again = bench.predict(bench.trainer.network, "test", drawn.test)
    np.testing.assert_allclose(again.probabilities, store.predictions(spec, "test").probabilities, atol=1e-6)


def test_nothing_but_the_run_is_left(run):
    store, spec, _ = run
    names = {p.name for p in store.folder(spec).iterdir()}
    assert names == {"record.json", "val.npz", "test.npz", "weights.safetensors"}


def test_stopped_run_goes_on_and_its_time_adds_up(run, drawn, tmp_path):
    _, spec, whole = run
    store, bench = Store(tmp_path), set_up(spec, drawn, CPU)
    bench.trainer.run_epoch(bench.validate, Nobody())
    bench.trainer.elapsed = 1000.0
    path = store.folder(spec) / "checkpoint.pt"
    Checkpoint(path, f"{CHECKPOINT_VERSION} {spec.fingerprint} cpu", store.writing).save(bench.trainer.state)
    record = quickly(spec, drawn, store)
    assert [row.epoch for row in record.history] == [1, 2]
    assert record.cost.total_seconds > 1000
    assert record.scores == whole.scores
    assert not path.exists()


def test_other_data_are_refused(drawn, tmp_path):
    other = replace(drawn, fingerprint="0123abcd")
    with pytest.raises(InputError, match=f"the data have fingerprint 0123abcd, not {drawn.fingerprint}"):
        run_one(spec_of(drawn), other, Store(tmp_path / "results"), "cpu", Nobody())
    with pytest.raises(InputError, match="has no test split"):
        run_one(spec_of(drawn), drawn.without_test(), Store(tmp_path / "results"), "cpu", Nobody())
    assert not (tmp_path / "results").exists()


def test_training_needs_no_test_split(drawn):
    bench = set_up(spec_of(drawn, fraction=0.3), drawn.without_test(), CPU)
    bench.trainer.run_epoch(bench.validate, Nobody())
    assert len(bench.trainer.history) == 1


def test_budget_decides_how_much_is_trained_on(drawn):
    whole, part = (set_up(spec_of(drawn, fraction=f, batch_size=b), drawn, CPU).trainer for f, b in ((1, 0), (0.5, 7)))
    assert (len(whole.train), whole.train.batch_size) == (120, 40)
    # half of each class, in whole images
    assert abs(len(part.train) - 60) <= 7
    assert part.train.batch_size == 7


def test_start_depends_on_the_seed_alone(drawn):
    def start(seed: int) -> torch.Tensor:
        torch.randn(seed + 5)
        spec = spec_of(drawn).model_copy(update={"seed": seed})
        return set_up(spec, drawn, CPU).trainer.network.features[0].weight

    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))


def test_batches_that_could_not_be_recorded_are_told_of(drawn, tmp_path, monkeypatch):
    def refuse(work, device):
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(fit, "launched", lambda work, parameters, arithmetic: Replayed(work, parameters, refuse))
    record = quickly(spec_of(drawn), drawn, Store(tmp_path))
    assert [n for n in record.notes if n.endswith("CUDA graph: operation not permitted")]


def test_estimate_is_for_the_whole_run(drawn):
    one = estimate_seconds(spec_of(drawn, **{"training.epochs": 1}), drawn, "cpu")
    hundred = estimate_seconds(spec_of(drawn, **{"training.epochs": 100, "training.freeze_epochs": 2}), drawn, "cpu")
    assert 0 < one < hundred


def test_estimate_does_not_need_every_class_in_the_images_it_times(drawn):
    # of the first 8 images none shows disgust; on FER2013 none of the first 128 does, which --budget quick times
    assert 1 not in drawn.train.labels[:8]
    assert estimate_seconds(spec_of(drawn, batch_size=2), drawn, "cpu") > 0


def test_other_views_of_a_run_are_a_run_of_their_own(run, drawn, monkeypatch):
    store, spec, trained = run
    monkeypatch.setattr(throughput, "TIMED_SECONDS", 0.0)
    monkeypatch.setattr(throughput, "WARMUP_SECONDS", 0.0)
    flipped = spec.model_copy(update={"tta": "flip"})
    record = run_again(flipped, drawn, store, "cpu", Nobody())
    assert store.is_done(flipped) and store.is_done(spec)
    assert record.id == flipped.id != spec.id and "-flip-" in record.id
    # an image and its mirror image: the same network, trained once, which does twice the work
    assert (record.history, record.best_epoch) == (trained.history, trained.best_epoch)
    assert record.cost.macs == 2 * trained.cost.macs
    assert f"weights of {spec.id}, averaged over 2 views (flip)" in record.notes
    plain, seen = store.predictions(spec, "test"), store.predictions(flipped, "test")
    assert list(seen.ids) == list(plain.ids)
    assert not np.allclose(seen.probabilities, plain.probabilities, atol=1e-3)
    mirrored = replace(drawn, test=replace(drawn.test, images=drawn.test.images[:, :, ::-1]))
    network = set_up(spec, drawn, CPU).trainer.network
    network.load_state_dict(load_file(store.folder(spec) / "weights.safetensors"))
    ways = [set_up(spec, d, CPU).predict(network, "test", d.test).probabilities for d in (drawn, mirrored)]
    np.testing.assert_allclose(seen.probabilities, np.mean(ways, axis=0), atol=1e-4)
    assert record.scores["test"] == score(seen)


def test_views_of_a_run_whose_weights_are_gone(run, drawn, tmp_path):
    store, spec, record = run
    elsewhere = Store(tmp_path)
    flipped = spec.model_copy(update={"tta": "ten-crop"})
    with pytest.raises(InputError, match=f"{spec.id}: is not done here, and this run starts from it"):
        run_again(flipped, drawn, elsewhere, "cpu", Nobody())
    elsewhere.write_run(record, [store.predictions(spec, split) for split in ("val", "test")])
    gone = f"{spec.id}: its weights are not here .git leaves them out.: --imbalance sqrt_inverse --redo trains it again"
    with pytest.raises(InputError, match=gone):
        run_again(flipped, drawn, elsewhere, "cpu", Nobody())


def test_views_take_longer_to_estimate_than_one_look_and_less_than_training(drawn):
    spec = spec_of(drawn)
    views = [estimate_seconds(spec.model_copy(update={"tta": t}), drawn, "cpu") for t in ("flip", "random:40")]
    assert 0 < views[0] < views[1]


def test_scores_on_the_clean_test(run, drawn):
    """Two of the test images stand in train as well."""
    store, spec, _ = run
    images = drawn.test.images.copy()
    images[:2] = drawn.train.images[:2]
    leaking = replace(drawn, test=replace(drawn.test, images=images))
    record = quickly(spec.model_copy(update={"seed": 7}), leaking, store)
    assert record.scores["clean"].n == 28
    rest = store.predictions(record.spec, "test").take(np.arange(2, 30))
    assert record.scores["clean"] == score(rest)


def test_oracle_chooses_on_test_and_says_what_val_would_have_chosen(drawn, tmp_path):
    store = Store(tmp_path)
    oracle = divide(drawn, "oracle")
    spec = spec_of(drawn, **{"training.epochs": 4})
    flattered = spec.model_copy(update={"data": spec.data.model_copy(update={"protocol": "oracle"})})
    record, fair = quickly(flattered, oracle, store), quickly(spec, drawn, store)
    # one training: the honest half of it is the official run
    assert record.scores["honest"] == fair.scores["test"]
    np.testing.assert_array_equal(
        store.predictions(flattered, "honest").probabilities, store.predictions(spec, "test").probabilities
    )
    # the other half is the best that any epoch has on test, which stands in val's place
    assert record.scores["test"].values["accuracy"] == max(row.val_accuracy for row in record.history)
    assert record.scores["val"].confusion == record.scores["test"].confusion
    assert any("oracle" in note for note in record.notes)
    assert store.is_done(flattered)


def test_oracle_where_val_and_test_differ_in_size_and_a_plateau_steers(tmp_path):
    """Test has fewer images than val, and what steers the rate is val."""
    uneven = generate(seed=5, train=120, val=50, test=30)
    steered = {"training.epochs": 3, "schedule.name": "plateau", "schedule.plateau_patience": 1, "schedule.warmup": 0.0}
    spec = spec_of(uneven, **steered)
    flattered = spec.model_copy(update={"data": spec.data.model_copy(update={"protocol": "oracle"})})
    store = Store(tmp_path)
    record, fair = quickly(flattered, divide(uneven, "oracle"), store), quickly(spec, uneven, store)
    assert [row.lr for row in record.history] == [row.lr for row in fair.history]
    assert record.scores["honest"] == fair.scores["test"]


def test_a_batch_too_large_to_be_timed_is_told():
    timed = [Throughput(batch_size=1, images_per_second=9.0, rounds=3)]
    assert untimed(timed) == ["no memory for the speed of inference with 256 images at once"]
    assert untimed([*timed, Throughput(batch_size=256, images_per_second=9.0, rounds=3)]) == []
