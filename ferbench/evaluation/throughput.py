"""How many images a second a network classifies, with the images already on the device."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from ferbench.environment import Arithmetic

BATCH_SIZES = (1, 256)
TIMED_SECONDS = float(os.environ.get("FERBENCH_TIMED_SECONDS", "1.5"))
"""For each batch size; the environment variable is for tests of all else, which need no exact rates."""
WARMUP_SECONDS = TIMED_SECONDS / 5
FEWEST_ROUNDS, MOST_ROUNDS = 3, 200


@torch.inference_mode()
def measure_throughput(network: nn.Module, input_size: int, arithmetic: Arithmetic) -> list[tuple[int, float, int]]:
    """(batch size, images/s, timed rounds) for each of BATCH_SIZES that a GPU has the memory for.

    Each round is one forward pass between two synchronisations, after a warm-up of the same passes; the rate is the
    batch size over the median round.
    """
    network.eval()
    results = []
    for batch_size in BATCH_SIZES:
        images = torch.randn(batch_size, 1, input_size, input_size, device=arithmetic.device)
        images = images.contiguous(memory_format=arithmetic.memory_format)

        def one_round(images: torch.Tensor = images) -> float:
            start = time.perf_counter()
            with arithmetic.autocast():
                network(images)
            if arithmetic.device.type == "cuda":
                torch.cuda.synchronize(arithmetic.device)
            return time.perf_counter() - start

        try:
            _rounds(one_round, WARMUP_SECONDS, 1)
            seconds = _rounds(one_round, TIMED_SECONDS, FEWEST_ROUNDS)
        except torch.OutOfMemoryError:
            # a finished training must not be lost by it
            continue
        results.append((batch_size, batch_size / statistics.median(seconds), len(seconds)))
    return results


def _rounds(one_round, seconds: float, fewest: int) -> list[float]:  # type: ignore[no-untyped-def]
    times = [one_round() for _ in range(fewest)]
    while sum(times) < seconds and len(times) < MOST_ROUNDS:
        times.append(one_round())
    return times
