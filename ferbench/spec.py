"""What names one run: `RunSpec`, its recipe, seed, budget and data."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field

from ferbench.recipe import NO_STRATEGY, Recipe, Table

AND = "+"  # between the names of strategies that work together
POSTHOC = "posthoc_"  # begins the names of those that work on the predictions of a run without a strategy
DECOUPLED = ("crt", "lws", "tau_norm")  # change the classifier of such a run, its backbone frozen
TTA_PATTERN = r"^(none|flip|ten-crop|random:([1-9]\d?|100))$"

ProtocolName = Literal[
    "official", "official-clean", "folder", "folder-clean", "folder-naive", "stratified", "stratified-clean",
    "stratified-naive", "oracle",
]  # fmt: skip


def file_stem(model: str) -> str:
    """A model's name as files can have it: "timm_resnet26" of "timm:resnet26"."""
    return model.replace(":", "_").replace("/", "_")


class Budget(Table):
    """A declared track: how much of the data, for how long."""

    name: str
    """A row of baselines/budgets.toml."""
    fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of each class's training images, the same images for every model and seed."""
    epochs: Annotated[int, Field(ge=0)]
    """Epochs for every model; 0 leaves the recipe's."""
    batch_size: Annotated[int, Field(ge=0)]
    """Images per update for every model; 0 leaves the recipe's. Little data needs small batches to learn anything."""

    @property
    def decided(self) -> dict[str, int]:
        """Recipe fields that it sets for every model, and their values."""
        return {f"training.{n}": v for n in ("epochs", "batch_size") if (v := getattr(self, n))}


class DataKey(Table):
    """Which images a run saw, and under which protocol."""

    name: str
    """Leaderboard the data belong to."""
    fingerprint: str
    """`Dataset.fingerprint`."""
    protocol: ProtocolName
    """How splits were made and used; a row of `data.protocol.PROTOCOLS`."""


class RunSpec(Table):
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
    def own_epochs(self) -> int:
        """Epochs that it trains itself: those of a classifier on a frozen backbone, none of what is made of a run."""
        if self.source == self:
            return self.epochs
        stage = 0.0 if self.tta != "none" else self.recipe.imbalance.params.get("stage", 0.0)
        return max(1, round(stage * self.epochs)) if stage else 0

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
        model = file_stem(self.recipe.model.name)
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
