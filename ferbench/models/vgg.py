"""Networks of the VGG kind for small grey faces."""

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


class VGGNet(nn.Module):
    """Eight 3x3 convolutions with batch norm and four max-pools, then three dense layers."""

    def __init__(self, n_classes: int, input_size: int, dropout: float) -> None:
        super().__init__()
        layers = [make_layers([width, width, "M"], batch_norm=True) for width in (64, 128, 256, 512)]
        for block, inputs in zip(layers, (1, 64, 128, 256), strict=True):
            block[0] = nn.Conv2d(inputs, block[0].out_channels, 3, padding=1)
        self.features = nn.Sequential(*layers)
        side = input_size // 16
        self.dense = nn.Sequential(
            # does nothing at that size; growing images are smaller
            *(nn.AdaptiveAvgPool2d(side), nn.Flatten()),
            *(nn.Linear(512 * side * side, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout)),
            *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout)),
        )
        self.classifier = nn.Linear(4096, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, K]` of `[N, 1, H, W]` images."""
        logits: Tensor = self.classifier(self.dense(self.features(images)))
        return logits


def vggnet(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """VGGNet of Khaireddin & Chen (arXiv 2105.03588), which was made for crops of 40 pixels.

    Its dense layers hold 25 of 30 M parameters and fit one image size; at 40 pixels the last map is 2x2.
    """
    return VGGNet(n_classes, recipe.input_size, recipe.dropout)
