"""Re-balanced attention consistency: where a network sees each class must not depend on which way a face looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy.typing as npt
import torch
from torch import Tensor, nn

from ferbench.environment import Arithmetic
from ferbench.errors import InputError
from ferbench.training.heads import last_linear
from ferbench.training.losses import OnDevice

_PROBE_SIDE = 64


class AttentionConsistency:
    """Mean squared difference between each image's class activation maps and its mirror image's, mirrored back.

    Class c counts by its weight, so that every image teaches something of the rare classes (MEK, arXiv 2310.19636).

    Args:
        network: on its device; maps are what comes before its pooling, times the classifier's vectors.
        head: name of the classifier.
        weights: [K].
        factor: of the whole, against the loss that it is added to.
        size: side of the images.

    Raises:
        InputError: nothing in the network is such a map.
    """

    def __init__(self, network: nn.Module, head: str, weights: npt.NDArray, factor: float, size: int) -> None:
        _, self._linear = last_linear(network, head)
        self._weights, self._factor = OnDevice(weights), factor
        self._maps: Tensor | None = None
        _last_map(network, self._linear.in_features, size).register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._maps = output

    def __call__(self, forward: Callable[[Tensor], Tensor], inputs: Tensor, arithmetic: Arithmetic) -> Tensor:
        """What is added to the loss of a batch whose images have just gone through the network."""
        seen = self._attention()
        with arithmetic.autocast():
            forward(inputs.flip(3))
        mirrored = self._attention().flip(3)
        # kept, it would keep the whole batch's graph
        self._maps = None
        by_class = (seen - mirrored).square().mean((0, 2, 3))
        return self._factor * (self._weights.like(by_class) * by_class).sum()

    def _attention(self) -> Tensor:
        """[N, K, h, w] class activation maps of the images that went through last."""
        assert self._maps is not None
        return torch.einsum("nfhw,kf->nkhw", self._maps.float(), self._linear.weight.float())


def _forward(network: nn.Module, side: int) -> None:
    parameter = next(network.parameters())
    with torch.no_grad():
        network(torch.zeros(2, 1, side, side, device=parameter.device, dtype=parameter.dtype))


def _last_map(network: nn.Module, channels: int, size: int) -> nn.Module:
    """The last module to give a map with as many channels as the classifier has features."""
    found: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(
            lambda module, _, output: (
                found.append(module)
                if isinstance(output, Tensor)
                and output.ndim == 4
                and output.shape[1] == channels
                and output.shape[2] > 1
                else None
            )
        )
        for module in network.modules()
        if not list(module.children())
    ]
    was_training = network.training
    network.eval()
    try:
        # the images may be so small that they leave a map of one pixel
        _forward(network, _PROBE_SIDE)
    except (AssertionError, RuntimeError, ValueError):
        # a network for one size of images
        found.clear()
        _forward(network, size)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    if not found:
        raise InputError("strategy mek needs a network that pools a map for its linear classifier; this one does not")
    return found[-1]
