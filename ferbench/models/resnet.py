"""ResNets with a stem for 48x48 grey input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torchvision.models
from torch import nn

if TYPE_CHECKING:
    from ferbench.recipe import ModelRecipe


def _adapted(build: Callable[..., Any], recipe: ModelRecipe, n_classes: int) -> nn.Module:
    network = build(num_classes=1)
    # 7x7 stays, at any stride, so that ImageNet's filters still fit
    network.conv1 = nn.Conv2d(1, 64, 7, stride=min(recipe.stem_stride, 2), padding=3, bias=False)
    if recipe.stem_stride < 4:
        network.maxpool = nn.Identity()
    network.fc = nn.Sequential(nn.Dropout(recipe.dropout), nn.Linear(network.fc.in_features, n_classes))
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    adapted: nn.Module = network
    return adapted


def resnet18(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """ResNet-18.

    The native stem (stride 2 and a max-pool, `stem_stride = 4`) leaves a 2x2 map at 48 pixels; `stem_stride = 2`
    drops the pool (3x3), `stem_stride = 1` the stride as well (6x6, as on CIFAR, at 13 times the native cost).
    """
    return _adapted(torchvision.models.resnet18, recipe, n_classes)


def resnet34(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """ResNet-34, stem as in `resnet18`."""
    return _adapted(torchvision.models.resnet34, recipe, n_classes)


def resnet50(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """ResNet-50, stem as in `resnet18`."""
    return _adapted(torchvision.models.resnet50, recipe, n_classes)
