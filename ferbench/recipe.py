"""How a model is trained: `Recipe`, a frozen value.

`inputs` reads every field from baselines/. Only fields that were added after the first records have a default in code,
what was done before they existed, so that old records stay readable under their old names.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["fp32", "bf16", "fp16", "auto"]

SMALLEST_INPUT = 16


def _none_or_an_input_size(size: int) -> int:
    if 0 < size < SMALLEST_INPUT:
        raise ValueError(f"0 or at least {SMALLEST_INPUT} is expected")
    return size


def _a_choice_or_auto(value: object) -> object:
    if isinstance(value, bool) or value == "auto":
        return value
    raise ValueError("true, false or 'auto' is expected")


class Table(BaseModel):
    """A table of TOML: frozen, each field of its type, none unknown."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class ModelRecipe(Table):
    """The network and its input."""

    name: str
    """A row of MODELS, or timm:<name>."""
    init: str
    """"scratch", "imagenet", or the path of a weights file."""
    input_size: Annotated[int, Field(ge=SMALLEST_INPUT, le=512)]
    """Side in pixels to which images are interpolated, in the same step as the augmentation."""
    stem_stride: Annotated[int, Field(ge=0)]
    """Down-sampling in the stem; see the network's docstring. 0: the architecture's own (timm)."""
    dropout: Fraction
    """Before the classifier."""
    drop_path: Fraction
    """Stochastic depth rate at the last block."""
    mean: Fraction
    """Subtracted from grey levels on the 0-1 scale."""
    std: Positive
    """Divided by after that."""
    flip_tta: bool = False
    """Whether logits are means over an image and its mirror image, except in training; doubles inference time."""


class OptimizerRecipe(Table):
    """The update rule."""

    name: Literal["sgd", "adamw", "muon"]
    """SGD with Nesterov momentum, AdamW (arXiv 1711.05101), or Muon for the backbone's filters beside AdamW."""
    lr: Positive
    """Peak learning rate of the head."""
    momentum: Below1
    """SGD's and Muon's momentum, AdamW's first beta."""
    beta2: Below1
    """AdamW's second beta."""
    weight_decay: NonNegative
    """On matrices and filters; biases and norms are exempt."""
    clip_norm: NonNegative
    """Largest gradient norm; 0 switches clipping off."""
    backbone_lr: Positive
    """The backbone's learning rate as a multiple of the head's."""
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    """Each stage's learning rate as a multiple of the next one's; 1 gives all stages the same."""


class ScheduleRecipe(Table):
    """The learning rate over the updates."""

    name: Literal["cosine", "one_cycle", "plateau", "constant"]
    """Warm-up then cosine; one cycle (arXiv 1708.07120: up linearly, down linearly); drop on plateau; constant."""
    warmup: Fraction
    """Share of the updates in which the rate rises linearly from start to peak."""
    start: Fraction
    """First rate as a multiple of the peak."""
    final: Fraction
    """Last rate as a multiple of the peak (cosine, one_cycle); lowest rate (plateau)."""
    plateau_factor: Fraction
    """Multiplies the rate when val has not improved for `plateau_patience` epochs."""
    plateau_patience: Count
    """Epochs without improvement before a drop."""


class PrecisionRecipe(Table):
    """Arithmetic of forward and backward, by kind of device; auto times what the device has and takes the fastest."""

    cpu: Precision
    """On a CPU; bf16 becomes fp32 where the CPU has no instructions for it."""
    cuda: Precision
    """On a GPU; bf16 becomes fp16 with a loss scaler where the GPU lacks it."""


class TrainingRecipe(Table):
    """The loop."""

    epochs: Count
    """Passes over the training images (budget full)."""
    batch_size: Count
    """Images per update."""
    precision: PrecisionRecipe
    """Autocast type."""
    channels_last: Annotated[bool | Literal["auto"], BeforeValidator(_a_choice_or_auto)]
    """Memory order NHWC instead of NCHW; auto times both and takes the faster."""
    label_smoothing: Fraction
    """Share of each target spread evenly over the classes."""
    ema_decay: Below1
    """Decay per update of the weight average that is evaluated; 0 evaluates the weights themselves."""
    start_size: Annotated[int, Field(ge=0, le=512), AfterValidator(_none_or_an_input_size)]
    """Side of the training images in the first epoch, growing to input_size (arXiv 2104.00298); 0 switches it off,
    and so does one that is no smaller."""
    growth: Fraction
    """Share of the epochs by which it has grown; the last epoch has the full size whatever the share."""
    select: Literal["accuracy", "macro_f1"]
    """The val score that chooses the epoch."""
    patience: Annotated[int, Field(ge=0)]
    """Epochs without a better val score before training stops early; 0 never stops."""
    freeze_epochs: Annotated[int, Field(ge=0)]
    """First stage: epochs in which only the head learns, its backbone frozen."""
    freeze_lr: Positive
    """The head's constant learning rate in that stage."""
    freeze_norm: bool
    """Whether the backbone's batch norms keep their statistics in both stages."""
    start_strength: Fraction = 1.0
    """Strength of the augmentation in the first epoch as a share of the recipe's, growing as the images do."""
    compile: bool = False
    """Whether torch compiles the network: a minute at the start of each image size."""


ONE_SIZE: dict[str, Any] = {"start_size": 0, "start_strength": 1.0}
"""Of [training]: every epoch has the same image size and augmentation."""


class AugmentRecipe(Table):
    """Random changes drawn for each image of a batch on the device; 0 switches one off."""

    flip: Fraction
    """Probability of a mirror image."""
    shift: Fraction
    """Largest shift each way, as a share of the side."""
    rotate: Annotated[float, Field(ge=0, le=180)]
    """Largest rotation each way, degrees."""
    zoom: Fraction
    """Largest change of scale: factors from 1/(1+zoom) to 1+zoom."""
    brightness: Fraction
    """Largest shift of the 0-1 grey scale each way."""
    contrast: Fraction
    """Largest change of contrast about the image's mean: factors from 1-c to 1+c."""
    erase: Fraction
    """Probability of one erased rectangle (arXiv 1708.04896)."""
    erase_size: Fraction
    """Largest share of the area that it covers."""
    mixup: NonNegative
    """Beta parameter of mixup (arXiv 1710.09412), one draw per image."""
    cutmix: NonNegative
    """Beta parameter of CutMix (arXiv 1905.04899); with mixup on too, each batch tosses a coin."""

    def weakened(self, strength: float) -> AugmentRecipe:
        """A share of every change that has a strength; mirror images and mixing stay as they are."""
        graded = ("shift", "rotate", "zoom", "brightness", "contrast", "erase")
        return self.model_copy(update={name: strength * getattr(self, name) for name in graded})


class ImbalanceRecipe(Table):
    """What is done about rare classes."""

    strategy: str
    """A row of STRATEGIES, or several with + between them."""
    params: dict[str, float]
    """Its knobs, as in baselines/strategies.toml."""


NO_STRATEGY = ImbalanceRecipe(strategy="none", params={})


class Recipe(Table):
    """Everything that decides a training run except seed, data and budget."""

    model: ModelRecipe
    optimizer: OptimizerRecipe
    schedule: ScheduleRecipe
    training: TrainingRecipe
    augment: AugmentRecipe
    imbalance: ImbalanceRecipe
