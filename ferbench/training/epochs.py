"""What an epoch says, who is told, and which epoch was best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ValScores:
    """What validation says of an epoch."""

    accuracy: float
    macro_f1: float
    nll: float
    rival: float | None = None
    """A score by which a second epoch is kept beside the one that the others choose, and by which training is steered
    (plateau, patience) where it is given."""


Validate = Callable[[nn.Module, int], ValScores]
"""(network, side of the images) -> what val says of it."""


@dataclass(frozen=True)
class Epoch:
    """One line of the history; fields as in `records.record.EpochRow`."""

    epoch: int
    lr: float
    train_loss: float
    val_accuracy: float
    val_macro_f1: float
    val_nll: float
    seconds: float
    images_per_second: float
    input_size: int


class Watcher(Protocol):
    """Somebody to tell how training goes."""

    def on_note(self, text: str) -> None:
        """A line about the run that a person may want to read."""

    def on_batch(self, epoch: int, images: int) -> None:
        """`images` of the epoch are through; called often, must be quick."""

    def on_epoch(self, epoch: Epoch) -> None:
        """An epoch has ended."""


class Nobody:
    """A watcher that looks away."""

    def on_note(self, text: str) -> None:
        """Nothing."""

    def on_batch(self, epoch: int, images: int) -> None:
        """Nothing."""

    def on_epoch(self, epoch: Epoch) -> None:
        """Nothing."""


class Best:
    """The best epoch so far by one score."""

    def __init__(self) -> None:
        self.epoch, self.score = 0, -math.inf
        self.weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, score: float, network: nn.Module) -> None:
        """Keep an epoch's weights if its score is the best."""
        if score > self.score:
            self.epoch, self.score = epoch, score
            self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over what a checkpoint holds."""
        self.epoch, self.score = state["epoch"], state["score"]
        self.weights = {k: v.to(device) for k, v in state["weights"].items()}
