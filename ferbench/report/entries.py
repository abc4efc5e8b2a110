"""Entries of the leaderboard: the runs of one way of training one model, or an ensemble of runs."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench.errors import InputError
from ferbench.models import MODELS
from ferbench.recipe import NO_STRATEGY
from ferbench.records.ensemble import EnsembleRecord
from ferbench.records.places import ensemble_place, run_place
from ferbench.records.record import Cost, RunRecord
from ferbench.variants import UNNAMED, variant_label

if TYPE_CHECKING:
    from ferbench.evaluation.metrics import Scores
    from ferbench.report.evidence import Evidence
    from ferbench.spec import RunSpec


Counts = tuple[tuple[int, ...], ...]

ENSEMBLE = "ensemble"
"""What stands in a model's place for an ensemble."""


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
    """One way of training and looking with one model, the runs differing in nothing but the seed; or one ensemble."""

    rank: int
    """From 1, by mean test accuracy, then macro-F1, then name; 0 where nothing is ranked (oracle)."""
    model: str
    title: str
    """What tables call the model."""
    strategy: str
    init: str
    """As in the recipe: "scratch", "imagenet" or a weights file."""
    recipe: str
    """Fingerprint of the recipe; seed, data and budget have no part in it."""
    spec: RunSpec | None
    """Of the first run; None for an ensemble."""
    variant: str
    """What tells this recipe from its model's shipped one ("lr=0.05", another shipped recipe, a hash), and TTA; or an
    ensemble's members; mostly ""."""
    differs: dict[str, Any]
    """The recipe's values of the dotted fields in which it is not the shipped one; see `variants.differing_fields`."""
    slug: str
    """Name for files, unique within the track."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """Run ids, in the order of the seeds."""
    places: tuple[str, ...]
    """Folders of the predictions below that of the results, in that order."""
    trained: tuple[str, ...]
    """Ids of the trainings behind them, in that order: of TTA, post-hoc and decoupled strategies, other runs."""
    is_trained: bool
    """Whether it has learning curves of its own: not an ensemble, nor TTA or a post-hoc strategy of a run."""
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
    honest: dict[str, Spread]
    """Under protocol oracle: as `test`, at the epochs that val would have chosen; else empty."""
    per_class: dict[str, ClassMeans]
    confusion: Counts
    """[K, K] test images summed over seeds, true class by row."""
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
    precisions: tuple[str, ...] = ()
    """By seed, what the run computed in; "" where its record does not say, () for an ensemble."""
    ensemble: EnsembleRecord | None = None
    """Its record, where the entry is one."""
    evidence: Evidence | None = None
    """See `report.evidence.weigh_all`; None: not asked for, or the predictions are not there."""

    @property
    def averaged(self) -> int:
        """How many trainings are behind each of its predictions."""
        return len(self.ensemble.members) if self.ensemble else 1

    @property
    def name(self) -> str:
        """The model's title and what tells its recipe from others."""
        return f"{self.title} ({self.variant})" if self.variant else self.title

    @property
    def label(self) -> str:
        """The name with the imbalance strategy, unique within the track."""
        return self.name if self.strategy == "none" else f"{self.name} + {self.strategy}"


def entry_of_runs(key: str, runs: list[RunRecord], differs: dict[str, Any]) -> Entry:
    """The entry, not yet ranked, of the runs of one recipe and kind of TTA.

    Args:
        key: fingerprint of the recipe.
        runs: by seed.
        differs: as `variants.differing_fields` has it.
    """
    recipe, tta = runs[0].spec.recipe, runs[0].spec.tta
    unnamed = (*UNNAMED, *runs[0].spec.budget.decided)
    variant = [variant_label(recipe, differs, unnamed)] if differs else []
    views = [] if tta == "none" else [f"TTA {tta}"]
    machines = {(r.environment.device_type, r.environment.device, r.environment.threads) for r in runs}
    costs = [r.cost for r in runs if r.cost is not None]
    timed = costs if len(machines) == 1 else []
    return Entry(
        rank=0,
        model=recipe.model.name,
        title=model_title(recipe.model.name),
        strategy=recipe.imbalance.strategy,
        init=recipe.model.init,
        recipe=key,
        spec=runs[0].spec,
        variant=", ".join(variant + views),
        differs=differs,
        slug=slug_of("-".join([recipe.model.name, recipe.imbalance.strategy, *variant, *views])),
        seeds=tuple(r.spec.seed for r in runs),
        runs=tuple(r.id for r in runs),
        places=tuple(run_place(r.spec, r.id) for r in runs),
        trained=tuple(r.id if (root := r.spec.root) is r.spec else root.id for r in runs),
        is_trained=runs[0].spec.trained == runs[0].spec,
        epochs=runs[0].spec.epochs,
        best_epochs=tuple(r.best_epoch for r in runs),
        **_score_fields([r.scores for r in runs]),
        parameters=costs[0].parameters if costs else None,
        macs=costs[0].macs if costs else None,
        train_seconds=_mean(timed, lambda c: c.train_seconds),
        train_images_per_second=_mean(timed, lambda c: c.images_per_second),
        inference=_inference(timed),
        device="; ".join(sorted({device for _, device, _ in machines})),
        device_type="; ".join(sorted({kind for kind, _, _ in machines})),
        precisions=tuple(r.arithmetic.precision if r.arithmetic else "" for r in runs),
    )


