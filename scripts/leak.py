"""What twins on both sides of a naive split add to accuracy: runs under stratified-naive, and under stratified.

    python scripts/leak.py fer2013.parquet [results]

Images that exist twice are not like the others, so the accuracy on leaked images alone says too much: they are held
against the copies that a grouped split keeps together in its test, where none is leaked. Both are few, and of different
images: the interval says how far others would have moved the difference.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from ferbench.data import load
from ferbench.data.assemble import digests
from ferbench.evaluation.resampling import percentile_interval
from ferbench.records.record import RunRecord
from ferbench.records.store import Store


def main(source: str, results: str = "results") -> None:
    """Print accuracies by kind of image, and what the leak adds."""
    store = Store(results)
    done = [r for r in store.records() if r.status == "ok"]
    runs = {p: [r for r in done if r.spec.data.protocol == p] for p in ("stratified", "stratified-naive")}
    # what ran under one of them alone says nothing of the other
    both = set.intersection(*({_what(r) for r in found} for found in runs.values()))
    grouped, naive = (_test(source, store, p, [r for r in found if _what(r) in both]) for p, found in runs.items())
    share, leaked, copies = naive.is_leaked.mean(), naive.is_leaked, grouped.is_copy
    gain = 100 * (naive.right[leaked].mean() - grouped.right[copies].mean())
    drawn = 100 * (naive.drawn(leaked) - grouped.drawn(copies))
    low, high = percentile_interval(drawn)
    print(
        f"a leaked image is right {gain:.1f} points ({low:.1f} to {high:.1f}) more often than a copy that is not leaked"
    )
    print(
        f"{share:.1%} of the test images are leaked: {gain * share:.2f} points of their accuracy "
        f"({low * share:.2f} to {high * share:.2f}); 95 % intervals over other images, not seeds"
    )


def _what(record: RunRecord) -> str:
    """A run but for its data."""
    spec = record.spec
    return f"{spec.recipe.model_dump_json()} {spec.budget.model_dump_json()} {spec.tta} {spec.seed}"


@dataclass(frozen=True)
class Test:
    """The test images of a protocol."""

    right: np.ndarray
    """[N] share of the seeds that have the image right."""
    is_leaked: np.ndarray
    """[N] whether train or val has its pixels."""
    group: np.ndarray
    """[N] the same number for images with the same pixels."""

    @property
    def is_copy(self) -> np.ndarray:
        """[N] whether other test images alone have its pixels."""
        return ~self.is_leaked & (np.bincount(self.group)[self.group] > 1)

    def drawn(self, mask: np.ndarray) -> np.ndarray:
        """Accuracies of those images, drawn again 10,000 times; images with the same pixels stay together."""
        _, group = np.unique(self.group[mask], return_inverse=True)
        images, right = np.bincount(group), np.bincount(group, self.right[mask])
        counts = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), 10_000)
        return counts @ right / (counts @ images)


def _test(source: str, store: Store, protocol: str, records: list[RunRecord]) -> Test:
    dataset = load(source, None, protocol)
    assert dataset.test is not None
    own = digests(dataset.test.images)
    earlier = np.concatenate([digests(split.images) for split in (dataset.train, dataset.val)])
    right = np.mean([_right(store, record) for record in records], axis=0)
    test = Test(right, np.isin(own, earlier), np.unique(own, return_inverse=True)[1])
    kinds = {"leaked": test.is_leaked, "copies": test.is_copy, "single": ~test.is_leaked & ~test.is_copy}
    told = [f"{k} {100 * right[mask].mean():.1f} % of {mask.sum():,}" for k, mask in kinds.items() if mask.any()]
    print(f"{protocol}: {100 * right.mean():.2f} %, {len(records)} seeds; {', '.join(told)}")
    return test


def _right(store: Store, record: RunRecord) -> np.ndarray:
    predictions = store.predictions(record.spec, "test")
    return predictions.predicted == predictions.labels


if __name__ == "__main__":
    main(*sys.argv[1:])
