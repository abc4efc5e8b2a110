"""The random streams of a training, whose positions a checkpoint keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from ferbench.environment import stream_seed


class RandomStreams:
    """Every source of randomness of a training: order, augmentation, and torch's own (dropout)."""

    def __init__(self, seed: int, device: torch.device) -> None:
        torch.manual_seed(stream_seed(seed, "torch"))
        self.order = torch.Generator().manual_seed(stream_seed(seed, "order"))
        self.augment = torch.Generator(device).manual_seed(stream_seed(seed, "augment"))
        self._device = device

    def state(self) -> dict[str, Tensor]:
        """The streams' positions."""
        state = {"order": self.order.get_state(), "augment": self.augment.get_state(), "torch": torch.get_rng_state()}
        if self._device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self._device)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put every stream back where it was."""
        self.order.set_state(state["order"])
        self.augment.set_state(state["augment"])
        torch.set_rng_state(state["torch"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self._device)
