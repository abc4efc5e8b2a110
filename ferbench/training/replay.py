"""From a batch to its gradients on a GPU, launched as one: recorded once as a CUDA graph, then replayed.

A step of a small network on 48 x 48 pixels is a thousand kernels of some microseconds each: Python launches them more
slowly than a GPU runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ferbench.environment import Arithmetic

Work = Callable[[Tensor, Tensor], Tensor]
"""(inputs [B, 1, H, W], targets [B, K]) -> detached loss []; leaves gradients in parameters that had none."""

WARM_UPS = 3
"""Batches of a shape that run as they come before it is recorded: libraries choose their kernels in the first ones."""


def cuda_graph(work: Callable[[], Tensor], device: torch.device) -> tuple[Callable[[], None], Tensor]:
    """Work recorded but not done: what does it, and where its result will be.

    Raises:
        RuntimeError: it cannot be recorded, as it waits for the device or takes too much memory.
    """
    graph = torch.cuda.CUDAGraph()
    # on another device than the current one nothing would be recorded, and nothing said
    with torch.cuda.device(device):
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
                result = work()
        finally:
            # a recording that fails leaves its own
            torch.cuda.set_stream(before)

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return replay, result


def compiled(network: nn.Module, input_size: int) -> nn.Module:
    """The network as torch.compile has it, for images of at most that side."""
    from torch._dynamo import config

    # a program for each size of the images, in either stage: beyond the limit they would run as they come
    config.recompile_limit = max(config.recompile_limit, input_size // 2)
    # CUDA graphs are recorded here
    return torch.compile(network, dynamic=False)  # type: ignore[return-value]


def launched(work: Work, parameters: Sequence[nn.Parameter], arithmetic: Arithmetic) -> Work:
    """Work as it is done fastest: replayed on a GPU, unless a loss scaler looks at the gradients on the host."""
    is_replayed = arithmetic.device.type == "cuda" and not arithmetic.needs_scaler
    return Replayed(work, parameters) if is_replayed else work


class Replayed:
    """Work that is recorded as soon as batches of one shape follow each other; others run as they come.

    What the work computes is the same either way, random numbers included, up to the order of additions on a GPU. Work
    that cannot be recorded, as it waits for the device or takes too much memory, always runs as it comes.

    Args:
        parameters: all that the work leaves gradients in.
        record: as `cuda_graph`.
    """

    def __init__(
        self,
        work: Work,
        parameters: Sequence[nn.Parameter],
        record: Callable[[Callable[[], Tensor], torch.device], tuple[Callable[[], None], Tensor]] = cuda_graph,
    ) -> None:
        self._work, self._parameters, self._record = work, parameters, record
        self.refusal = ""
        """Why the work cannot be recorded; "" while nothing says so."""
        self._last, self._in_a_row = torch.Size(), 0
        self._replay: Callable[[], None] | None = None
        self._inputs = self._targets = self._loss = torch.empty(0)
        self._gradients: list[Tensor | None] = []

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, overwritten by the next one's; the parameters must have no gradients yet."""
        if self._replay is None or inputs.shape != self._inputs.shape:
            self._in_a_row = self._in_a_row + 1 if inputs.shape == self._last else 1
            self._last = inputs.shape
            if self._in_a_row <= WARM_UPS or not self._take_up(inputs, targets):
                return self._work(inputs, targets)
        else:
            # a smaller batch at each epoch's end is none in a row
            self._in_a_row = 0
            self._inputs.copy_(inputs)
            self._targets.copy_(targets)
        assert self._replay is not None
        self._replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss

    def _take_up(self, inputs: Tensor, targets: Tensor) -> bool:
        """Whether the work is recorded now for batches of this shape."""
        if self.refusal:
            return False
        # the old graph's memory first
        self._replay, self._gradients, self._loss = None, [], torch.empty(0)
        self._inputs, self._targets = inputs.clone(), targets.clone()
        try:
            self._replay, self._loss = self._record(
                lambda: self._work(self._inputs, self._targets), self._inputs.device
            )
        except RuntimeError as error:
            self.refusal = " ".join(str(error).split())[:200]
            for parameter in self._parameters:
                parameter.grad = None
            return False
        self._gradients = [p.grad for p in self._parameters]
        return True
