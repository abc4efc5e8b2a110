from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ferbench import environment
from ferbench.records.store import Store
from ferbench.runner import Prepared
from ferbench.training import checkpoint as checkpoint_module
from ferbench.training.checkpoint import Checkpoint
from ferbench.training.epochs import Nobody, Validate, ValScores
from ferbench.training.fit import Trainer, TrainingDivergedError, fit
from ferbench.training.imbalance import STRATEGIES
from ferbench.training.optimization import weight_average

TIMING = ("seconds", "images_per_second", "elapsed")


@pytest.fixture
def train(nobody) -> Callable[..., Prepared]:
    """Train some epochs, by default to the end."""

    def run(bench: Prepared, epochs: int = 0, validate: Validate | None = None) -> Prepared:
        for _ in range(epochs or bench.trainer.epochs):
            bench.trainer.run_epoch(validate or bench.validate, nobody)
        return bench

    return run


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """A state as it comes back from a file that may hold no more than tensors and plain values."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Whether two states agree to the last bit in all but timing."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k not in TIMING)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and a == b


def scripted(scores: Iterable[tuple[float, float]]) -> Validate:
    """A validation that says (accuracy, macro-F1) by the script."""
    rest = iter(scores)
    return lambda network, size: ValScores(*next(rest), nll=1.0)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


# learning


@pytest.mark.parametrize("strategy", STRATEGIES.names)
def test_every_strategy_learns(strategy, make_bench, train):
    history = train(make_bench({"training.epochs": 6}, strategy=strategy, n=60)).trainer.history
    # Seesaw counts mistakes harder the surer the network is, so its loss may rise while the network learns
    # a weight that comes on makes another loss of it, mixed images are never learned by heart, smoothing has a floor
    others = ("seesaw", "influence_balanced", "remix", "mek")
    assert strategy in others or history[-1].train_loss < 0.8 * history[0].train_loss
    # half the images are of one class
    assert history[-1].val_accuracy > 0.8 and history[-1].val_macro_f1 > 0.8
    assert history[-1].val_nll < history[0].val_nll


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_learns(precision, make_bench, train, monkeypatch):
    # emulated where the CPU has no instructions for it
    monkeypatch.setattr(environment, "_cpu_has_bf16", lambda: True)
    bench = make_bench({"training.precision.cpu": precision}, n=32)
    assert bench.trainer.arithmetic.name == precision
    assert bench.trainer.scaler.is_enabled() == (precision == "fp16")
    history = train(bench).trainer.history
    assert history[-1].train_loss < history[0].train_loss
    assert all(p.dtype == torch.float32 for p in bench.trainer.network.parameters())


def test_loss_that_is_not_finite_stops_the_run(make_bench, train):
    bench = make_bench({"optimizer.lr": 1e30, "schedule.name": "constant", "schedule.warmup": 0.0})
    with pytest.raises(TrainingDivergedError, match=r"the loss is (nan|inf) in epoch 1"):
        train(bench)
    assert bench.trainer.history == []


# an epoch


def watched(bench: Prepared) -> list[tuple[Tensor, Tensor]]:
    """(inputs, targets) of every training batch, noted while it is trained on."""
    seen: list[tuple[Tensor, Tensor]] = []
    inputs: list[Tensor] = []
    trainer, loss = bench.trainer, bench.trainer.treatment.loss()
    trainer.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))

    def noting(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append((inputs[-1], targets))
        return loss(logits, targets)

    trainer.treatment.loss = lambda epoch, epochs: noting
    return seen


def classes_seen(batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    return torch.cat([targets for _, targets in batches]).argmax(1).bincount(minlength=3).tolist()


def test_every_image_comes_once_an_epoch_in_another_order(make_bench, train):
    bench = make_bench()
    seen = watched(bench)
    train(bench, 2, scripted([(0, 0)] * 2))
    assert classes_seen(seen[:3]) == classes_seen(seen[3:]) == [24, 16, 8]
    assert not torch.equal(seen[0][1], seen[3][1])


def test_balanced_sampling_draws_classes_alike(make_bench, train):
    bench = make_bench(strategy="balanced_sampling", n=240)
    seen = watched(bench)
    train(bench, 1)
    counts = classes_seen(seen)
    assert sum(counts) == 240
    # 80 of each within five standard deviations; as they come it would be 120, 80 and 40
    assert max(abs(c - 80) for c in counts) < 5 * (240 * 2 / 9) ** 0.5


@pytest.mark.parametrize(("images", "batches"), [(17, [16]), (18, [16, 2]), (32, [16, 16])])
def test_a_last_batch_of_one_image_is_left_out(images, batches, make_bench, train):
    bench = make_bench(n=images)
    seen = watched(bench)
    train(bench, 1)
    assert [len(inputs) for inputs, _ in seen] == batches


def test_train_loss_is_the_mean_over_images(make_bench, train):
    bench = make_bench(n=18)
    # a loss that is the batch's size: (16 * 16 + 2 * 2) / 18
    bench.trainer.treatment.loss = lambda epoch, epochs: lambda logits, targets: 0 * logits.sum() + len(targets)
    assert train(bench, 1).trainer.history[0].train_loss == pytest.approx(260 / 18)


def test_images_grow(make_bench, train):
    changes = {"model.input_size": 32, "training.start_size": 16, "training.growth": 0.5, "training.epochs": 4}
    bench = make_bench(changes, n=16)
    seen = watched(bench)
    train(bench, validate=scripted([(0, 0)] * 4))
    # half-way after one of the two epochs in which they grow
    assert [inputs.shape[-1] for inputs, _ in seen] == [16, 24, 32, 32]
    assert [row.input_size for row in bench.trainer.history] == [16, 24, 32, 32]


def test_val_has_the_size_of_the_training_images_and_only_the_whole_size_counts(make_bench, nobody, tmp_path):
    # a patience of one, which must not end it while no epoch can be chosen
    changes = {"model.input_size": 32, "training.start_size": 16, "training.growth": 0.5, "training.patience": 1}
    bench, sizes, script = make_bench(changes, n=16), [], scripted([(0.9, 0), (0.8, 0), (0.3, 0), (0.2, 0)])

    def validate(network: nn.Module, size: int) -> ValScores:
        sizes.append(size)
        return script(network, size)

    fitted = fit(bench.trainer, validate, Checkpoint(tmp_path / "c", "k", Store(tmp_path).writing), nobody)
    assert sizes == [16, 24, 32, 32]
    assert fitted.best_epoch == 3


def test_only_epochs_with_all_of_the_strategy_can_be_chosen(make_bench, nobody, tmp_path):
    bench = make_bench({"training.epochs": 4}, strategy="influence_balanced", n=16)
    script = scripted([(0.9, 0), (0.8, 0), (0.2, 0), (0.3, 0)])
    assert fit(bench.trainer, script, Checkpoint(tmp_path / "c", "k", Store(tmp_path).writing), nobody).best_epoch == 4


def test_augmentation_grows_with_the_images(make_bench, train):
    changes = {"training.start_strength": 0.5, "training.growth": 0.5, "augment.zoom": 0.4, "augment.flip": 0.5}
    trainer = make_bench(changes, n=16).trainer
    seen = []
    for _ in range(trainer.epochs):
        seen.append(trainer._augment())
        trainer.run_epoch(scripted([(0, 0)]), Nobody())
    assert [a.zoom for a in seen] == pytest.approx([0.2, 0.3, 0.4, 0.4])
    assert {a.flip for a in seen} == {0.5}


def test_compiled_network_learns_the_same(make_bench, train, monkeypatch):
    # traced but not turned into machine code, which takes most of a minute and a C++ compiler
    asked, real = [], torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda network, dynamic: asked.append(dynamic) or real(network, backend="eager")
    )
    plain, compiled = (train(make_bench({"training.compile": c}, n=16), 1).trainer for c in (False, True))
    assert compiled.history[0].train_loss == pytest.approx(plain.history[0].train_loss, rel=1e-4)
    torch.testing.assert_close(weights(compiled.network), weights(plain.network), rtol=1e-3, atol=1e-4)
    assert asked == [False]


def test_sizes_are_multiples_of_four_and_the_last_is_the_whole(make_bench, train):
    changes = {"model.input_size": 28, "training.start_size": 16, "training.growth": 1.0, "training.epochs": 5}
    bench = make_bench(changes, n=16)
    seen = watched(bench)
    train(bench, validate=scripted([(0, 0)] * 5))
    # 16, 18.4, 20.8 and 23.2, rounded down; 25.6 would be next
    assert [inputs.shape[-1] for inputs, _ in seen] == [16, 16, 20, 20, 28]


def test_images_that_begin_no_smaller_do_not_shrink(make_bench, train):
    history = train(make_bench({"training.start_size": 64}, n=16), 2).trainer.history
    assert [row.input_size for row in history] == [16, 16]


def test_rate_ends_where_the_schedule_does(make_bench, train):
    overrides = {"schedule.warmup": 0.25, "schedule.start": 0.1, "schedule.final": 0.01, "optimizer.lr": 0.02}
    history = train(make_bench(overrides), validate=scripted([(0, 0)] * 4)).trainer.history
    # 12 updates: after the last of each epoch 2, 5, 8 and 11 elevenths of the way
    expected = [0.1 + 0.9 * (2 / 11) / 0.25, *(0.01 + 0.99 * (1 - (s / 11 - 0.25) / 0.75) for s in (5, 8, 11))]
    assert [e.lr for e in history] == pytest.approx([0.02 * f for f in expected])


def test_rate_drops_on_a_plateau(make_bench, train):
    overrides = {"schedule.name": "plateau", "schedule.warmup": 0.0, "schedule.plateau_patience": 1}
    overrides |= {"schedule.plateau_factor": 0.5, "training.select": "macro_f1"}
    scores = [(0.9, 0.1), (0.8, 0.2), (0.9, 0.2), (0.9, 0.1)]
    history = train(make_bench(overrides, n=16), validate=scripted(scores)).trainer.history
    # macro-F1 decides, and its drop in the last epoch comes too late
    assert [e.lr for e in history] == pytest.approx([0.03, 0.03, 0.03, 0.015])


# choosing an epoch


def test_a_second_epoch_is_kept_for_a_rival_score(make_bench, nobody, tmp_path, monkeypatch):
    """Of four epochs the second is best by its own score, the third by the rival's."""
    # a share of 1 leaves no epoch's end out
    monkeypatch.setattr(checkpoint_module, "MOST_TIME_SPENT_SAVING", 1.0)
    bench, seen = make_bench({}, n=16), []
    script, rivals = scripted(SCORES), iter([0.1, 0.2, 0.9, 0.3])

    def validate(network: nn.Module, size: int) -> ValScores:
        seen.append(weights(network))
        return replace(script(network, size), rival=next(rivals))

    fitted = fit(bench.trainer, validate, Checkpoint(tmp_path / "c", "k", Store(tmp_path).writing), nobody)
    assert fitted.best_epoch == 2
    assert same(fitted.rival_weights, seen[2])
    assert not same(fitted.rival_weights, seen[1])
    # it comes back with a checkpoint
    again = make_bench({}, n=16)
    resumed = fit(again.trainer, validate, Checkpoint(tmp_path / "c", "k", Store(tmp_path).writing), nobody)
    assert same(resumed.rival_weights, seen[2])


