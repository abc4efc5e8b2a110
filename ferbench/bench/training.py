"""Training speed: ours against the conventional loop and against the model alone, each in its process, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from ferbench.bench.apart import apart
from ferbench.bench.sides import Conventional, ModelAlone, Ours, Side, Validation, matrix_rate
from ferbench.environment import Arithmetic, choose_device, describe, keep_freed_memory, nearest_precision
from ferbench.models.cost import count_cost
from ferbench.probe import choose_arithmetic
from ferbench.recipe import ONE_SIZE
from ferbench.records.bench import BenchRecord, BenchRow, Suite, rounded
from ferbench.records.record import Environment, utc_now
from ferbench.training.replay import WARM_UPS

if TYPE_CHECKING:
    import torch

    from ferbench.data.dataset import Dataset
    from ferbench.spec import RunSpec

OVERRIDES = {
    # one size and one stage: a round is like any other
    **{f"training.{name}": value for name, value in ONE_SIZE.items()},
    "training.freeze_epochs": 0,
    "training.epochs": 1_000_000,
    # the conventional loop has no counterpart that would be called conventional
    "augment.mixup": 0.0,
    "augment.cutmix": 0.0,
}
"""What is changed in a recipe before its training is timed."""

SLOW_STEP = 15.0
"""Seconds; a side whose first step takes longer is timed by that step alone."""


def measure_training(spec: RunSpec, dataset: Dataset, device_name: str, rounds: int, seconds: float) -> BenchRecord:
    """Images/s of every side, the matrix rate of the device beside them, and validation.

    Args:
        spec: with `OVERRIDES` in its recipe.
        rounds: samples of each side; each round times every side once, in turns.
        seconds: about how long a side trains in a round.
    """
    device = choose_device(device_name)
    environment = Environment(**describe(device))
    arithmetic = choose_arithmetic(spec, len(dataset.classes), device).arithmetic
    with _sides(spec, dataset, arithmetic) as sides:
        timed = [_Timed(name, speed, spec.batch_size, seconds, device) for name, speed in sides.items()]
        rates: list[float] = []
        for turn in range(rounds):
            # another side begins each time, so that a machine that slows down slows all alike
            for i in range(len(timed)):
                timed[(i + turn) % len(timed)].sample()
            rates.append(matrix_rate(arithmetic))
    rows = [t.row() for t in timed]
    rows.append(BenchRow(name="matrix product", samples={"GMAC/s": rounded(rates)}))
    sizes = {
        # of what is trained
        "MACs": count_cost(spec.recipe.model.model_copy(update={"flip_tta": False}), len(dataset.classes))[1],
        "train images": len(dataset.train),
        "val images": len(dataset.val),
    }
    return training_record("training", spec, dataset, arithmetic, environment, rows, processes="one a side", **sizes)


def training_record(
    suite: Suite,
    spec: RunSpec,
    dataset: Dataset,
    arithmetic: Arithmetic,
    environment: Environment,
    rows: list[BenchRow],
    **settings: int | str,
) -> BenchRecord:
    """What a suite that trains has measured, with the settings that all of them have."""
    return BenchRecord(
        suite=suite,
        subject=spec.recipe.model.name,
        finished_at=utc_now(),
        environment=environment,
        settings={
            "arithmetic": str(arithmetic),
            "batch size": spec.batch_size,
            "input size": spec.recipe.model.input_size,
            **settings,
            "data": dataset.name,
        },
        rows=rows,
    )


Speed = Callable[[int], float]
"""Images/s over a number of batches."""


@contextmanager
def _sides(spec: RunSpec, dataset: Dataset, arithmetic: Arithmetic) -> Iterator[dict[str, Speed]]:
    """The sides by name, each in a process of its own; they end with the block."""
    device = arithmetic.device
    half: Literal["bf16", "fp16"] = "fp16" if nearest_precision("bf16", device) == "fp16" else "bf16"
    made: dict[str, tuple[Callable[..., Side], Arithmetic]] = {
        "ferbench": (Ours, arithmetic),
        "conventional fp32": (Conventional, Arithmetic(device, "fp32")),
        # where bf16 is emulated too: that is what a user gets who switches autocast on
        "conventional autocast": (Conventional, Arithmetic(device, half)),
        "model alone": (ModelAlone, arithmetic),
        "validation": (Validation, arithmetic),
    }
    with ExitStack() as processes:
        yield {
            name: partial(processes.enter_context(apart(_made, make, spec, dataset, each)), "images_per_second")
            for name, (make, each) in made.items()
        }


def _made(make: Callable[..., Side], spec: RunSpec, dataset: Dataset, arithmetic: Arithmetic) -> Side:
    """A side in a process as its users have it."""
    if make is not Conventional:
        keep_freed_memory()
    # what a device does with fp32 holds for a process
    choose_device(str(arithmetic.device))
    return make(spec, dataset, arithmetic)


class _Timed:
    """A side with its samples."""

    def __init__(self, name: str, speed: Speed, batch_size: int, seconds: float, device: torch.device) -> None:
        self._name, self._speed, self._note = name, speed, ""
        self._samples: list[float] = []
        first = speed(1)
        self._slow = batch_size / first > SLOW_STEP
        if self._slow:
            self._samples, self._note = [first], "one step, its first: too slow for more"
            return
        self._batches = warmed_up(speed, batch_size, seconds, device)

    def sample(self) -> None:
        if not self._slow:
            self._samples.append(self._speed(self._batches))

    def row(self) -> BenchRow:
        return BenchRow(name=self._name, samples={"images/s": rounded(self._samples)}, note=self._note)


def warmed_up(speed: Speed, batch_size: int, seconds: float, device: torch.device) -> int:
    """How many batches, two or more, take a side about that long, now that it runs as fast as it will."""
    # on a GPU until batches are recorded
    speed(WARM_UPS if device.type == "cuda" else 1)
    return max(2, round(seconds * speed(2) / batch_size))
