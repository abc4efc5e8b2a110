"""The leaderboard as data: records grouped into tracks, and ranked within each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.data.protocol import PROTOCOLS
from ferbench.inputs import budgets
from ferbench.records.ensemble import EnsembleRecord
from ferbench.records.record import RunRecord
from ferbench.records.store import Store, is_outdated
from ferbench.report.entries import ENSEMBLE, Entry, entry_of_ensemble, entry_of_runs, family, slug_of
from ferbench.spec import Budget, DataKey
from ferbench.variants import by_recipe, differing_fields, digest

if TYPE_CHECKING:
    import pandas as pd


_OUTDATED = "what it was made of has been done again since: its command makes it anew"
DATA_TITLES = {"fer2013": "FER2013", "synthetic": "Synthetic faces"}


@dataclass(frozen=True)
class Failure:
    """A run that ended in a reason instead of scores, or whose scores are no longer those of what it started from."""

    id: str
    model: str
    strategy: str
    seed: int
    reason: str
    is_outdated: bool
    """Whether it did not fail, but what it started from has been done again since."""


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
    def caveat(self) -> str:
        """What the budget is good for alone, in words that go on from "it"; "" of a full one."""
        return "" if self.budget.fraction == 1 else budgets().get(self.budget.name, "").partition(";")[0]

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


def build(records: Sequence[RunRecord], ensembles: Sequence[EnsembleRecord] = ()) -> Leaderboard:
    """The leaderboard of run records and ensembles, whatever their order."""
    groups: dict[tuple[DataKey, Budget], list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda r: (r.spec.seed, r.id)):
        groups[track_key(record)].append(record)
    averaged: dict[tuple[DataKey, Budget], list[EnsembleRecord]] = defaultdict(list)
    for ensemble in sorted(ensembles, key=lambda e: e.id):
        averaged[ensemble.data, ensemble.budget].append(ensemble)
    keys = sorted(groups.keys() | averaged.keys(), key=track_order)
    names = [slug_of("-".join(_words(data, budget))) for data, budget in keys]
    return Leaderboard(
        tuple(
            _track(*key, name, names.count(name) == 1, groups[key], averaged[key])
            for key, name in zip(keys, names, strict=True)
        )
    )


def _words(data: DataKey, budget: Budget) -> list[str]:
    protocol = [] if data.protocol == "official" else [data.protocol]
    return [data.name, *protocol, budget.name]


def track_key(record: RunRecord) -> tuple[DataKey, Budget]:
    """What two records must share to stand in one table."""
    return record.spec.data, record.spec.budget


def track_order(key: tuple[DataKey, Budget]) -> tuple[Any, ...]:
    """Where a track stands on the board: FER2013 first, the official protocol first, full budget first."""
    data, budget = key
    place = {"fer2013": 0, "synthetic": 2}.get(data.name, 1)
    known = list(budgets())
    telling = known.index(budget.name) if budget.name in known else len(known)
    sizes = (-budget.fraction, -budget.epochs, budget.batch_size)
    protocol = PROTOCOLS.names.index(data.protocol)
    return (place, data.name, protocol, telling, budget.name, *sizes, data.fingerprint)


def _track(
    data: DataKey, budget: Budget, name: str, is_alone: bool, records: list[RunRecord], ensembles: list[EnsembleRecord]
) -> Track:
    by_id = {r.id: r for r in records if r.status == "ok"}
    outdated = {r.id for r in records if is_outdated(r, lambda spec: by_id.get(spec.source.id))}
    done = [r for r in records if r.status == "ok" and r.id not in outdated]
    groups = by_recipe(done, lambda r: r.spec.recipe)
    variants = differing_fields({key: runs[0].spec.recipe for key, runs in groups.items()}, budget)
    entries = [
        entry_of_runs(key, [r for r in runs if r.spec.tta == tta], variants[key])
        for key, runs in groups.items()
        for tta in dict.fromkeys(r.spec.tta for r in runs)
    ]
    old = [
        e
        for e in ensembles
        if any(m.run in outdated or (m.run in by_id and by_id[m.run].finished_at > e.finished_at) for m in e.members)
    ]
    averages = [e for e in ensembles if e not in old]
    entries += [entry_of_ensemble(e, by_id) for e in averages]
    scored: list[RunRecord | EnsembleRecord] = [*done, *averages]
    splits = scored[0].scores if scored else {}
    return Track(
        data=data,
        budget=budget,
        slug=name if is_alone else f"{name}-{digest([data.model_dump(), budget.model_dump()])}",
        is_alone=is_alone,
        support={split: {c: s.support for c, s in scores.per_class.items()} for split, scores in splits.items()},
        # what was chosen on test is not ranked
        entries=tuple(
            replace(e, rank=0 if data.protocol == "oracle" else rank)
            for rank, e in enumerate(sorted(_told_apart(entries), key=_merit), 1)
        ),
        failures=(
            *(
                _failure(r, r.id in outdated)
                for r in sorted(records, key=lambda r: r.id)
                if r.status == "failed" or r.id in outdated
            ),
            *(Failure(e.id, ENSEMBLE, "none", 0, _OUTDATED, is_outdated=True) for e in old),
        ),
    )


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """The entries; where labels or slugs would be the same, with the device, or the recipe's or ensemble's id.

    What is made of a training that has such a word (TTA, post-hoc strategies) has the training's, and what was trained
    by its recipe with a strategy on the same device.
    """
    devices: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for name in {entry.label, entry.slug}:
            devices[name].append(entry.device)

    def word(entry: Entry) -> str:
        peers = [devices[entry.label], devices[entry.slug]]
        if all(len(p) == 1 for p in peers):
            return ""
        return entry.device if all(len(set(p)) == len(p) for p in peers) else entry.recipe

    words = {run: word(e) for e in entries if e.trained == e.runs for run in e.runs}
    plain = {(family(e), e.device): w for e in entries if e.strategy == "none" and (w := word(e))}

    def inherited(entry: Entry) -> str:
        # mostly there is nothing to inherit, and families take their time
        return words.get(entry.trained[0]) or word(entry) or (plain and plain.get((family(entry), entry.device))) or ""

    return [_called(e, inherited(e)) for e in entries]


def _called(entry: Entry, word: str) -> Entry:
    if not word:
        return entry
    # an ensemble has its id already
    slug = entry.slug if slug_of(word) in entry.slug else slug_of(f"{entry.slug}-{word}")
    return replace(entry, variant=", ".join(filter(None, (entry.variant, word))), slug=slug)


def _failure(record: RunRecord, is_outdated: bool) -> Failure:
    recipe = record.spec.recipe
    reason = _OUTDATED if is_outdated else record.reason or ""
    return Failure(record.id, recipe.model.name, recipe.imbalance.strategy, record.spec.seed, reason, is_outdated)


def _merit(entry: Entry) -> tuple[Any, ...]:
    # rounded, so that sums of the same scores in another order still tie
    scores = (round(-entry.test[m].mean, 12) for m in ("accuracy", "macro_f1"))
    return (*scores, entry.model, entry.strategy, entry.init, entry.recipe, entry.variant)


def leaderboard(results: str | Path = "results") -> pd.DataFrame:
    """One row for each entry of a results folder; see `report.frame.frame`."""
    from ferbench.report.evidence import weigh_all
    from ferbench.report.frame import frame

    store = Store(results)
    return frame(weigh_all(build(store.records(), store.ensembles()), store))
