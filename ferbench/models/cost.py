"""What a network costs by count: parameters and multiply-accumulates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from ferbench.models import build

if TYPE_CHECKING:
    from ferbench.recipe import ModelRecipe


def count_cost(recipe: ModelRecipe, n_classes: int) -> tuple[int, int]:
    """(parameters, multiply-accumulates for one image) of a recipe's network.

    Counted on the meta device: no memory, and attention is counted as elsewhere it would not be.
    """
    with torch.device("meta"):
        network = build(recipe.model_copy(update={"init": "scratch"}), n_classes).eval()
        image = torch.empty(1, 1, recipe.input_size, recipe.input_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(image)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2
