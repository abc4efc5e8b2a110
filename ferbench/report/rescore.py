"""Every stored score, computed again from the saved predictions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from ferbench.errors import InputError
from ferbench.evaluation.metrics import Scores, scores_by_split
from ferbench.evaluation.predictions import Predictions, average, same_images
from ferbench.records.ensemble import EnsembleRecord
from ferbench.records.places import PREDICTED_SPLITS, ensemble_place, predicted_splits
from ferbench.records.record import RunRecord
from ferbench.records.store import Store
from ferbench.spec import DataKey

TOLERANCE = 1e-9

Truth = tuple[tuple[str, ...], bytes, bytes]
"""Classes, ids and labels of a split."""


def rescore(store: Store, *, write: bool) -> list[str]:
    """One line for each stored score that its predictions do not give, and for predictions that cannot be used.

    Runs on the same data must agree on classes, ids and labels of a split; where one stands against the others, it is
    the one reported.

    Args:
        store: the results folder.
        write: replace records whose scores differ. A record whose predictions are missing, or hold other images than
            they should, stays as it is.
    """
    done = [r for r in store.records() if r.status == "ok"]
    truths = _accepted_truths(store, done)
    lines = []
    for record in done:
        found, scores = _check(store, record, truths)
        lines += [f"{record.id}: {line}" for line in found]
        if write and scores and scores != record.scores:
            store.write_record(record.model_copy(update={"scores": {**record.scores, **scores}}))
    by_id = {r.id: r for r in done}
    for ensemble in store.ensembles():
        found, averaged = _check_ensemble(store, ensemble, by_id)
        lines += [f"{ensemble.id}: {line}" for line in found]
        if write and found and averaged:
            scores = scores_by_split(averaged, store.clean_test(ensemble.data))
            store.write_ensemble(ensemble.model_copy(update={"scores": scores}), averaged)
    return lines


def _check_ensemble(
    store: Store, record: EnsembleRecord, runs: dict[str, RunRecord]
) -> tuple[list[str], list[Predictions]]:
    """What is wrong with an ensemble, and the averages of its members' predictions where those are there."""
    lost = [m.run for m in record.members if m.run not in runs]
    if lost:
        return [f"its member {lost[0]} is not there"], []
    weights = np.array([m.weight for m in record.members])
    lines: list[str] = []
    averaged = []
    for split in PREDICTED_SPLITS:
        try:
            members = [store.predictions(runs[m.run].spec, split) for m in record.members]
            stored = store.predictions_at(ensemble_place(record), split)
        except InputError as error:
            return [str(error)], []
        if not same_images([stored, *members]):
            return [f"{split}: its images or classes are not those of its members"], []
        averaged.append(average(members, weights))
        if not np.allclose(stored.probabilities, averaged[-1].probabilities, atol=1e-6):
            lines.append(f"{split}: its predictions are not the mean of its members'")
    return lines + _changes(record.scores, scores_by_split(averaged, store.clean_test(record.data))), averaged


def _check(
    store: Store, record: RunRecord, truths: dict[tuple[DataKey, str], Truth]
) -> tuple[list[str], dict[str, Scores] | None]:
    """What is wrong with a record, and its scores by its predictions where those can be trusted."""
    lines = [f"the spec's id is {record.spec.id}"] if record.id != record.spec.id else []
    scores: dict[str, Scores] = {}
    is_clean = store.clean_test(record.spec.data)
    for split in predicted_splits(record.spec):
        try:
            predictions = store.predictions(record.spec, split)
        except InputError as error:
            lines.append(str(error))
            continue
        faults = list(_faults(predictions, split, record, truths[record.spec.data, split]))
        if faults:
            lines += [f"{split}: {fault}" for fault in faults]
            continue
        scores |= scores_by_split([predictions], is_clean)
    lines += _changes(record.scores, scores)
    return lines, scores if scores.keys() >= set(predicted_splits(record.spec)) else None


def _faults(predictions: Predictions, split: str, record: RunRecord, truth: Truth) -> Iterator[str]:
    """Why predictions must not be scored for a record."""
    if predictions.split != split:
        yield f"the predictions are of split {predictions.split!r}"
    stored = record.scores.get(split)
    if stored is not None and stored.n != len(predictions):
        yield f"the record counts {stored.n} images, its predictions {len(predictions)}"
    if stored is not None and tuple(stored.per_class) != predictions.classes:
        yield f"the record's classes are {[*stored.per_class]}, its predictions' {[*predictions.classes]}"
    if _truth(predictions) != truth:
        yield "classes, ids or labels are not those of the other runs on the same data"


def _accepted_truths(store: Store, records: list[RunRecord]) -> dict[tuple[DataKey, str], Truth]:
    """By (data, split), what most runs' predictions hold as classes, ids and labels."""
    votes: dict[tuple[DataKey, str], Counter[Truth]] = defaultdict(Counter)
    for record in records:
        for split in predicted_splits(record.spec):
            try:
                predictions = store.predictions(record.spec, split)
            except InputError:
                continue  # reported where the record is checked
            votes[record.spec.data, split][_truth(predictions)] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in votes.items()}


def _truth(predictions: Predictions) -> Truth:
    return predictions.classes, "\n".join(map(str, predictions.ids)).encode(), predictions.labels.tobytes()


def _changes(stored: dict[str, Scores], computed: dict[str, Scores]) -> list[str]:
    """One line for each difference, by split."""
    lines = [f"{name}: the record has no scores" for name in computed if name not in stored]
    both = [name for name in computed if name in stored]
    return lines + [f"{name}: {line}" for name in both for line in differences(stored[name], computed[name])]


def differences(stored: Scores, computed: Scores) -> list[str]:
    """One line for each number in which two scores differ."""
    old, new = dict(_numbers(stored)), dict(_numbers(computed))
    return [
        f"{name} is {_shown(old.get(name))} in the record, {_shown(new.get(name))} by its predictions"
        for name in {**old, **new}
        if name not in old or name not in new or not abs(old[name] - new[name]) <= TOLERANCE
    ]


def _shown(value: float | None) -> str:
    return "absent" if value is None else f"{value:.10g}"


def _numbers(scores: Scores) -> Iterator[tuple[str, float]]:
    yield "n", scores.n
    yield from scores.values.items()
    for name, row in scores.per_class.items():
        yield from ((f"{field} of {name}", value) for field, value in row.model_dump().items())
    for i, line in enumerate(scores.confusion):
        yield from ((f"confusion[{i}][{j}]", count) for j, count in enumerate(line))