def entry_of_ensemble(record: EnsembleRecord, runs: dict[str, RunRecord]) -> Entry:
    """The entry, not yet ranked, of an ensemble.

    Args:
        record: the ensemble.
        runs: the track's finished runs by id; a member that is not among them leaves the cost unknown.
    """
    members = [runs[m.run] for m in record.members if m.run in runs]
    costs = [m.cost for m in members if m.cost is not None]
    is_known = len(costs) == len(record.members)
    machines = {(m.environment.device_type, m.environment.device, m.environment.threads) for m in members}
    names = Counter(model_title(m.spec.recipe.model.name) for m in members)
    sizes = set.intersection(*({t.batch_size for t in c.inference} for c in costs)) if is_known else set()
    rates = [{t.batch_size: t.images_per_second for t in c.inference} for c in costs]
    return Entry(
        rank=0,
        model=ENSEMBLE,
        title="Ensemble",
        strategy=_all_or(sorted({m.spec.recipe.imbalance.strategy for m in members})),
        init=_all_or(sorted({m.spec.recipe.model.init for m in members})),
        recipe=record.id,
        spec=None,
        variant=" + ".join(name if n == 1 else f"{n} {name}" for name, n in names.most_common()) or record.id,
        differs={},
        slug=slug_of(record.id),
        seeds=(0,),
        runs=(record.id,),
        places=(ensemble_place(record),),
        trained=(record.id,),
        is_trained=False,
        epochs=0,
        best_epochs=(None,),
        **_score_fields([record.scores]),
        parameters=sum(c.parameters for c in costs) if is_known else None,
        macs=sum(c.macs for c in costs) if is_known else None,
        train_seconds=sum(c.train_seconds for c in costs) if is_known and len(machines) == 1 else None,
        train_images_per_second=None,
        # one network after the other
        inference={s: 1 / sum(1 / r[s] for r in rates) for s in sorted(sizes)} if len(machines) == 1 else {},
        ensemble=record,
        device="; ".join(sorted({device for _, device, _ in machines})),
        device_type="; ".join(sorted({kind for kind, _, _ in machines})),
    )


def _all_or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else "several"


def _score_fields(scores: Sequence[dict[str, Scores]]) -> dict[str, Any]:
    """The fields of an entry that come from its seeds' scores."""
    tests = [s["test"] for s in scores]
    cleans = [s["clean"] for s in scores if "clean" in s]
    has_clean = len(cleans) == len(scores)
    return {
        "test": _spreads(tests),
        "val": _spreads([s["val"] for s in scores]),
        "clean": _spreads(cleans) if has_clean else {},
        "n_clean": cleans[0].n if has_clean else 0,
        "honest": _spreads([s["honest"] for s in scores]) if all("honest" in s for s in scores) else {},
        "per_class": {name: _class_means(name, tests) for name in tests[0].per_class},
        "confusion": tuple(map(tuple, np.sum([t.confusion for t in tests], axis=0).tolist())),
    }


def _mean(costs: list[Cost], value: Callable[[Cost], float]) -> float | None:
    return statistics.fmean(map(value, costs)) if costs else None


def _inference(costs: list[Cost]) -> dict[int, float]:
    rates: dict[int, list[float]] = defaultdict(list)
    for timing in (t for c in costs for t in c.inference):
        rates[timing.batch_size].append(timing.images_per_second)
    return {size: statistics.fmean(rates[size]) for size in sorted(rates)}


def _spreads(scores: list[Scores]) -> dict[str, Spread]:
    """Every metric that all seeds have: a record may be older than a metric."""
    values = [s.values for s in scores]
    shared = [m for m in values[0] if all(m in v for v in values)]
    return {m: spread([v[m] for v in values]) for m in shared}


def spread(values: list[float]) -> Spread:
    """Mean and standard deviation."""
    mean = statistics.fmean(values)
    # statistics.stdev adds fractions, exactly and fifty times slower
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
    return Spread(mean, sd, tuple(values))


def _class_means(name: str, scores: list[Scores]) -> ClassMeans:
    rows = [s.per_class[name] for s in scores]
    return ClassMeans(
        statistics.fmean([r.precision for r in rows]),
        statistics.fmean([r.recall for r in rows]),
        statistics.fmean([r.f1 for r in rows]),
    )


def family(entry: Entry) -> str:
    """What entries share that differ in nothing but their imbalance strategy."""
    if entry.spec is None:
        return entry.slug
    recipe = entry.spec.recipe.model_copy(update={"imbalance": NO_STRATEGY})
    return f"{recipe.model_dump_json()} {entry.spec.tta}"


def model_title(name: str) -> str:
    """What tables call a model, also one that is no longer registered."""
    try:
        return MODELS[name].title
    except InputError:
        return name


def slug_of(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)
