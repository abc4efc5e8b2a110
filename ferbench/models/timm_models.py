"""Any network of pytorch-image-models, by its own name behind `timm:`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import timm
from torch import nn

from ferbench.errors import InputError

if TYPE_CHECKING:
    from ferbench.recipe import ModelRecipe


def build(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """The timm network for one input channel; timm's own strides, image size set where the network needs to know it.

    Raises:
        InputError: timm has no such network, or it refuses the recipe's input size or regularisation.
    """
    name = recipe.name.removeprefix("timm:")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=2)
        hint = f"did you mean timm:{' or timm:'.join(close)}?" if close else "timm.list_models() shows the names"
        raise InputError(f"unknown model {recipe.name!r} ({hint})")
    options: dict[str, Any] = {
        "num_classes": n_classes,
        "in_chans": 1,
        "drop_rate": recipe.dropout,
        "drop_path_rate": recipe.drop_path,
    }
    try:
        return _create(name, recipe.input_size, options)
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(
            f"{recipe.name} cannot be built for {recipe.input_size}x{recipe.input_size}: {error}"
        ) from None


def _create(name: str, size: int, options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError as error:
        # convolutional networks take any size and refuse the argument
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **options)
