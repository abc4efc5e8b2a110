"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import pytest

from ferbench.data import load
from ferbench.environment import choose_device
from ferbench.inputs import load_budget, load_recipe
from ferbench.probe import choose_arithmetic
from ferbench.runner import set_up
from ferbench.spec import DataKey, RunSpec
from ferbench.training.epochs import Nobody

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def prepare(faces, model, changes, strategy=None):
    """A training of a model on the faces, ready to begin."""
    dataset = load(faces)
    key = DataKey(name=dataset.name, fingerprint=dataset.fingerprint, protocol="official")
    recipe = load_recipe(model, strategy=strategy, overrides=changes)
    spec = RunSpec(recipe=recipe, seed=0, budget=load_budget("full"), data=key)
    return set_up(spec, dataset, choose_arithmetic(spec, 7, choose_device("cuda")).arithmetic)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("model", ["plain_cnn", "efficientnet_b2"])
def test_each_precision_learns_and_is_recorded(faces, tmp_path, model, precision):
    import ferbench

    overrides = {
        "training.epochs": 8, "training.precision.cuda": precision, "training.ema_decay": 0.9,
        "training.batch_size": 32, "training.start_size": 0, "optimizer.lr": 5e-4,
    }  # fmt: skip
    (record,) = ferbench.run(
        models=model, data=faces, budget="full", overrides=overrides, results=tmp_path, device="cuda", progress=False
    )
    assert record.status == "ok", record.reason
    assert record.environment.device_type == "cuda"
    assert record.history[-1].train_loss < record.history[0].train_loss


@pytest.mark.parametrize("model", ["plain_cnn", "efficientnet_b2"])
def test_compiled_training_with_cuda_graphs_learns(faces, tmp_path, model):
    import ferbench

    # two image sizes, so two graphs, and a last batch that is smaller
    overrides = {"training.epochs": 4, "training.compile": True, "training.start_size": 24, "training.batch_size": 64}
    (record,) = ferbench.run(
        models=model, data=faces, budget="full", overrides=overrides, results=tmp_path, device="cuda", progress=False
    )
    assert record.status == "ok", record.reason
    assert record.history[-1].train_loss < record.history[0].train_loss


@pytest.mark.parametrize("model", ["plain_cnn", "efficientnet_b2"])
def test_replayed_batches_teach_what_batches_do(faces, monkeypatch, model):
    from ferbench.training import fit

    # a rate at which one rounding more or less does not decide where training goes
    changes = {"training.epochs": 3, "training.batch_size": 32, "training.ema_decay": 0.9, "optimizer.lr": 1e-4}

    def trainer():
        prepared = prepare(faces, model, {"training.start_size": 0, **changes})
        for _ in range(3):
            prepared.trainer.run_epoch(prepared.validate, Nobody())
        return prepared.trainer

    replayed = trainer()
    assert replayed._work_under[1]._replay is not None
    monkeypatch.setattr(fit, "launched", lambda work, parameters, arithmetic: work)
    plain = trainer()
    for a, b in zip(replayed.history, plain.history, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=0.02)


def test_work_that_waits_for_the_device_runs_as_it_comes():
    from ferbench.training.replay import WARM_UPS, Replayed

    network = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 2)).cuda()

    def work(inputs, targets):
        value = (network(inputs) - targets).square().mean()
        value.backward()
        assert value.item() >= 0
        return value.detach()

    replayed, losses = Replayed(work, list(network.parameters())), []
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    inputs, targets = torch.randn(32, 3, device="cuda"), torch.ones(32, 2, device="cuda")
    for _ in range(20 + WARM_UPS):
        losses.append(float(replayed(inputs, targets)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert replayed.refusal
    assert losses[-1] < losses[0] / 2
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


@pytest.mark.parametrize("strategy", ["mek", "influence_balanced", "ldam"])
def test_strategies_that_look_into_the_network_are_replayed(faces, strategy):
    prepared = prepare(faces, "plain_cnn", {"training.epochs": 2, "training.batch_size": 32}, strategy)
    for _ in range(2):
        prepared.trainer.run_epoch(prepared.validate, Nobody())
    assert prepared.trainer._work_under[1]._replay is not None


def test_several_runs_share_a_gpu(faces, tmp_path):
    import ferbench

    records = ferbench.run(
        models="plain_cnn", data=faces, budget="full", seeds=(0, 1, 2), overrides={"training.epochs": 2},
        results=tmp_path, device="cuda", progress=False, jobs_per_gpu=3,
    )  # fmt: skip
    assert [r.status for r in records] == ["ok"] * 3


def test_every_side_of_the_speed_benchmark_runs(faces, tmp_path):
    from ferbench.bench import run_suite

    arguments = {"models": "plain_cnn", "overrides": {}, "seeds": (0,), "target": 0.1, "rounds": 1, "seconds": 0.2}
    for suite in ("training", "parts", "inference", "growth", "accuracy"):
        ((record, path),) = run_suite(suite, **arguments, source=str(faces), results=tmp_path, device="cuda")
        assert path.is_file() and record.environment.device_type == "cuda"


def test_stopped_training_goes_on(faces, tmp_path):
    changes = {"training.epochs": 4, "augment.mixup": 0.2}
    whole = prepare(faces, "plain_cnn", changes)
    for _ in range(4):
        whole.trainer.run_epoch(whole.validate, Nobody())
    first = prepare(faces, "plain_cnn", changes)
    for _ in range(2):
        first.trainer.run_epoch(first.validate, Nobody())
    second = prepare(faces, "plain_cnn", changes)
    second.trainer.restore(first.trainer.state())
    for _ in range(2):
        second.trainer.run_epoch(second.validate, Nobody())
    # kernels on a GPU may add in another order, so this is no claim on bits
    assert second.trainer.history[-1].train_loss == pytest.approx(whole.trainer.history[-1].train_loss, rel=0.02)
