"""VGG16 with batch norm, cut to 48x48 grey input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torchvision.models import vgg16_bn

if TYPE_CHECKING:
    from ferbench.recipe import ModelRecipe


def vgg16(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """VGG16-BN for small faces.

    The thirteen convolutions are torchvision's, so its ImageNet weights fit. Five max-pools would leave a 1x1 map at
    48 pixels, so the last one is dropped (3x3 map); mean pooling and one linear layer replace the three dense layers,
    whose first alone would hold 103 M of 138 M parameters for a 7x7 map that 48 pixels cannot fill.
    """
    network = vgg16_bn(num_classes=1)
    network.features[0] = nn.Conv2d(1, 64, 3, padding=1)
    network.features = network.features[:-1]
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Sequential(nn.Dropout(recipe.dropout), nn.Linear(512, n_classes))
    nn.init.kaiming_normal_(network.features[0].weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(network.features[0].bias)
    return network
