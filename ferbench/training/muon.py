"""Muon: momentum whose matrices are orthogonalised before they update the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that drives singular values towards 1 (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""
STEPS = 5
RMS = 0.2
"""Root mean square of an update at a rate of 1, about as AdamW's is (arXiv 2502.16982): one rate suits both."""


class Muon(torch.optim.AdamW):
    """AdamW whose groups with `orthogonal = True` follow Muon instead.

    Filters are matrices of outputs by inputs x height x width. Orthogonalising is done in float32: timm's takes bf16,
    and one update of the plain CNN lasts 2 s on a CPU that only emulates it.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, betas: tuple[float, float]) -> None:
        super().__init__([{"orthogonal": False, **g} for g in groups], lr=lr, betas=betas, fused=True)
        self.momentum = momentum
        # the fused update skips bad gradients by itself, which ours would not: leave that to the loss scaler
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        groups = self.param_groups
        try:
            self.param_groups = [g for g in groups if not g["orthogonal"]]
            loss: float | None = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    self._update(parameter, group["lr"], group["weight_decay"])
        return loss

    def _update(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        state = self.state[parameter]
        if "momentum" not in state:
            # AdamW looks for a step when a checkpoint is loaded
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))
        average = state["momentum"].lerp_(gradient, 1 - self.momentum)
        # Nesterov: look ahead along the average
        update = orthogonalised(gradient.lerp(average, self.momentum).flatten(1))
        scale = RMS * max(update.shape) ** 0.5
        parameter.mul_(1 - lr * weight_decay).add_(update.view_as(parameter), alpha=-lr * scale)


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix `[m, n]` with the same singular vectors and values between 0.7 and 1.2, by Newton-Schulz steps.

    The steps are taken on the m x m product of the matrix with itself: their polynomials commute with it, so the matrix
    is needed only at both ends. For filters, much longer than wide, that is less than half the arithmetic.
    """
    x = matrix.float()
    tall = len(x) > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    one = torch.eye(len(x), device=x.device)
    square, product = x @ x.T, one
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        polynomial = torch.addmm(b * square + a * one, square, square, alpha=c)
        product = polynomial @ product
        square = polynomial @ square @ polynomial
    x = product @ x
    return (x.T if tall else x).to(matrix.dtype)
