"""What twins on both sides of a naive split add to accuracy: runs under stratified-naive, and under stratified.

    python scripts/leak.py fer2013.parquet [results]

Images that exist twice are not like the others, so the accuracy on leaked images alone says too much: they are held
against the copies that a grouped split keeps together in its test, where none is leaked.
"""

from __future__ import annotations

import sys
from statistics import fmean

import numpy as np

from ferbench.data import load
from ferbench.data.assemble import digests
from ferbench.records.record import RunRecord
from ferbench.records.store import Store


def main(source: str, results: str = "results") -> None:
    """Print accuracies by kind of image, and what the leak adds."""
    store = Store(results)
    done = [r for r in store.records() if r.status == "ok"]
    runs = {p: [r for r in done if r.spec.data.protocol == p] for p in ("stratified", "stratified-naive")}
    # what ran under one of them alone says nothing of the other
    both = set.intersection(*({_what(r) for r in found} for found in runs.values()))
    means = {p: _by_kind(source, store, p, [r for r in found if _what(r) in both]) for p, found in runs.items()}
    grouped, naive = means["stratified"], means["stratified-naive"]
    gain = naive["leaked"] - grouped["copies"]
    print(f"a leaked image is right {gain:.1f} points more often than a copy that is not leaked")
    print(f"{naive['share']:.1%} of the test images are leaked: {gain * naive['share']:.2f} points of their accuracy")


def _what(record: RunRecord) -> str:
    """A run but for its data."""
    spec = record.spec
    return f"{spec.recipe.model_dump_json()} {spec.budget.model_dump_json()} {spec.tta} {spec.seed}"


def _by_kind(source: str, store: Store, protocol: str, records: list[RunRecord]) -> dict[str, float]:
    dataset = load(source, None, protocol)
    assert dataset.test is not None
    own = digests(dataset.test.images)
    earlier = np.concatenate([digests(split.images) for split in (dataset.train, dataset.val)])
    _, group, count = np.unique(own, return_inverse=True, return_counts=True)
    leaked = np.isin(own, earlier)
    kinds = {"leaked": leaked, "copies": ~leaked & (count[group] > 1), "single": ~leaked & (count[group] == 1)}
    right = [_right(store, record) for record in records]
    found = {kind: 100 * fmean(r[mask].mean() for r in right) for kind, mask in kinds.items() if mask.any()}
    told = ", ".join(f"{kind} {found[kind]:.1f} % of {mask.sum():,}" for kind, mask in kinds.items() if mask.any())
    print(f"{protocol}: {100 * fmean(r.mean() for r in right):.2f} %, {len(right)} seeds; {told}")
    return {**found, "share": float(leaked.mean())}


def _right(store: Store, record: RunRecord) -> np.ndarray:
    predictions = store.predictions(record.spec, "test")
    return predictions.predicted == predictions.labels


if __name__ == "__main__":
    main(*sys.argv[1:])
