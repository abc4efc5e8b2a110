"""Which precision and memory order train a network fastest here: a few steps of each, timed once and remembered.

On one CPU with bf16 instructions, bf16 trains the plain CNN about twice as fast as fp32 and EfficientNets slower:
no rule of thumb would do.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ferbench.data.cache import cache_folder, try_writing
from ferbench.environment import Arithmetic, describe, nearest_precision
from ferbench.models import build
from ferbench.training.replay import WARM_UPS, launched

if TYPE_CHECKING:
    from ferbench.environment import Computed
    from ferbench.recipe import ModelRecipe
    from ferbench.spec import RunSpec

PROBE_VERSION = 4
"""Raised whenever older measurements should not be believed any more."""
CPU_BATCH = 64
"""Most images per timed step on a CPU: with so many the order of the candidates is that of larger batches.

EfficientNetV2-S in fp32 and bf16 (with instructions), images/s: 57 and 56 at 16, 108 and 94 at 64, 110 and 87 at 128.
"""
ROUNDS, MOST_ROUNDS, SECONDS = 3, 15, 1.0
"""Timed steps of each candidate, in turns, after those for warming up: as many as fill the seconds, since other work on
the machine disturbs short ones the most. The median counts."""
WORTH = 1.03
"""How many times faster a later candidate must be to be taken: less is noise."""


@dataclass(frozen=True)
class Choice:
    """What a run computes in, and why."""

    arithmetic: Arithmetic
    images_per_second: dict[str, float]
    """Forward and backward passes of each candidate; empty where the recipe left no choice."""

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in self.images_per_second.items())
        return f"{self.arithmetic}" + (f" (probe, images/s: {rates})" if rates else "")


def choose_arithmetic(spec: RunSpec, n_classes: int, device: torch.device) -> Choice:
    """The arithmetic that a spec's recipe fixes, or the fastest of those it leaves open."""
    candidates = _candidates(spec, device)
    if len(candidates) == 1:
        return Choice(candidates[0], {})
    rates = _remembered(spec, n_classes, device, candidates)
    best = candidates[0]
    for candidate in candidates[1:]:
        if rates[str(candidate)] > WORTH * rates[str(best)]:
            best = candidate
    return Choice(best, rates)


def _candidates(spec: RunSpec, device: torch.device) -> list[Arithmetic]:
    """What the recipe allows and the device has, the likeliest first."""
    training = spec.recipe.training
    wanted, order = getattr(training.precision, device.type), training.channels_last
    asked: tuple[Computed, ...] = ("bf16", "fp32") if wanted == "auto" else (wanted,)
    precisions = [nearest_precision(p, device) for p in asked]
    orders = [True, False] if order == "auto" else [order]
    return [Arithmetic(device, name, last) for name in dict.fromkeys(precisions) for last in orders]


def _remembered(spec: RunSpec, n_classes: int, device: torch.device, candidates: list[Arithmetic]) -> dict[str, float]:
    """Images/s of each candidate, as measured the first time that this machine was asked."""
    batch_size = spec.batch_size if device.type == "cuda" else min(spec.batch_size, CPU_BATCH)
    here = describe(device)
    machine = [here[k] for k in ("device", "threads", "torch", "platform")]
    model = spec.recipe.model.model_copy(update={"init": "scratch"})
    what = (model.name, model.input_size, model.stem_stride, batch_size)
    key = json.dumps([PROBE_VERSION, machine, what, [str(c) for c in candidates]])
    file = cache_folder() / "probes" / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.json"
    rates = _read(file, candidates)
    if rates is None:
        rates = _measured(model, n_classes, batch_size, candidates)
        # what had no room has it another time
        if all(rates.values()):
            try_writing(file, json.dumps(rates))
    return rates


def _read(file: Any, candidates: list[Arithmetic]) -> dict[str, float] | None:
    try:
        stored = json.loads(file.read_text(encoding="ascii"))
        return {str(c): float(stored[str(c)]) for c in candidates}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measured(model: ModelRecipe, n_classes: int, batch_size: int, candidates: list[Arithmetic]) -> dict[str, float]:
    """In turns on a CPU, whose speed changes all the time; on a GPU one by one, to save its memory.

    What a GPU has no room for does 0 images/s.
    """
    images = torch.randn(batch_size, 1, model.input_size, model.input_size, device=candidates[0].device)
    together = [[c] for c in candidates] if images.is_cuda else [candidates]
    rates: dict[str, float] = {}
    for some in together:
        try:
            rates |= _measured_together(model, n_classes, images, some)
        except torch.OutOfMemoryError:
            rates |= dict.fromkeys(map(str, some), 0.0)
            torch.cuda.empty_cache()
    return rates


def _measured_together(
    model: ModelRecipe, n_classes: int, images: Tensor, candidates: list[Arithmetic]
) -> dict[str, float]:
    networks = [build(model, n_classes).to(c.device).to(memory_format=c.memory_format).train() for c in candidates]
    steps = [_step(n, c) for n, c in zip(networks, candidates, strict=True)]
    warm_ups = 1 + WARM_UPS if images.is_cuda else 1
    rounds: list[list[float]] = []

    def work() -> None:
        rounds.append([_seconds(s, images, c) for s, c in zip(steps, candidates, strict=True)])

    for _ in range(warm_ups):
        work()
    rounds.clear()
    while len(rounds) < ROUNDS or (len(rounds) < MOST_ROUNDS and sum(map(sum, rounds)) < SECONDS * len(candidates)):
        work()
    return {str(c): len(images) / median(t) for c, t in zip(candidates, zip(*rounds, strict=True), strict=True)}


def _step(network: nn.Module, arithmetic: Arithmetic) -> Callable[[Tensor], None]:
    """Forward and backward of a batch, as training launches them."""

    def work(inputs: Tensor, targets: Tensor) -> Tensor:
        with arithmetic.autocast():
            logits = network(inputs)
        value = torch.logsumexp(logits.float(), 1).mean()
        value.backward()
        return value.detach()

    fast = launched(work, list(network.parameters()), arithmetic)

    def step(images: Tensor) -> None:
        fast(images, images)
        network.zero_grad(set_to_none=True)

    return step


def _seconds(step: Callable[[Tensor], None], images: Tensor, arithmetic: Arithmetic) -> float:
    """Time of one step."""
    images = images.contiguous(memory_format=arithmetic.memory_format)
    start = time.perf_counter()
    step(images)
    if arithmetic.device.type == "cuda":
        torch.cuda.synchronize(arithmetic.device)
    return time.perf_counter() - start
