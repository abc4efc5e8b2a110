"""An exponential moving average of a network's weights and buffers."""

from __future__ import annotations

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn


class WeightAverage(ModelEmaV3):
    """timm's, with a warm-up, without which a short run's average would still hold the random start.

    The tensors are looked up once: walking through both networks takes a CPU longer than a GPU's whole update.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, decay=decay, use_warmup=True)
        pairs = list(zip(self.module.state_dict().values(), network.state_dict().values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        # counters
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int | None = None) -> None:
        """Move towards the network, after its update `step`, from 0."""
        torch._foreach_lerp_([a for a, _ in self._averaged], [b for _, b in self._averaged], 1 - self.get_decay(step))
        if self._copied:
            torch._foreach_copy_([a for a, _ in self._copied], [b for _, b in self._copied])