def test_without_a_rival_nothing_is_kept_for_it(make_bench, nobody, tmp_path):
    bench = make_bench({}, n=16)
    fitted = fit(bench.trainer, scripted(SCORES), Checkpoint(tmp_path / "c", "k", Store(tmp_path).writing), nobody)
    assert fitted.rival_weights == {}


SCORES = [(0.3, 0.2), (0.5, 0.1), (0.4, 0.6), (0.5, 0.6)]


@pytest.mark.parametrize(("select", "best"), [("accuracy", 2), ("macro_f1", 3)])
def test_best_epoch_is_the_first_with_the_highest_score(select, best, make_bench, nobody, tmp_path):
    bench = make_bench({"training.select": select}, n=16)
    seen: list[dict[str, Tensor]] = []
    script = scripted(SCORES)

    def validate(network: nn.Module, size: int) -> ValScores:
        seen.append(weights(network))
        return script(network, size)

    fitted = fit(bench.trainer, validate, Checkpoint(tmp_path / "c", "k", Store(tmp_path).writing), nobody)
    assert fitted.best_epoch == best
    assert len(fitted.history) == 4
    assert same(weights(bench.trainer.network), seen[best - 1])
    assert not same(seen[best - 1], seen[3])


@pytest.mark.parametrize(("patience", "epochs"), [(0, 6), (1, 3), (2, 4), (3, 6)])
def test_patience_ends_the_training(patience, epochs, make_bench, nobody, tmp_path):
    scores = [(0.5, 0), (0.6, 0), (0.6, 0), (0.5, 0), (0.7, 0), (0.6, 0)]
    bench = make_bench({"training.patience": patience, "training.epochs": 6}, n=16)
    writing = Store(tmp_path).writing
    fitted = fit(bench.trainer, scripted(scores), Checkpoint(tmp_path / "c", "k", writing), nobody)
    assert len(fitted.history) == epochs


