"""VGG16 with batch norm, cut to 48x48 grey input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

if TYPE_CHECKING:
    from ferbench.recipe import ModelRecipe


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions with four max-pools between them, then mean pooling and one linear layer."""

    def __init__(self, n_classes: int, dropout: float) -> None:
        super().__init__()
        layers = make_layers(cfgs["D"], batch_norm=True)
        layers[0] = nn.Conv2d(1, 64, 3, padding=1)
        self.features = layers[:-1]
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, n_classes))
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, K]` of `[N, 1, H, W]` images."""
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits


def vgg16(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """VGG16-BN for small faces.

    The thirteen convolutions are torchvision's, so its ImageNet weights fit. Five max-pools would leave a 1x1 map at
    48 pixels, so the last one is dropped (3x3 map); mean pooling and one linear layer replace the three dense layers,
    whose first alone would hold 103 M of 138 M parameters for a 7x7 map that 48 pixels cannot fill.
    """
    return VGG16(n_classes, recipe.dropout)
