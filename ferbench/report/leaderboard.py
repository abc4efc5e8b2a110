"""The leaderboard as data: records grouped into tracks, and ranked within each."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.data.protocol import PROTOCOLS
from ferbench.errors import InputError
from ferbench.models import MODELS
from ferbench.recipe import Budget, DataKey, RunSpec
from ferbench.records.record import Cost, RunRecord
from ferbench.records.store import Store
from ferbench.report.variants import by_recipe, differing_fields, digest, variant_label

if TYPE_CHECKING:
    import pandas as pd

    from ferbench.evaluation.metrics import Scores
    from ferbench.report.evidence import Evidence


DATA_TITLES = {"fer2013": "FER2013", "synthetic": "Synthetic faces"}


@dataclass(frozen=True)
class Spread:
    """One score over an entry's seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation (n - 1); None for a single seed."""
    values: tuple[float, ...] = ()
    """By seed."""


@dataclass(frozen=True)
class ClassMeans:
    """One class's test scores, each the mean over seeds."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Entry:
    """One way of training one model: the runs that differ in nothing but the seed."""

    rank: int
    """From 1, by mean test accuracy, then macro-F1, then name."""
    model: str
    title: str
    """What tables call the model."""
    strategy: str
    init: str
    """As in the recipe: "scratch", "imagenet" or a weights file."""
    recipe: str
    """Fingerprint of the recipe; seed, data and budget have no part in it."""
    variant: str
    """What tells this recipe from others for the same model and strategy ("lr=0.05", or its fingerprint); mostly ""."""
    differs: dict[str, Any]
    """The recipe's values of the dotted fields in which those recipes differ."""
    slug: str
    """Name for files, unique within the track."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """Run ids, in the order of the seeds."""
    specs: tuple[RunSpec, ...] = field(repr=False)
    epochs: int
    best_epochs: tuple[int | None, ...]
    """The epoch that val chose, by seed."""
    test: dict[str, Spread]
    """Metric -> test score."""
    val: dict[str, Spread]
    clean: dict[str, Spread]
    """As `test`, on the test images without a twin in train or val; empty where a seed's record lacks it."""
    n_clean: int
    """How many those are; 0 where that is not known."""
    per_class: dict[str, ClassMeans]
    parameters: int | None
    macs: int | None
    train_seconds: float | None
    """Mean over seeds; like all speeds None where the seeds ran on different machines."""
    train_images_per_second: float | None
    inference: dict[int, float]
    """Batch size -> images/s, mean over seeds."""
    device: str
    """Name of the GPU or CPU; several are joined by "; "."""
    device_type: str
    evidence: Evidence | None = None
    """See `report.evidence.weigh`; None: not asked for, or the predictions are not there."""

    @property
    def name(self) -> str:
        """The model's title and what tells its recipe from others."""
        return f"{self.title} ({self.variant})" if self.variant else self.title

    @property
    def label(self) -> str:
        """The name with the imbalance strategy, unique within the track."""
        return self.name if self.strategy == "none" else f"{self.name} + {self.strategy}"


@dataclass(frozen=True)
class Failure:
    """A run that ended in a reason instead of scores."""

    id: str
    model: str
    strategy: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Track:
    """What may be compared: the same images, protocol and budget."""

    data: DataKey
    budget: Budget
    slug: str
    """Name for files, unique on the board."""
    is_alone: bool
    """Whether no other track has this data name, protocol and budget name."""
    support: dict[str, dict[str, int]]
    """Split -> class -> images; empty while no run has ended well."""
    entries: tuple[Entry, ...]
    """By rank."""
    failures: tuple[Failure, ...]

    @property
    def title(self) -> str:
        """A heading such as "FER2013, budget full"."""
        protocol = "" if self.data.protocol == "official" else f", protocol {self.data.protocol}"
        text = f"{DATA_TITLES.get(self.data.name, self.data.name)}{protocol}, budget {self.budget.name}"
        return text if self.is_alone else f"{text} ({self.slug.rpartition('-')[2]})"

    @property
    def n_test(self) -> int:
        """Test images."""
        return sum(self.support.get("test", {}).values())

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the codes."""
        return list(self.support.get("test", {}))

    def best(self, n: int) -> Track:
        """The track with its `n` best entries and first failures: what a page of a large one has room for."""
        return replace(self, entries=self.entries[:n], failures=self.failures[:n])

    @property
    def batch_sizes(self) -> list[int]:
        """Batch sizes at which any entry's inference was timed, ascending."""
        return sorted({size for e in self.entries for size in e.inference})


@dataclass(frozen=True)
class Leaderboard:
    """Every track, FER2013 first and synthetic data last."""

    tracks: tuple[Track, ...]


def build(records: Sequence[RunRecord]) -> Leaderboard:
    """The leaderboard of run records, whatever their order."""
    groups: dict[tuple[DataKey, Budget], list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda r: (r.spec.seed, r.id)):
        groups[track_key(record)].append(record)
    keys = sorted(groups, key=_track_order)
    names = [_slug("-".join(_words(data, budget))) for data, budget in keys]
    return Leaderboard(
        tuple(_track(*key, name, names.count(name) == 1, groups[key]) for key, name in zip(keys, names, strict=True))
    )


def _words(data: DataKey, budget: Budget) -> list[str]:
    protocol = [] if data.protocol == "official" else [data.protocol]
    return [data.name, *protocol, budget.name]


def track_key(record: RunRecord) -> tuple[DataKey, Budget]:
    """What two records must share to stand in one table."""
    return record.spec.data, record.spec.budget


_BUDGET_ORDER = ("full", "quick", "demo")