def test_the_frozen_stage_uses_up_no_patience_and_drops_no_rate(make_bench, nobody, tmp_path):
    """Best in its first epoch, three frozen ones, then two with all that learns: patience ends it, and not sooner."""
    overrides = {"training.patience": 2, "training.epochs": 8, "training.freeze_epochs": 3, "schedule.warmup": 0.0}
    overrides |= {"schedule.name": "plateau", "schedule.plateau_patience": 2, "schedule.plateau_factor": 0.5}
    bench = make_bench(overrides, n=16)
    scores = [(0.9, 0), *[(0.5, 0)] * 7]
    fitted = fit(bench.trainer, scripted(scores), Checkpoint(tmp_path / "c", "k", Store(tmp_path).writing), nobody)
    assert len(fitted.history) == 5 and fitted.best_epoch == 1
    assert [row.lr for row in fitted.history[3:]] == pytest.approx([0.03, 0.03])


def test_the_weight_average_is_evaluated_and_kept(make_bench, train):
    bench = make_bench({"training.ema_decay": 0.9})
    seen: list[nn.Module] = []
    script = scripted([(0.1, 0), (0.2, 0)])

    def validate(network: nn.Module, size: int) -> ValScores:
        seen.append(network)
        return script(network, size)

    trainer = train(bench, 2, validate).trainer
    assert trainer.ema is not None and seen == [trainer.ema.module] * 2
    assert same(trainer.best.weights, weights(trainer.ema.module))
    own, average = weights(trainer.network), weights(trainer.ema.module)
    for name in ("features.0.weight", "features.1.running_mean", "head.1.bias"):
        assert not torch.equal(own[name], average[name]), name


