from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ferbench.environment import Arithmetic
from ferbench.evaluation import throughput
from ferbench.evaluation.throughput import measure_throughput

CPU = Arithmetic(torch.device("cpu"), "fp32")


class Clocked(nn.Module):
    """A network whose pass takes as long as the test says, on a clock of its own."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.now, self.passes, self.shapes = 0.0, 0, []
        self.seconds = seconds

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.shapes.append(tuple(images.shape))
        self.now += self.seconds[self.passes % len(self.seconds)]
        self.passes += 1
        return images


@pytest.fixture
def measure(monkeypatch):
    def run(seconds: list[float]) -> tuple[list[tuple[int, float, int]], Clocked]:
        network = Clocked(seconds).train()
        monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: network.now))
        return measure_throughput(network, 20, CPU), network

    return run


def test_rate_is_the_batch_over_the_median_round(measure):
    # a quarter of a second each: two rounds of warm-up, then six until 1.5 seconds are full
    results, network = measure([0.25])
    assert results == [(1, 4.0, 6), (256, 1024.0, 6)]
    assert network.shapes == [(1, 1, 20, 20)] * 8 + [(256, 1, 20, 20)] * 8


def test_one_slow_round_does_not_count(measure):
    # warm-up 1, timed 0.5, 8, 0.5: the median is 0.5
    results, _ = measure([1.0, 0.5, 8.0, 0.5])
    assert results == [(1, 2.0, 3), (256, 512.0, 3)]


def test_slow_networks_have_few_rounds_and_fast_ones_do_not_go_on_for_ever(measure):
    assert [rounds for _, _, rounds in measure([60.0])[0]] == [throughput.FEWEST_ROUNDS] * 2
    assert [rounds for _, _, rounds in measure([0.001])[0]] == [throughput.MOST_ROUNDS] * 2


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_real_network(channels_last, monkeypatch):
    monkeypatch.setattr(throughput, "TIMED_SECONDS", 0.0)
    monkeypatch.setattr(throughput, "WARMUP_SECONDS", 0.0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 7))
    before = network[1].running_mean.clone()
    results = measure_throughput(network, 16, Arithmetic(torch.device("cpu"), "fp32", channels_last))
    assert [(size, rounds) for size, _, rounds in results] == [(1, 3), (256, 3)]
    assert all(rate > 0 for _, rate, _ in results)
    assert torch.equal(network[1].running_mean, before)


def test_a_batch_that_has_no_room_is_left_out(monkeypatch):
    class Small(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 1:
                raise torch.OutOfMemoryError
            return images

    monkeypatch.setattr(throughput, "TIMED_SECONDS", 0.001)
    assert [size for size, _, _ in measure_throughput(Small(), 8, CPU)] == [1]
