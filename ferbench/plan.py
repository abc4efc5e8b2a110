"""Which runs a command asks for, on which data."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench import data, models
from ferbench.data.dataset import RENAMED_FOLDERS
from ferbench.data.protocol import clean_test, divide
from ferbench.environment import check_device_name
from ferbench.errors import InputError
from ferbench.inputs import FROM_SCRATCH, Paper, load_budget, load_paper, load_recipe, recipe_names
from ferbench.records.facts import DataFacts
from ferbench.records.store import Store
from ferbench.spec import DECOUPLED, TTA_PATTERN, Budget, DataKey, RunSpec
from ferbench.training.strategies import check_corrections, select_strategies, strategy_of
from ferbench.worker import Job

if TYPE_CHECKING:
    from ferbench.data import Dataset
    from ferbench.recipe import ModelRecipe


@dataclass(frozen=True)
class Plan:
    """Which runs a command asks for, on which data."""

    specs: tuple[RunSpec, ...]
    source: str
    """As `data.load` takes it."""
    labels: str | None
    dataset: Dataset
    store: Store
    device: str

    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Run id -> what the reader must know of its recipe."""

    needed: frozenset[str] = frozenset()
    """Ids of runs that nobody asked for, but that others start from."""

    def missing(self) -> list[RunSpec]:
        """The runs whose files are not there yet."""
        return self.todo(redo=False)

    def todo(self, *, redo: bool) -> list[RunSpec]:
        """The runs to do, in order: those that are missing, with `redo` those asked for, and what is made of either."""
        todo: dict[str, RunSpec] = {}
        for spec in self.specs:
            if (redo and spec.id not in self.needed) or spec.source.id in todo or not self.store.is_done(spec):
                todo[spec.id] = spec
        return list(todo.values())

    def job(self, spec: RunSpec, task: str, redo: bool = False, at_once: int = 1) -> Job:
        """A run as its worker is told."""
        return Job.model_validate(
            {
                "task": task,
                "spec": spec,
                "source": self.source,
                "labels": self.labels,
                "results": str(self.store.root.resolve()),
                "device": self.device,
                "redo": redo,
                "at_once": at_once,
                "notes": list(self.notes.get(spec.id, ())),
            }
        )

    def write_facts(self) -> None:
        """Store what is known of the data set, unless it is there."""
        dataset, key = self.dataset, self.specs[0].data
        if self.store.facts(key) is None:
            counts = {
                name: dict(zip(dataset.classes, split.counts(len(dataset.classes)).tolist(), strict=True))
                for name, split in dataset.splits()
            }
            twins = (~clean_test(dataset)).nonzero()[0].tolist()
            self.store.write_facts(DataFacts(data=key, counts=counts, test_twins=twins))


