"""Parameter groups, the optimizer, the learning rate over the updates, and the average of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ferbench.training.muon import Muon

if TYPE_CHECKING:
    from ferbench.recipe import OptimizerRecipe, ScheduleRecipe
    from ferbench.training.average import WeightAverage

_NUMBERED = ("features", "blocks", "stages", "layers")


def parameter_groups(network: nn.Module, head: str, recipe: OptimizerRecipe) -> list[dict]:
    """Groups of trainable parameters that share weight decay and `scale`, a multiple of the learning rate.

    The head has scale 1; a backbone's stage has `backbone_lr`, times `layer_decay` for each stage between it and the
    head. Biases, norms and other vectors are not decayed. For Muon a group says whether it is `orthogonal`: the
    backbone's matrices and filters with more than one input.
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    stages = list(dict.fromkeys(_stage(name) for name, _ in named if not name.startswith(head + ".")))
    groups: dict[tuple[float, float, bool], dict] = {}
    for name, parameter in named:
        scale, in_head = 1.0, name.startswith(head + ".")
        if not in_head:
            distance = len(stages) - 1 - stages.index(_stage(name))
            scale = recipe.backbone_lr * recipe.layer_decay**distance
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        orthogonal = recipe.name == "muon" and not in_head and parameter.ndim > 1 and parameter.shape[1] > 1
        new = {"params": [], "scale": scale, "weight_decay": decay, "orthogonal": orthogonal}
        group = groups.setdefault((scale, decay, orthogonal), new)
        group["params"].append(parameter)
    return list(groups.values())


def _stage(name: str) -> str:
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first in _NUMBERED and rest else first


def build_optimizer(groups: list[dict], recipe: OptimizerRecipe, *, scaled: bool) -> torch.optim.Optimizer:
    """The recipe's optimizer, fused where that is safe.

    Args:
        scaled: whether a loss scaler may skip updates.
    """
    if recipe.name == "sgd":
        momentum, nesterov = recipe.momentum, recipe.momentum > 0
        # fused SGD leaves its momentum uninitialised when the first update is skipped, and the next one explodes
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=momentum, nesterov=nesterov, fused=not scaled)
    if recipe.name == "muon":
        return Muon(groups, recipe.lr, recipe.momentum, (recipe.momentum, recipe.beta2))
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, recipe.beta2), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def schedule_factor(recipe: ScheduleRecipe, progress: float) -> float:
    """The learning rate as a multiple of its peak, after a share `progress` in [0, 1] of all updates.

    Plateau's drops come on top (`Plateau`); constant and plateau keep 1 after the warm-up.
    """
    if progress < recipe.warmup:
        return recipe.start + (1 - recipe.start) * progress / recipe.warmup
    if recipe.name in ("constant", "plateau"):
        return 1.0
    done = (progress - recipe.warmup) / (1 - recipe.warmup) if recipe.warmup < 1 else 1.0
    left = 1 - done if recipe.name == "one_cycle" else (1 + math.cos(math.pi * done)) / 2
    return recipe.final + (1 - recipe.final) * left


@dataclass
class Plateau:
    """Drops the learning rate when val has not improved for some epochs; does nothing for other schedules."""

    recipe: ScheduleRecipe
    factor: float = 1.0
    """What the scheduled rate is multiplied by."""
    best: float = -math.inf
    waited: int = 0

    def update(self, score: float) -> None:
        """Take note of an epoch's val score."""
        if self.recipe.name != "plateau":
            return
        if score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited >= self.recipe.plateau_patience:
            self.factor, self.waited = max(self.factor * self.recipe.plateau_factor, self.recipe.final), 0

    def state(self) -> list[float]:
        """What a checkpoint keeps."""
        return [self.factor, self.best, float(self.waited)]

    def restore(self, state: list[float]) -> None:
        """Take up a checkpoint's state."""
        self.factor, self.best, self.waited = state[0], state[1], int(state[2])


def weight_average(network: nn.Module, decay: float) -> WeightAverage:
    """An exponential moving average of a network's weights and buffers."""
    # imported here: it takes half of a worker's start
    from ferbench.training.average import WeightAverage

    return WeightAverage(network, decay)
