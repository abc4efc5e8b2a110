"""A plain CNN: what a careful student would write for 48x48 grey faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from ferbench.recipe import ModelRecipe

WIDTHS = (32, 64, 128, 256)


def _conv(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out)]


class PlainCNN(nn.Module):
    """Four blocks of two 3x3 convolutions and a max-pool: 48 -> 24 -> 12 -> 6 -> 3, then mean and a linear layer."""

    def __init__(self, n_classes: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in zip((1, *WIDTHS), WIDTHS, strict=False):
            # pooled before the ReLU, which is left a quarter of the values: the same result and gradients, bit by bit
            layers += [*_conv(n_in, n_out), nn.ReLU(inplace=True)]
            layers += [*_conv(n_out, n_out), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(WIDTHS[-1], n_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, K]` of `[N, 1, H, W]` images."""
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits


def plain_cnn(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """The plain CNN; stride-1 stem, 3x3 final map at 48 pixels (2x2 at the 40 of its recipe)."""
    return PlainCNN(n_classes, recipe.dropout)