def _track_order(key: tuple[DataKey, Budget]) -> tuple[Any, ...]:
    data, budget = key
    place = {"fer2013": 0, "synthetic": 2}.get(data.name, 1)
    known = _BUDGET_ORDER.index(budget.name) if budget.name in _BUDGET_ORDER else len(_BUDGET_ORDER)
    sizes = (-budget.fraction, -budget.epochs, budget.batch_size)
    protocol = PROTOCOLS.names.index(data.protocol)
    return (place, data.name, protocol, known, budget.name, *sizes, data.fingerprint)


def _track(data: DataKey, budget: Budget, name: str, is_alone: bool, records: list[RunRecord]) -> Track:
    done = [r for r in records if r.status == "ok"]
    groups = by_recipe(done, lambda r: r.spec.recipe)
    variants = differing_fields({key: runs[0].spec.recipe for key, runs in groups.items()})
    entries = sorted((_entry(key, runs, variants[key]) for key, runs in groups.items()), key=_merit)
    splits = done[0].scores if done else {}
    return Track(
        data=data,
        budget=budget,
        slug=name if is_alone else f"{name}-{digest([data.model_dump(), budget.model_dump()])}",
        is_alone=is_alone,
        support={split: {c: s.support for c, s in scores.per_class.items()} for split, scores in splits.items()},
        entries=tuple(replace(e, rank=rank) for rank, e in enumerate(entries, 1)),
        failures=tuple(_failure(r) for r in sorted(records, key=lambda r: r.id) if r.status == "failed"),
    )


def _failure(record: RunRecord) -> Failure:
    recipe = record.spec.recipe
    return Failure(record.id, recipe.model.name, recipe.imbalance.strategy, record.spec.seed, record.reason or "")


def _merit(entry: Entry) -> tuple[Any, ...]:
    # rounded, so that sums of the same scores in another order still tie
    scores = (round(-entry.test[m].mean, 12) for m in ("accuracy", "macro_f1"))
    return (*scores, entry.model, entry.strategy, entry.init, entry.recipe)


def _entry(key: str, runs: list[RunRecord], differs: dict[str, Any]) -> Entry:
    recipe = runs[0].spec.recipe
    machines = {(r.environment.device_type, r.environment.device, r.environment.threads) for r in runs}
    costs = [r.cost for r in runs if r.cost is not None]
    timed = costs if len(machines) == 1 else []
    tests = [r.scores["test"] for r in runs]
    cleans = [r.scores["clean"] for r in runs if "clean" in r.scores]
    return Entry(
        rank=0,
        model=recipe.model.name,
        title=model_title(recipe.model.name),
        strategy=recipe.imbalance.strategy,
        init=recipe.model.init,
        recipe=key,
        variant=variant_label(differs, key),
        differs=differs,
        slug=_slug(f"{recipe.model.name}-{recipe.imbalance.strategy}") + (f"-{key}" if differs else ""),
        seeds=tuple(r.spec.seed for r in runs),
        runs=tuple(r.id for r in runs),
        specs=tuple(r.spec for r in runs),
        epochs=runs[0].spec.epochs,
        best_epochs=tuple(r.best_epoch for r in runs),
        test=_spreads(tests),
        val=_spreads([r.scores["val"] for r in runs]),
        clean=_spreads(cleans) if len(cleans) == len(runs) else {},
        n_clean=cleans[0].n if len(cleans) == len(runs) else 0,
        per_class={name: _class_means(name, tests) for name in tests[0].per_class},
        parameters=costs[0].parameters if costs else None,
        macs=costs[0].macs if costs else None,
        train_seconds=_mean(timed, lambda c: c.train_seconds),
        train_images_per_second=_mean(timed, lambda c: c.images_per_second),
        inference=_inference(timed),
        device="; ".join(sorted({device for _, device, _ in machines})),
        device_type="; ".join(sorted({kind for kind, _, _ in machines})),
    )


def _mean(costs: list[Cost], value: Callable[[Cost], float]) -> float | None:
    return statistics.fmean(map(value, costs)) if costs else None


def _inference(costs: list[Cost]) -> dict[int, float]:
    rates: dict[int, list[float]] = defaultdict(list)
    for timing in (t for c in costs for t in c.inference):
        rates[timing.batch_size].append(timing.images_per_second)
    return {size: statistics.fmean(rates[size]) for size in sorted(rates)}


def _spreads(scores: list[Scores]) -> dict[str, Spread]:
    """Every metric that all seeds have: a record may be older than a metric."""
    shared = [m for m in scores[0].values if all(m in s.values for s in scores)]
    return {m: _spread([s.values[m] for s in scores]) for m in shared}


def _spread(values: list[float]) -> Spread:
    mean = statistics.fmean(values)
    # statistics.stdev adds fractions, exactly and fifty times slower
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
    return Spread(mean, sd, tuple(values))


def _class_means(name: str, scores: list[Scores]) -> ClassMeans:
    rows = [s.per_class[name] for s in scores]
    means = {field: statistics.fmean([getattr(r, field) for r in rows]) for field in ("precision", "recall", "f1")}
    return ClassMeans(**means)


def model_title(name: str) -> str:
    """What tables call a model, also one that is no longer registered."""
    try:
        return MODELS[name].title
    except InputError:
        return name


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)


def leaderboard(results: str | Path = "results") -> pd.DataFrame:
    """One row for each entry of a results folder; see `report.frame.frame`."""
    from ferbench.report.evidence import weigh_all
    from ferbench.report.frame import frame

    store = Store(results)
    return frame(weigh_all(build(store.records()), store))