def test_the_weight_average_is_timms():
    from timm.utils.model_ema import ModelEmaV3

    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    averages = [weight_average(network, 0.7), ModelEmaV3(network, decay=0.7, use_warmup=True)]
    for step in range(6):
        with torch.no_grad():
            network[0].weight.add_(torch.randn(4, 3))
        network(torch.randn(5, 3))
        for average in averages:
            average.update(network, step=step)
        assert same(*(a.module.state_dict() for a in averages))
    # one that had stood still would agree with none
    assert int(averages[0].module[1].num_batches_tracked) == 6
    assert not torch.equal(averages[0].module[0].weight, network[0].weight)


# stages


STAGES = {"training.freeze_epochs": 2, "training.freeze_lr": 0.01}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_first_stage_trains_the_head_alone(freeze_norm, make_bench, train):
    bench = make_bench({**STAGES, "training.freeze_norm": freeze_norm})
    network = bench.trainer.network
    parameters = {name for name, _ in network.named_parameters()}
    start = weights(network)
    frozen = weights(train(bench, 2).trainer.network)
    assert changed(start, frozen) & parameters == {"head.1.weight", "head.1.bias"}
    assert [e.lr for e in bench.trainer.history] == [0.01, 0.01]
    tuned = weights(train(bench, 2).trainer.network)
    assert changed(frozen, tuned) >= parameters
    statistics = {name for name in start if "running" in name}
    assert len(statistics) == 16
    assert changed(start, tuned) & statistics == (set() if freeze_norm else statistics)


def test_second_stage_has_a_schedule_of_its_own(make_bench, train):
    overrides = {**STAGES, "schedule.warmup": 0.0, "schedule.final": 0.0, "optimizer.backbone_lr": 0.1}
    bench = train(make_bench(overrides), validate=scripted([(0, 0)] * 4))
    # six updates in two epochs, from the peak to nothing: after three of them 1 - 2/5
    assert [e.lr for e in bench.trainer.history] == pytest.approx([0.01, 0.01, 0.03 * 0.6, 0])
    assert {g["scale"] for g in bench.trainer.optimizer.param_groups} == {1.0, 0.1}


def test_more_frozen_epochs_than_there_are(make_bench, train):
    bench = make_bench({"training.freeze_epochs": 9, "training.epochs": 2}, n=16)
    before = weights(bench.trainer.network)
    after = weights(train(bench).trainer.network)
    assert "features.0.weight" not in changed(before, after)
    assert bench.trainer.finished


# repeating and resuming


