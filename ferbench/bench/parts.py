"""Where the time of a training batch goes: the parts of our loop, each by itself, beside the loop itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from ferbench.bench.sides import Ours, synchronise
from ferbench.bench.training import training_record, warmed_up
from ferbench.environment import choose_device, describe
from ferbench.probe import choose_arithmetic
from ferbench.records.bench import BenchRecord, BenchRow, rounded
from ferbench.records.record import Environment
from ferbench.training.optimization import set_learning_rate

if TYPE_CHECKING:
    import torch

    from ferbench.data.dataset import Dataset
    from ferbench.spec import RunSpec

WHOLE = "the loop"
_LAUNCHED = 20
"""Batches that are launched in a row: a GPU lets so many wait, and would make Python wait with many more."""


def measure_parts(spec: RunSpec, dataset: Dataset, device_name: str, rounds: int, seconds: float) -> BenchRecord:
    """Milliseconds of each part of a batch until the device has done it, and until Python has launched it, in turns.

    Launches are a GPU's: a part whose launch takes as long as its work is one in which it waits for Python. The loop
    waits for the device at its end.

    Args:
        spec: with `training.OVERRIDES` in its recipe.
        seconds: about how long the loop trains in a round; a part comes as often as in the loop.
    """
    device = choose_device(device_name)
    environment = Environment(**describe(device))
    arithmetic = choose_arithmetic(spec, len(dataset.classes), device).arithmetic
    ours = Ours(spec, dataset, arithmetic)
    batches = warmed_up(ours.images_per_second, spec.batch_size, seconds, device)
    parts = _parts(ours)
    samples: dict[str, dict[str, list[float]]] = {name: {"ms": []} for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            samples[name]["ms"].append(_milliseconds(part, batches, device)[0])
            if device.type == "cuda" and name != WHOLE:
                launch = _milliseconds(part, min(batches, _LAUNCHED), device)[1]
                samples[name].setdefault("ms to launch", []).append(launch)
    rows = [
        BenchRow(name=name, samples={unit: rounded(values) for unit, values in taken.items()})
        for name, taken in samples.items()
    ]
    return training_record("parts", spec, dataset, arithmetic, environment, rows, batches=batches)


def _parts(ours: Ours) -> dict[str, Callable[[int], object]]:
    """What does each part for a number of batches, none larger than the loop's before."""
    trainer = ours.trainer
    work, (inputs, targets) = trainer.work(), next(trainer.batches())
    learning = [p for group in trainer.optimizer.param_groups for p in group["params"]]

    def draw(n: int) -> None:
        for _ in islice(trainer.batches(), n):
            pass

    def learn(n: int) -> None:
        for _ in range(n):
            for parameter in learning:
                parameter.grad = None
            work(inputs, targets)
            if trainer.recipe.optimizer.clip_norm:
                # or a loss scaler would not unscale the next gradients
                trainer.scaler.update()

    def update(n: int) -> None:
        # the gradients are those that learning has left; the same ones again and again would lead far astray
        set_learning_rate(trainer.optimizer, 0.0)
        for _ in range(n):
            trainer.scaler.step(trainer.optimizer)
            trainer.scaler.update()

    parts: dict[str, Callable[[int], object]] = {
        # in this order: the loop leaves the images that are drawn next, and learning the gradients of an update
        WHOLE: ours.images_per_second,
        "images: order, augmentation": draw,
        "forward, loss, backward, clipping": learn,
        "optimizer": update,
    }
    ema = trainer.ema
    if ema is not None:

        def average(n: int) -> None:
            for step in range(n):
                ema.update(trainer.network, step=step)

        parts["weight average"] = average
    return parts


def _milliseconds(part: Callable[[int], object], batches: int, device: torch.device) -> tuple[float, float]:
    """For a batch: until the device had done it, and until all was launched."""
    synchronise(device)
    start = time.perf_counter()
    part(batches)
    launched = time.perf_counter()
    synchronise(device)
    return 1000 * (time.perf_counter() - start) / batches, 1000 * (launched - start) / batches
