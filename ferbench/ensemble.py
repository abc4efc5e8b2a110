"""Ensembles of stored runs: averaged probabilities, members chosen on val alone; no torch, no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from ferbench.environment import describe_software
from ferbench.errors import InputError
from ferbench.evaluation.metrics import METRICS, compute, scores_by_split
from ferbench.evaluation.predictions import Predictions, average, same_images
from ferbench.records.ensemble import EnsembleRecord, Member
from ferbench.records.record import RunRecord, utc_now
from ferbench.records.store import Store, is_outdated
from ferbench.report.leaderboard import track_order
from ferbench.spec import Budget, DataKey

ROUNDS = 25
"""Choices after which selection ends; a run may be chosen again."""


def make_ensemble(
    store: Store,
    wanted: str,
    *,
    metric: str = "accuracy",
    data: str | None = None,
    protocol: str | None = None,
    budget: str | None = None,
) -> EnsembleRecord:
    """The stored ensemble of the best of some runs, by greedy selection with replacement (Caruana et al. 2004).

    Args:
        store: the results folder.
        wanted: globs of run ids ("resnet*", "plain_cnn-focal-*"), separated by commas.
        metric: the score on val that chooses; ties go to the lower negative log-likelihood.
        data: name of the data set; None, here and below, is that of the leaderboard's first track with two such runs.
        protocol: how its splits are used.
        budget: of which track.

    Raises:
        InputError: fewer than two runs fit, or their predictions are missing or of different images.
    """
    rule = METRICS[metric]
    runs = _candidates(store, wanted, {"data": data, "protocol": protocol, "budget": budget})
    val, test = ([store.predictions(r.spec, split) for r in runs] for split in ("val", "test"))
    for split in (val, test):
        _check_same_images(runs, split)
    weights, path = select(val, rule.name)
    chosen = {split[0].split: average(split, weights) for split in (val, test)}
    software = describe_software()
    record = EnsembleRecord(
        data=runs[0].spec.data,
        budget=runs[0].spec.budget,
        candidates=[r.id for r in runs],
        metric=rule.name,
        members=[
            Member(run=runs[i].id, weight=int(weights[i])) for i in np.argsort(-weights, kind="stable") if weights[i]
        ],
        path=path,
        scores=scores_by_split(list(chosen.values()), store.clean_test(runs[0].spec.data)),
        finished_at=utc_now(),
        ferbench=software["ferbench"],
        commit=software["commit"],
    )
    store.write_ensemble(record, list(chosen.values()))
    return record


def _candidates(store: Store, wanted: str, track: dict[str, str | None]) -> list[RunRecord]:
    """The runs of the first track of which at least two fit."""
    patterns = [word.strip() for word in wanted.split(",")]
    tracks: dict[tuple[DataKey, Budget], list[RunRecord]] = {}
    records = {r.id: r for r in store.records()}
    for run in records.values():
        data, budget = run.spec.data, run.spec.budget
        own = {"data": data.name, "protocol": data.protocol, "budget": budget.name}
        fits = data.protocol != "oracle" and all(asked in (None, own[part]) for part, asked in track.items())
        is_good = run.status == "ok" and not is_outdated(run, lambda spec: records.get(spec.source.id))
        if is_good and fits and any(fnmatchcase(run.id, p) for p in patterns):
            tracks.setdefault((data, budget), []).append(run)
    tracks = {key: _one_of_each_training(runs) for key, runs in tracks.items()}
    enough = {key: runs for key, runs in tracks.items() if len(runs) > 1}
    if not enough:
        found = sum(map(len, tracks.values()))
        options = {"data": "data-name"}
        asked = "".join(f" --{options.get(part, part)} {name!r}" for part, name in track.items() if name is not None)
        raise InputError(f"--from {wanted!r}{asked}: {found} finished runs fit, at least 2 of one track are needed")
    return enough[min(enough, key=track_order)]


def _one_of_each_training(runs: list[RunRecord]) -> list[RunRecord]:
    """Of the runs with the same training at the bottom the first that is nearest to it: more would count it twice."""
    nearest = {r.spec.root.id: r for r in sorted(runs, key=lambda r: (r.spec.distance, r.id), reverse=True)}
    return [r for r in runs if nearest[r.spec.root.id] is r]


def _check_same_images(runs: Sequence[RunRecord], predictions: Sequence[Predictions]) -> None:
    for run, own in zip(runs, predictions, strict=True):
        if not same_images([predictions[0], own]):
            raise InputError(f"{run.id}: its {own.split} predictions are of other images than {runs[0].id}'s")


def select(val: Sequence[Predictions], metric: str) -> tuple[np.ndarray, list[float]]:
    """How often each candidate is chosen, [C], and the val score after each choice, both as far as the best.

    Args:
        val: the candidates' predictions.
        metric: a row of METRICS.
    """
    sign = 1 if METRICS[metric].higher_is_better else -1
    total = np.zeros_like(val[0].probabilities, dtype=np.float64)
    order: list[int] = []
    path: list[float] = []
    while len(order) < ROUNDS:
        merits = []
        for candidate in val:
            mean = (total + candidate.probabilities) / (len(order) + 1)
            scores = compute(replace(candidate, probabilities=mean.astype(np.float32)), metric, "nll")
            merits.append((sign * scores[metric], -scores["nll"]))
        best = max(range(len(val)), key=merits.__getitem__)
        order.append(best)
        path.append(sign * merits[best][0])
        total += val[best].probabilities
    end = 1 + max(range(ROUNDS), key=lambda i: (sign * path[i], -i))
    return np.bincount(order[:end], minlength=len(val)), path[:end]
