"""How a model is trained: `Recipe`, and `RunSpec`, the frozen value that names one run.

`inputs` reads every field from baselines/. Only fields that were added after the first records have a default in code,
what was done before they existed, so that old records stay readable under their old names.
"""

from __future__ import annotations

import hashlib
import json
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


class _Table(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class ModelRecipe(_Table):
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


class OptimizerRecipe(_Table):
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


class ScheduleRecipe(_Table):
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


class PrecisionRecipe(_Table):
    """Arithmetic of forward and backward, by kind of device; auto times what the device has and takes the fastest."""

    cpu: Precision
    """On a CPU; bf16 becomes fp32 where the CPU has no instructions for it."""
    cuda: Precision
    """On a GPU; bf16 becomes fp16 with a loss scaler where the GPU lacks it."""


class TrainingRecipe(_Table):
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


class AugmentRecipe(_Table):
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


class ImbalanceRecipe(_Table):
    """What is done about rare classes."""

    strategy: str
    """A row of STRATEGIES, or several with + between them."""
    params: dict[str, float]
    """Its knobs, as in baselines/strategies.toml."""


NO_STRATEGY = ImbalanceRecipe(strategy="none", params={})


class Recipe(_Table):
    """Everything that decides a training run except seed, data and budget."""

    model: ModelRecipe
    optimizer: OptimizerRecipe
    schedule: ScheduleRecipe
    training: TrainingRecipe
    augment: AugmentRecipe
    imbalance: ImbalanceRecipe


class Budget(_Table):
    """A declared track: how much of the data, for how long."""

    name: str
    """"full", "quick" or "demo"."""
    fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of each class's training images, the same images for every model and seed."""
    epochs: Annotated[int, Field(ge=0)]
    """Epochs for every model; 0 leaves the recipe's."""
    batch_size: Annotated[int, Field(ge=0)]
    """Images per update for every model; 0 leaves the recipe's. Little data needs small batches to learn anything."""


ProtocolName = Literal[
    "official", "official-clean", "folder", "folder-clean", "folder-naive", "stratified", "stratified-clean",
    "stratified-naive", "oracle",
]  # fmt: skip


class DataKey(_Table):
    """Which images a run saw, and under which protocol."""

    name: str
    """Leaderboard the data belong to."""
    fingerprint: str
    """`Dataset.fingerprint`."""
    protocol: ProtocolName
    """How splits were made and used; a row of `data.protocol.PROTOCOLS`."""


AND = "+"  # between the names of strategies that work together
POSTHOC = "posthoc_"  # begins the names of those that work on the predictions of a run without a strategy
DECOUPLED = ("crt", "lws", "tau_norm")  # change the classifier of such a run, its backbone frozen
TTA_PATTERN = r"^(none|flip|ten-crop|random:([1-9]\d?|100))$"


class RunSpec(_Table):
    """One run as a frozen value; its id is its folder."""

    recipe: Recipe
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    budget: Budget
    data: DataKey
    tta: Annotated[str, Field(pattern=TTA_PATTERN)] = "none"
    """Views of each image over which probabilities are averaged, as `evaluation.views`; not in training."""

    @property
    def epochs(self) -> int:
        """Epochs under this budget."""
        return self.budget.epochs or self.recipe.training.epochs

    @property
    def batch_size(self) -> int:
        """Images per update under this budget."""
        return self.budget.batch_size or self.recipe.training.batch_size

    @property
    def workload(self) -> tuple[Any, ...]:
        """What decides how a device trains fastest; "auto" in it: something is left to be timed."""
        model, training = self.recipe.model, self.recipe.training
        how = (training.precision.cpu, training.precision.cuda, training.channels_last)
        return (model.name, model.input_size, model.stem_stride, self.batch_size, *how)

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the result."""
        # what is left out is what went without saying when older records were named
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    @property
    def id(self) -> str:
        """Model, strategy, seed, TTA and fingerprint: `resnet18-focal-s0-1a2b3c4d`."""
        model = self.recipe.model.name.replace(":", "_").replace("/", "_")
        views = "" if self.tta == "none" else f"-{self.tta.replace(':', '')}"
        return f"{model}-{self.recipe.imbalance.strategy}-s{self.seed}{views}-{self.fingerprint}"

    @property
    def trained(self) -> RunSpec:
        """The run whose weights this one uses: itself, but for TTA and what is done after training."""
        spec = self if self.tta == "none" else self.model_copy(update={"tta": "none"})
        return spec._without_strategy() if self.is_posthoc else spec

    @property
    def source(self) -> RunSpec:
        """The run that must be done before this one: itself, but for TTA, post-hoc and decoupled strategies."""
        is_decoupled = self.tta == "none" and self.recipe.imbalance.strategy in DECOUPLED
        return self._without_strategy() if is_decoupled else self.trained

    @property
    def root(self) -> RunSpec:
        """The training at the bottom of it all: the last of its sources."""
        return self if self.source == self else self.source.root

    @property
    def distance(self) -> int:
        """How many runs must be done before this one."""
        return 0 if self.source == self else 1 + self.source.distance

    def _without_strategy(self) -> RunSpec:
        recipe = self.recipe.model_copy(update={"imbalance": NO_STRATEGY})
        return self.model_copy(update={"tta": "none", "recipe": recipe})

    @property
    def is_posthoc(self) -> bool:
        """Whether its strategy needs no training."""
        return self.recipe.imbalance.strategy.startswith(POSTHOC)
