"""Networks by name: the MODELS rows (no torch here) and `build`, which makes one for a recipe."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ferbench.errors import InputError
from ferbench.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ferbench.recipe import ModelRecipe


@dataclass(frozen=True)
class Model:
    """One network: how to build it and the facts that tests recount."""

    name: str
    """torchvision's or timm's spelling."""
    title: str
    """What tables call it."""
    builder: str
    """"module:function" of the builder, imported only when a network is built."""
    paper: str
    """Where the architecture was published."""
    head: str | None
    """Name of the classifier's module; everything else is the backbone. None: ask the network (timm)."""
    stem_strides: tuple[int, ...]
    """Down-sampling that the stem can be set to; 0 stands for the architecture's own."""
    drop_path: bool
    """Whether stochastic depth applies."""
    parameters: int | None
    """Trainable parameters for 7 classes and one input channel."""
    macs: int | None
    """Multiply-accumulates for one image with the shipped recipe's input size and stem, 7 classes."""
    weights: str | None
    """Address of the ImageNet weights; the file's name is its last part."""


_TORCHVISION = "https://download.pytorch.org/models/"


def _resnet(depth: int, parameters: int, macs: int, file: str) -> Model:
    return Model(
        name=f"resnet{depth}",
        title=f"ResNet-{depth}",
        builder=f"ferbench.models.resnet:resnet{depth}",
        paper="He et al. 2016, arXiv 1512.03385",
        head="fc",
        stem_strides=(1, 2, 4),
        drop_path=False,
        parameters=parameters,
        macs=macs,
        weights=_TORCHVISION + file,
    )


def _timm_row(name: str) -> Model:
    return Model(
        name=name,
        title=name.removeprefix("timm:"),
        builder="ferbench.models.timm_models:build",
        paper="pytorch-image-models (Wightman 2019)",
        head=None,
        stem_strides=(0,),
        drop_path=True,
        parameters=None,
        macs=None,
        weights=None,
    )


MODELS: Registry[Model] = Registry(
    "model",
    [
        Model(
            name="plain_cnn",
            title="Plain CNN",
            builder="ferbench.models.plain_cnn:plain_cnn",
            paper="VGG-style double convolutions with batch norm (Simonyan & Zisserman 2015, Ioffe & Szegedy 2015)",
            head="head",
            stem_strides=(1,),
            drop_path=False,
            parameters=1_174_439,
            macs=81_563_392,
            weights=None,
        ),
        Model(
            name="vgg16",
            title="VGG16-BN",
            builder="ferbench.models.vgg:vgg16",
            paper="Simonyan & Zisserman 2015, arXiv 1409.1556",
            head="classifier",
            stem_strides=(1,),
            drop_path=False,
            parameters=14_725_575,
            macs=702_041_600,
            weights=_TORCHVISION + "vgg16_bn-6c64b313.pth",
        ),
        _resnet(18, 11_173_831, 313_236_992, "resnet18-f37072fd.pth"),
        Model(
            name="efficientnet_b2",
            title="EfficientNet-B2",
            builder="ferbench.models.efficientnet:efficientnet_b2",
            paper="Tan & Le 2019, arXiv 1905.11946",
            head="classifier",
            stem_strides=(1, 2),
            drop_path=True,
            parameters=7_710_281,
            macs=40_016_784,
            weights=_TORCHVISION + "efficientnet_b2_rwightman-c35c1473.pth",
        ),
        Model(
            name="efficientnet_v2_s",
            title="EfficientNetV2-S",
            builder="ferbench.models.efficientnet:efficientnet_v2_s",
            paper="Tan & Le 2021, arXiv 2104.00298",
            head="classifier",
            stem_strides=(1, 2),
            drop_path=True,
            parameters=20_186_023,
            macs=154_685_440,
            weights=_TORCHVISION + "efficientnet_v2_s-dd5fe13b.pth",
        ),
        Model(
            name="vggnet",
            title="VGGNet (Khaireddin & Chen)",
            builder="ferbench.models.vgg:vggnet",
            paper="Khaireddin & Chen 2021, arXiv 2105.03588",
            head="classifier",
            stem_strides=(1,),
            drop_path=False,
            parameters=29_890_759,
            macs=350_519_296,
            weights=None,
        ),
        _resnet(34, 21_281_991, 652_975_616, "resnet34-b627a593.pth"),
        _resnet(50, 23_516_103, 730_843_136, "resnet50-11ad3fa6.pth"),
    ],
    open_prefixes={"timm:": _timm_row},
)

MAIN_MODELS = ("plain_cnn", "vgg16", "resnet18", "efficientnet_b2", "efficientnet_v2_s")
"""What `--models all` runs: one network of each family."""


def select(patterns: str) -> list[Model]:
    """The rows that a comma list of names and globs picks; "all" is `MAIN_MODELS`."""
    words = [w.strip() for w in patterns.split(",")]
    return MODELS.select([name for w in words for name in (MAIN_MODELS if w == "all" else (w,))])


def check(recipe: ModelRecipe) -> Model:
    """The row of a recipe's network, which has all that the recipe asks of it.

    Raises:
        InputError: no such network, or a field that it cannot honour.
    """
    row = MODELS[recipe.name]
    if recipe.stem_stride not in row.stem_strides:
        allowed = ", ".join(map(str, row.stem_strides))
        raise InputError(f"{row.name}: model.stem_stride = {recipe.stem_stride} is not possible (one of: {allowed})")
    if recipe.drop_path and not row.drop_path:
        raise InputError(f"{row.name}: model.drop_path = {recipe.drop_path} has no effect there (0.0 is right)")
    return row


def build(recipe: ModelRecipe, n_classes: int) -> nn.Module:
    """The network of a recipe, initialised as it says, for `[N, 1, size, size]` input and `[N, n_classes]` logits.

    Raises:
        InputError: the recipe asks for something the network does not have, or weights that are not there.
    """
    row = check(recipe)
    module, function = row.builder.split(":")
    network: nn.Module = getattr(importlib.import_module(module), function)(recipe, n_classes)
    if recipe.init != "scratch":
        from ferbench.models.weights import load_pretrained

        load_pretrained(network, row, recipe.init, head_name(row, network))
    if recipe.flip_tta:
        network.register_forward_hook(_mean_with_mirror_image)
    return network


def _mean_with_mirror_image(network: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
    return logits if network.training else (logits + network.forward(inputs[0].flip(-1))) / 2


def has_imagenet(name: str) -> bool:
    """Whether a network's ImageNet weights are on disk, fetched now if they were not."""
    from ferbench.models.weights import imagenet_file

    try:
        imagenet_file(MODELS[name])
    except InputError:
        return False
    return True


def head_name(row: Model, network: nn.Module) -> str:
    """Name of the module that holds the classifier."""
    if row.head is not None:
        return row.head
    name = network.pretrained_cfg["classifier"]  # type: ignore[index]
    return str(name if isinstance(name, str) else name[0])
