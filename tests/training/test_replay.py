"""What is recorded, and when; that a graph gives what running gives is test_gpu's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ferbench.environment import Arithmetic
from ferbench.training.replay import WARM_UPS, Replayed, launched


class Recorder:
    """A graph as the CPU can have one: the work again, its results in the same memory each time."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters, self.recorded, self.replayed = parameters, 0, 0

    def __call__(self, work, device):
        self.recorded += 1
        result = work()
        gradients = [p.grad for p in self.parameters]

        def replay() -> None:
            self.replayed += 1
            for p in self.parameters:
                p.grad = None
            result.copy_(work())
            for p, kept in zip(self.parameters, gradients, strict=True):
                kept.copy_(p.grad)
                # whoever replays must give the parameters their gradients again
                p.grad = None

        return replay, result


@pytest.fixture
def bench():
    network = nn.Linear(3, 2)
    parameters = list(network.parameters())

    def work(inputs, targets):
        value = (network(inputs) - targets).square().mean()
        value.backward()
        return value.detach()

    recorder = Recorder(parameters)
    replayed = Replayed(work, parameters, recorder)

    def same(n: int) -> bool:
        """Whether a batch of n gives what running gives."""
        inputs, targets = torch.randn(n, 3), torch.randn(n, 2)
        found = []
        for do in (work, replayed):
            network.zero_grad(set_to_none=True)
            value = do(inputs, targets).clone()
            found.append([value, *(p.grad.clone() for p in parameters)])
        network.zero_grad(set_to_none=True)
        return all(torch.equal(a, b) for a, b in zip(*found, strict=True))

    return same, recorder, replayed


def test_recorded_once_after_warming_up_and_replayed_from_then_on(bench):
    same, recorder, _ = bench
    assert all(same(8) for _ in range(WARM_UPS)) and not recorder.recorded
    assert all(same(8) for _ in range(5))
    assert (recorder.recorded, recorder.replayed) == (1, 5)


def test_smaller_batch_at_the_end_of_each_epoch_is_not_recorded(bench):
    same, recorder, _ = bench
    for _ in range(2 * WARM_UPS):
        assert all(same(8) for _ in range(WARM_UPS + 2)) and same(5)
    # each epoch but the first has only replays and its end
    assert (recorder.recorded, recorder.replayed) == (1, 2 * WARM_UPS * (WARM_UPS + 2) - WARM_UPS)


def test_another_size_is_recorded_in_its_turn(bench):
    same, recorder, _ = bench
    assert all(same(n) for n in [8] * (WARM_UPS + 1) + [6] * (WARM_UPS + 2) + [8] * (WARM_UPS + 1))
    assert (recorder.recorded, recorder.replayed) == (3, 4)


def test_work_that_cannot_be_recorded_runs_as_it_comes(bench, monkeypatch):
    same, _, replayed = bench
    asked = []

    def refuse(self, work, device):
        asked.append(1)
        # half way: gradients are there that nobody may add to
        work()
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Recorder, "__call__", refuse)
    assert replayed.refusal == ""
    assert all(same(n) for n in [8] * (2 * WARM_UPS) + [6] * (2 * WARM_UPS))
    assert len(asked) == 1
    assert replayed.refusal == "operation not permitted when stream is capturing"


def test_a_cpu_runs_its_work_as_it_comes():
    def work(inputs, targets):
        return inputs

    assert launched(work, [], Arithmetic(torch.device("cpu"), "fp32")) is work
    assert launched(work, [], Arithmetic(torch.device("cuda"), "fp16")) is work
    assert isinstance(launched(work, [], Arithmetic(torch.device("cuda"), "bf16")), Replayed)