def make_plan(
    models_wanted: str,
    *,
    source: str | Path | None = None,
    labels: str | None = None,
    imbalance: str | None = None,
    seeds: Sequence[int] = (0,),
    budget: str | None = None,
    protocol: str | None = None,
    init: str | None = None,
    tta: str = "none",
    overrides: dict[str, Any] | None = None,
    allow_double_correction: bool = False,
    results: str | Path = "results",
    device: str = "auto",
) -> Plan:
    """The runs of every model x strategy x seed.

    Args:
        models_wanted: names, globs, shipped recipes, recipe files ending in .toml, or "all", separated by commas.
        source: the data; see `data.load`.
        imbalance: strategies, in the same way, or sums of them ("ldam+drw"); None leaves each recipe's own.
        budget: of baselines/budgets.toml; None is "full", or "demo" for the synthetic faces.
        protocol: of `data.protocol.PROTOCOLS`; None is that of the published system that the recipes follow, else
            "official", or "folder" where the files leave no other.
        allow_double_correction: whether strategies may make up twice for how frequent classes are.
        tta: kinds of test-time augmentation, separated by commas, each a run of its own beside the one it looks with.

    Raises:
        InputError: anything is unknown or does not fit.
    """
    recipes = list(dict.fromkeys(r for word in wanted_words(models_wanted) for r in _recipes(word)))
    papers = {name: paper for name in recipes if (paper := load_paper(name))}
    strategies = [None] if imbalance is None else [s.name for s in select_strategies(imbalance)]
    check_seeds(seeds)
    check_device_name(device)
    wanted = _own_protocol(recipes, papers) if protocol is None else protocol
    resolved, dataset, key = choose_data(source, labels, wanted)
    track = choose_budget(budget, dataset)
    check_overrides(overrides or {}, track)
    kinds = _tta_kinds(tta)
    specs, sources = list[RunSpec](), list[RunSpec]()
    notes: dict[str, tuple[str, ...]] = {}
    for name in recipes:
        changes, said = _without_weights(name, papers[name], init) if name in papers else ({}, ())
        for strategy in strategies:
            recipe = load_recipe(name, strategy=strategy, init=init, overrides={**changes, **(overrides or {})})
            check_model(recipe.model)
            if not allow_double_correction:
                check_corrections(strategy_of(recipe.imbalance.strategy))
            new = _with_views([RunSpec(recipe=recipe, seed=s, budget=track, data=key) for s in seeds], kinds)
            sources += [s.source for s in new]
            # what is made of a run with no worker of its own copies that run's
            notes |= {spec.id: said for made in new for spec in (made, made.root) if said}
            specs += new
    if kinds != ["none"] and all(s.is_posthoc for s in specs):
        raise InputError(f"--tta {tta}: post-hoc strategies have no other views (--imbalance none,...)")
    # what is trained comes first, so that what is done with it does not hold up training
    unique = {s.id: s for s in sorted([*specs, *sources], key=lambda s: s.distance)}
    needed, store = frozenset(unique) - {s.id for s in specs}, Store(results)
    _check_inits(unique.values(), store)
    return Plan(tuple(unique.values()), resolved, labels, dataset, store, device, notes, needed)


def _check_inits(specs: Iterable[RunSpec], store: Store) -> None:
    for spec in specs:
        # what was trained from a file needs it no more
        if spec.source == spec and spec.recipe.model.init != "scratch" and not store.is_done(spec):
            check_init(spec.recipe.model)


def _with_views(specs: list[RunSpec], kinds: Sequence[str]) -> list[RunSpec]:
    """The runs with each kind of TTA; what is done after training has none.

    Raises:
        InputError: their strategy does not go with their protocol, or their recipe has the same views.
    """
    strategy = specs[0].recipe.imbalance.strategy
    if specs[0].data.protocol == "oracle" and strategy in DECOUPLED:
        raise InputError(f"protocol oracle: {strategy} is not known of it")
    if specs[0].is_posthoc:
        return specs
    if "flip" in kinds and specs[0].recipe.model.flip_tta:
        raise InputError(f"--tta flip: {specs[0].id} looks at mirror images already (model.flip_tta)")
    return [s.model_copy(update={"tta": kind}) for s in specs for kind in kinds]


def wanted_words(models_wanted: str) -> list[str]:
    """The words between the commas of --models.

    Raises:
        InputError: there are none, as where a shell's variable is empty.
    """
    words = [word.strip() for word in models_wanted.split(",") if word.strip()]
    if not words:
        raise InputError("no model given (--models all)")
    return words


def check_model(recipe: ModelRecipe) -> None:
    """Refuse a network that is not there, or has not what the recipe asks of it.

    Raises:
        InputError: it is such.
    """
    if models.check(recipe).name.startswith("timm:"):
        from ferbench.models.timm_models import check_name

        check_name(recipe.name)


def check_init(recipe: ModelRecipe) -> None:
    """Refuse weights that are in no file.

    Raises:
        InputError: they are not.
    """
    if recipe.init not in ("scratch", "imagenet") and not Path(recipe.init).is_file():
        raise InputError(
            f"model.init = {recipe.init}: no such file (scratch, imagenet, or a .pth or .safetensors file)"
        )
    row = models.MODELS[recipe.name]
    if recipe.init == "imagenet" and row.head is not None and row.weights is None:
        raise InputError(
            f"model.init = imagenet: there are no such weights of {row.name} (scratch, or a file of weights)"
        )


