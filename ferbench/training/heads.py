"""What stands in a classifier's place under some strategies."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ferbench.errors import InputError
from ferbench.training.formulas import Params


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


class ScaledLinear(nn.Module):
    """A linear classifier with fixed weights and a factor to learn for each class: `[N, F] -> [N, K]` (LWS)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().clone())
        self.register_buffer(
            "bias", torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach().clone()
        )
        self.factor = nn.Parameter(torch.ones(linear.out_features))

    def forward(self, features: Tensor) -> Tensor:
        """The logits."""
        return F.linear(features, self.weight * self.factor[:, None], self.bias)


def last_linear(network: nn.Module, head: str) -> tuple[str, nn.Linear]:
    """The name of the last linear layer of a network's head, and the layer.

    Raises:
        InputError: there is none, or the network has several heads.
    """
    heads = getattr(network, "pretrained_cfg", {}).get("classifier")
    if isinstance(heads, tuple | list) and len(heads) > 1:
        raise InputError(f"a strategy needs a single classifier; this network has {' and '.join(heads)}")
    modules = ((n, module) for n, module in network.named_modules() if n == head or n.startswith(f"{head}."))
    layers = [(name, module) for name, module in modules if isinstance(module, nn.Linear)]
    if not layers:
        raise InputError(f"a strategy needs a linear classifier; {head!r} of this network has none")
    return layers[-1]


def put(network: nn.Module, name: str, module: nn.Module) -> None:
    """A module in the place of the one of that name."""
    path, _, last = name.rpartition(".")
    setattr(network.get_submodule(path), last, module)


def replace_head(network: nn.Module, head: str, kind: str, params: Params) -> None:
    """Put the classifier that a strategy asks for in a network's place for it.

    Args:
        kind: as `Strategy.head`.
        params: the strategy's knobs.
    """
    if not kind:
        return
    name, linear = last_linear(network, head)
    if kind == "normalised":
        put(network, name, NormalisedLinear(linear.weight.detach().clone(), params["scale"]))
    else:
        put(network, name, ScaledLinear(linear))
