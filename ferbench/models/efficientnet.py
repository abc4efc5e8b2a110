"""EfficientNets with a stem for 48x48 grey input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torchvision.models
from torch import nn

if TYPE_CHECKING:
    from ferbench.recipe import ModelRecipe


def _adapted(build: Callable[..., Any], recipe: ModelRecipe, n_classes: int) -> nn.Module:
    network = build(num_classes=n_classes, dropout=recipe.dropout, stochastic_depth_prob=recipe.drop_path)
    stem = network.features[0]
    stem[0] = nn.Conv2d(1, stem[0].out_channels, 3, stride=recipe.stem_stride, padding=1, bias=False)
    nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
    adapted: nn.Module = network
    return adapted


def efficientnet_b2(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """EfficientNet-B2.

    Its five strides of 2 leave a 2x2 map at 48 pixels; `stem_stride = 1` gives 3x3 at three times the cost, and a
    larger `input_size` does the same with more pixels per feature.
    """
    return _adapted(torchvision.models.efficientnet_b2, recipe, n_classes)


def efficientnet_v2_s(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """EfficientNetV2-S, stem as in `efficientnet_b2`."""
    return _adapted(torchvision.models.efficientnet_v2_s, recipe, n_classes)