def choose_data(source: str | Path | None, labels: str | None, protocol: str | None) -> tuple[str, Dataset, DataKey]:
    """The data that a command asks for: where they are, the data set under the protocol, and its key.

    Args:
        protocol: None is "official", or "folder" where the files leave no other.

    Raises:
        InputError: they are not there, or do not have the splits that the protocol needs.
    """
    resolved = data.resolve(source)
    given = data.load(resolved, labels)
    if protocol is None:
        protocol = "folder" if given.name == RENAMED_FOLDERS else "official"
    dataset = divide(given, protocol)
    key = DataKey.model_validate({"name": given.name, "fingerprint": dataset.fingerprint, "protocol": protocol})
    return resolved, dataset, key


def choose_budget(name: str | None, dataset: Dataset) -> Budget:
    """The named budget; None is "full", or "demo" for the synthetic faces.

    Raises:
        InputError: there is none of that name.
    """
    if name is None:
        name = "demo" if dataset.name == "synthetic" else "full"
    return load_budget(name)


def _own_protocol(recipes: Sequence[str], papers: dict[str, Paper]) -> str | None:
    own = {name: papers[name].protocol if name in papers else None for name in recipes}
    if len(set(own.values())) > 1:
        told = ", ".join(f"{name}: {protocol or 'official'}" for name, protocol in own.items())
        raise InputError(f"these recipes have different protocols ({told}): choose one with --protocol")
    return next(iter(own.values()))


def _without_weights(name: str, paper: Paper, init: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What changes in a published system's recipe where it starts from scratch instead of ImageNet, and notes."""
    followed = f"{name} follows {paper.source}; no source gives {', '.join(paper.assumed)}"
    model = load_recipe(name).model
    missing = init is None and model.init == "imagenet" and not models.has_imagenet(model.name)
    if not missing and (init, model.init) != ("scratch", "imagenet"):
        return {}, (followed,)
    # a record must not name a machine's folders: the error of --init does
    why = f": ImageNet weights of {model.name} are not here (--init imagenet says where they belong)" if missing else ""
    return FROM_SCRATCH, (followed, f"{name} runs from scratch, nothing frozen{why}")


def _recipes(word: str) -> list[str]:
    # a shipped recipe that is not a model's own; timm.toml needs a network's name
    others = [name for name in recipe_names() if name not in (*models.MODELS.names, "timm")]
    if word.endswith(".toml") or word in others:
        return [word]
    near = difflib.get_close_matches(word, [*models.MODELS.names, *others], n=1)
    if near and near[0] in others and not set(word) & set("*?["):
        raise InputError(f"unknown model or recipe {word!r} (did you mean {near[0]}?)")
    return [row.name for row in models.select(word)]


def check_overrides(overrides: dict[str, Any], budget: Budget) -> None:
    """Refuse to set what the budget decides.

    Raises:
        InputError: it is set.
    """
    for full_name, value in budget.decided.items():
        name = full_name.rpartition(".")[2]
        if overrides.keys() & {name, full_name}:
            raise InputError(
                f"--set {name}: budget {budget.name} sets {name} = {value} for every model (--budget full sets none)"
            )


def _tta_kinds(text: str) -> list[str]:
    kinds = list(dict.fromkeys(["none", *(word.strip() for word in text.split(","))]))
    for kind in kinds:
        if not re.fullmatch(TTA_PATTERN, kind):
            raise InputError(f"--tta {kind!r}: expected none, flip, ten-crop or random:N with N from 1 to 100")
    return kinds


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse what are no seeds.

    Raises:
        InputError: one is out of range, or there is none.
    """
    if isinstance(seeds, str) or not isinstance(seeds, Sequence) or any(type(s) is not int for s in seeds):
        raise InputError(f"seeds = {seeds!r}: a list of whole numbers is expected")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"seed {seed} is out of range (0 to 4294967295)")
    if not seeds:
        raise InputError("no seed given (--seeds 0,1,2)")
