"""Logits of a network for a whole split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ferbench.environment import Arithmetic


@torch.inference_mode()
def predict_logits(network: nn.Module, inputs: Iterable[Tensor], arithmetic: Arithmetic) -> npt.NDArray[np.float32]:
    """Logits `[N, K]` of batches of inputs `[B, 1, H, W]`, in evaluation mode, one view of each image."""
    network.eval()
    with arithmetic.autocast():
        logits = [network(batch).float() for batch in inputs]
    return torch.cat(logits).cpu().numpy()
