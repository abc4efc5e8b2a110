"""How a model is trained: `Recipe` from TOML, and `RunSpec`, the frozen value that names one run.

No hyper-parameter has a default in code. `baselines/defaults.toml` holds every field, a model's own file what differs,
`budgets.toml` and `strategies.toml` the budgets and each strategy's knobs.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ferbench.errors import InputError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["fp32", "bf16", "fp16"]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelRecipe(_Table):
    """The network and its input."""

    name: str
    """A row of MODELS, or timm:<name>."""
    init: str
    """"scratch", "imagenet", or the path of a weights file."""
    input_size: Annotated[int, Field(ge=16, le=512)]
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


class OptimizerRecipe(_Table):
    """The update rule."""

    name: Literal["sgd", "adamw"]
    """SGD with Nesterov momentum, or AdamW (arXiv 1711.05101)."""
    lr: Positive
    """Peak learning rate of the head."""
    momentum: Fraction
    """SGD's momentum, AdamW's first beta."""
    beta2: Fraction
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
    """Arithmetic of forward and backward, by kind of device."""

    cpu: Precision
    """On a CPU."""
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
    channels_last: bool
    """Memory order NHWC instead of NCHW."""
    label_smoothing: Fraction
    """Share of each target spread evenly over the classes."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay per update of the weight average that is evaluated; 0 evaluates the weights themselves."""
    start_size: Annotated[int, Field(ge=0, le=512)]
    """Side of the training images in the first epoch, growing to input_size (arXiv 2104.00298); 0 switches it off."""
    growth: Fraction
    """Share of the epochs by which it has grown."""
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


class ImbalanceRecipe(_Table):
    """What is done about rare classes."""

    strategy: str
    """A row of STRATEGIES."""
    params: dict[str, float]
    """Its knobs, as in baselines/strategies.toml."""


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


class DataKey(_Table):
    """Which images a run saw, and under which protocol."""

    name: str
    """Leaderboard the data belong to."""
    fingerprint: str
    """`Dataset.fingerprint`."""
    protocol: Literal["official"]
    """How splits were used: train to learn, val to choose, test reported once."""


class RunSpec(_Table):
    """One run as a frozen value; its id is its folder."""

    recipe: Recipe
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    budget: Budget
    data: DataKey

    @property
    def epochs(self) -> int:
        """Epochs under this budget."""
        return self.budget.epochs or self.recipe.training.epochs

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the result."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    @property
    def id(self) -> str:
        """"resnet18-focal-s0-1a2b3c4d"."""
        model = self.recipe.model.name.replace(":", "_").replace("/", "_")
        return f"{model}-{self.recipe.imbalance.strategy}-s{self.seed}-{self.fingerprint}"


def shipped(kind: str, name: str = "") -> Path:
    """The path of a shipped input file, in a wheel, an editable install and a plain clone alike.

    Args:
        kind: "baselines" or "studies".
        name: the file's name; none gives the folder.
    """
    folder = Path(str(files("ferbench"))) / kind
    if not folder.is_dir():
        folder = Path(__file__).parents[1] / kind
    return folder / name if name else folder


_NOT_RECIPES = ("defaults", "budgets", "strategies", "published")


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(p.stem for p in shipped("baselines").glob("*.toml") if p.stem not in _NOT_RECIPES)


def load_budget(name: str) -> Budget:
    """The named budget of baselines/budgets.toml."""
    path = shipped("baselines", "budgets.toml")
    table = read_toml(path)
    _known(name, table, "budget")
    return validated(Budget, {"name": name, **table[name]}, path.name)


def strategy_defaults() -> dict[str, dict[str, float]]:
    """Every strategy's knobs, by strategy."""
    return read_toml(shipped("baselines", "strategies.toml"))


def load_recipe(
    source: str, *, strategy: str | None = None, init: str | None = None, overrides: dict[str, Any] | None = None
) -> Recipe:
    """The recipe of a model, a shipped recipe's name or a TOML file, with what the caller changes.

    Args:
        source: a model's name, a recipe's name or a path ending in .toml.
        strategy: imbalance strategy, with its default knobs.
        init: replaces model.init.
        overrides: dotted field -> value, as `--set` gives them.

    Raises:
        InputError: no such recipe, an unknown field or a value out of range, named with its file.
    """
    path = _recipe_path(source)
    table = _merged(read_toml(shipped("baselines", "defaults.toml")), read_toml(path))
    if source.startswith("timm:"):
        table["model"]["name"] = source
    if init is not None:
        table["model"]["init"] = init
    chosen = strategy or table["imbalance"]["strategy"]
    defaults = strategy_defaults()
    _known(chosen, defaults, "strategy")
    own = table["imbalance"].get("params", {}) if chosen == table["imbalance"]["strategy"] else {}
    table["imbalance"] = {"strategy": chosen, "params": {**defaults[chosen], **own}}
    for key, value in (overrides or {}).items():
        _set(table, key, value)
    recipe = validated(Recipe, table, path.name if not overrides else f"{path.name} with --set")
    for knob in recipe.imbalance.params:
        _known(knob, defaults[chosen], f"{path.name}: knob of strategy {chosen}")
    return recipe


def parse_override(text: str) -> tuple[str, Any]:
    """("optimizer.lr", 0.1) of "optimizer.lr=0.1"; the value is read as TOML, else as a plain string."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InputError(f"--set {text!r}: expected key=value, such as optimizer.lr=0.05")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from None


TableT = TypeVar("TableT", bound=BaseModel)


def validated(kind: type[TableT], table: Any, where: str) -> TableT:
    """The checked value of a table; the first fault becomes one line naming file, field and value."""
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = _fields(kind)
            close = difflib.get_close_matches(field, known, n=1, cutoff=0.6)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise InputError(f"{where}: unknown field {field!r}{hint}") from None
        if fault["type"] == "missing":
            raise InputError(f"{where}: field {field!r} is missing") from None
        raise InputError(f"{where}: {field} = {fault['input']!r}: {fault['msg']}") from None


def _recipe_path(source: str) -> Path:
    if source.endswith(".toml"):
        if not Path(source).is_file():
            raise InputError(f"no recipe file {source!r}")
        return Path(source)
    stem = "timm" if source.startswith("timm:") else source
    _known(stem, recipe_names(), "recipe")
    return shipped("baselines", f"{stem}.toml")


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in changes.items():
        old = both.get(key)
        both[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def _fields(kind: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, field in kind.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            names += _fields(nested, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def _set(table: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted field, or at the one field that ends in `key`."""
    fields = [*_fields(Recipe), *(f"imbalance.params.{p}" for p in table["imbalance"]["params"])]
    matches = [f for f in fields if f == key or f.endswith(f".{key}")]
    if key not in fields and len(matches) != 1:
        close = matches or difflib.get_close_matches(key, fields, n=3, cutoff=0.5)
        raise InputError(f"--set {key}: unknown or ambiguous field (fields like it: {', '.join(close) or 'none'})")
    *path, last = (key if key in fields else matches[0]).split(".")
    for part in path:
        table = table[part]
    table[last] = value


def _known(name: str, names: Any, kind: str) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"
        raise InputError(f"unknown {kind} {name!r} ({hint})")
