"""How the time of an epoch grows with the number of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ferbench.bench.sides import Ours
from ferbench.bench.training import training_record
from ferbench.environment import choose_device, describe
from ferbench.probe import choose_arithmetic
from ferbench.records.bench import BenchRecord, BenchRow, rounded
from ferbench.records.record import Environment

if TYPE_CHECKING:
    from ferbench.data.dataset import Dataset
    from ferbench.spec import RunSpec

SIZES = (1000, 3000, 10_000, 30_000)
"""Training images; the last is cut to what there is."""


def measure_growth(spec: RunSpec, dataset: Dataset, device_name: str, rounds: int) -> BenchRecord:
    """Seconds of a training epoch for each number of images, in turns.

    Args:
        spec: with `training.OVERRIDES` in its recipe.
    """
    device = choose_device(device_name)
    environment = Environment(**describe(device))
    arithmetic = choose_arithmetic(spec, len(dataset.classes), device).arithmetic
    sizes = sorted({min(n, len(dataset.train)) for n in SIZES})
    ours = Ours(spec, dataset, arithmetic)
    ours.epoch(sizes[0])
    rows = [(n, ours.epoch(n).seconds) for _ in range(rounds) for n in sizes]
    seconds = {n: [s for m, s in rows if m == n] for n in sizes}
    found = [BenchRow(name=str(n), samples={"s": rounded(seconds[n])}) for n in sizes]
    return training_record("growth", spec, dataset, arithmetic, environment, found)