def test_the_same_seed_gives_the_same_bits(make_bench, train):
    overrides = {"augment.mixup": 0.4, "augment.cutmix": 0.4, "model.dropout": 0.5}
    first, again, other = (train(make_bench(overrides, seed=s), 2).trainer.state() for s in (0, 0, 1))
    assert same(first, again)
    assert not same(first["network"], other["network"])
    assert not same(first["random"], other["random"])


RESUMED: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "none"),
    "mixing": ({"augment.mixup": 0.4, "augment.cutmix": 0.4, "model.dropout": 0.5}, "none"),
    "average": ({"training.ema_decay": 0.9}, "focal"),
    "plateau": ({"schedule.name": "plateau", "schedule.warmup": 0.0, "schedule.plateau_patience": 1}, "inverse"),
    "adamw": ({"optimizer.name": "adamw", "optimizer.lr": 2e-3, "optimizer.clip_norm": 0.5}, "logit_adjusted"),
    "sampling": ({}, "balanced_sampling"),
    "growing": ({"model.input_size": 24, "training.start_size": 16, "training.growth": 0.8}, "none"),
    "stages": ({**STAGES, "training.ema_decay": 0.9, "optimizer.layer_decay": 0.7}, "none"),
    "stages, norms frozen": ({**STAGES, "training.freeze_norm": True, "optimizer.backbone_lr": 0.1}, "none"),
    "fp16": ({"training.precision.cpu": "fp16"}, "none"),
    "bf16": ({"training.precision.cpu": "bf16"}, "none"),
}


@pytest.mark.parametrize("case", RESUMED)
def test_training_goes_on_to_the_same_bits(case, make_bench, train):
    overrides, strategy = RESUMED[case]
    if case == "bf16" and not environment._cpu_has_bf16():
        pytest.skip("the CPU has no bf16")

    def bench(seed: int) -> Prepared:
        return make_bench(overrides, strategy=strategy, seed=seed, n=18)

    whole, states = bench(0), []
    for _ in range(4):
        states.append(copied(train(whole, 1).trainer.state()))
    for cut in (1, 2, 3):
        # another seed: nothing may come from anywhere but the state
        resumed = bench(1)
        resumed.trainer.restore(states[cut - 1])
        assert same(copied(resumed.trainer.state()), states[cut - 1])
        train(resumed, 4 - cut)
        assert same(copied(resumed.trainer.state()), states[3]), f"cut after epoch {cut}"


class StopsAfter:
    """A watcher that ends the process, as it were, after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.told, self.images, self.notes = epochs, [], [], []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_batch(self, epoch: int, images: int) -> None:
        self.images.append((epoch, images))

    def on_epoch(self, epoch: Any) -> None:
        self.told.append(epoch.epoch)
        if epoch.epoch == self.epochs:
            raise KeyboardInterrupt


def test_fit_goes_on_from_its_checkpoint(make_bench, nobody, tmp_path, monkeypatch):
    # a share of 1 leaves no epoch's end out
    monkeypatch.setattr(checkpoint_module, "MOST_TIME_SPENT_SAVING", 1.0)

    def trainer_and_fit(name: str, watcher: Any, seed: int = 0) -> tuple[Trainer, Any]:
        bench = make_bench(seed=seed)
        writing = Store(tmp_path).writing
        return bench.trainer, fit(bench.trainer, bench.validate, Checkpoint(tmp_path / name, "k", writing), watcher)

    whole, expected = trainer_and_fit("whole", nobody)
    with pytest.raises(KeyboardInterrupt):
        trainer_and_fit("cut", StopsAfter(2))
    watcher = StopsAfter(99)
    resumed, fitted = trainer_and_fit("cut", watcher, seed=1)
    assert watcher.told == [1, 2, 3, 4], "epochs of the first sitting are told again"
    assert watcher.images == [(e, n) for e in (3, 4) for n in (16, 32, 48)]
    assert watcher.notes == ["goes on after epoch 2 of 4"]
    assert fitted.best_epoch == expected.best_epoch
    assert same([vars(e) for e in fitted.history], [vars(e) for e in expected.history])
    assert same(weights(resumed.network), weights(whole.network))
    assert fitted.elapsed >= sum(e.seconds for e in fitted.history)
    # a finished training only hands out its result
    watcher = StopsAfter(99)
    again, _ = trainer_and_fit("cut", watcher, seed=1)
    assert watcher.told == [1, 2, 3, 4] and watcher.images == watcher.notes == []
    assert same(weights(again.network), weights(whole.network))
