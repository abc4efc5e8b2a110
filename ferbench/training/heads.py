"""What stands in a classifier's place under some strategies."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferbench.errors import InputError


class NormalisedLinear(nn.Module):
    """Cosines between features and class vectors, times a scale: `[N, F] -> [N, K]` (LDAM, arXiv 1906.07413).

    Margins mean nothing, and its loss diverges, where features or class vectors may grow at will.
    """

    def __init__(self, weight: Tensor, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """The scaled cosines, in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(features.float()), F.normalize(self.weight.float()))


def normalise_head(network: nn.Module, head: str, scale: float) -> None:
    """Put a `NormalisedLinear` in the place of the last linear layer of a network's head.

    Raises:
        InputError: there is none.
    """
    layers = [
        name for name, module in network.named_modules() if name.startswith(head) and isinstance(module, nn.Linear)
    ]
    if not layers:
        raise InputError(f"strategy ldam needs a linear classifier; {head!r} of this network has none")
    path, _, name = layers[-1].rpartition(".")
    parent = network.get_submodule(path)
    linear = getattr(parent, name)
    setattr(parent, name, NormalisedLinear(linear.weight.detach().clone(), scale))
