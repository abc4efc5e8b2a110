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
    name = check_name(recipe.name)
    options: dict[str, Any] = {
        "num_classes": n_classes,
        "in_chans": 1,
        "drop_rate": recipe.dropout,
        "drop_path_rate": recipe.drop_path,
    }
    try:
        return _create(name, recipe.input_size, options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{recipe.name} cannot be built for {recipe.input_size}x{recipe.input_size}: {reason}"
        ) from None


def check_name(model: str) -> str:
    """Timm's name of "timm:NAME".

    Raises:
        InputError: timm has no such network.
    """
    name = model.removeprefix("timm:")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=2)
        hint = f"did you mean timm:{' or timm:'.join(close)}?" if close else "timm.list_models() shows the names"
        raise InputError(f"unknown model {model!r} ({hint})")
    return name


def _create(name: str, size: int, options: dict[str, Any]) -> nn.Module:
    """The network, without those options that it refuses and that would change nothing."""
    options = {**options, "img_size": size}
    # convolutional networks take any size; a rate of 0 is as good as no stochastic depth
    spare = ["img_size"] if options["drop_path_rate"] else ["img_size", "drop_path_rate"]
    while True:
        try:
            return timm.create_model(name, **options)
        except TypeError as error:
            refused = [o for o in spare if o in options and o in str(error)]
            if not refused:
                raise
            del options[refused[0]]
