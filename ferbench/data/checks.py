"""What is in a data set: counts, blanks, duplicates and twins across splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ferbench.data.assemble import digests
from ferbench.data.dataset import Dataset


@dataclass(frozen=True)
class Description:
    """The facts that `ferbench data info` prints."""

    dataset: Dataset
    counts: dict[str, tuple[int, ...]]
    """Images per class, by split."""
    blank: dict[str, int]
    """All-black images, by split."""
    flat: dict[str, int]
    """Other images whose pixels have a standard deviation below 1, by split."""
    distinct: int
    """Different images, by exact pixels, over all splits."""
    groups: int
    """Sets of two or more equal images."""
    groups_with_labels: int
    """Groups that carry more than one label."""
    groups_across: int
    """Groups that reach across splits."""
    val_in_train: int
    """Val images with a twin in train."""
    test_in_train: int
    """Test images with a twin in train."""
    test_in_either: int
    """Test images with a twin in train or val."""
    train_mean: float
    train_std: float
    """Of the training pixels on the 0-1 scale."""

    @property
    def images(self) -> int:
        """Images over all splits."""
        return sum(map(sum, self.counts.values()))

    def to_lines(self) -> list[str]:
        """The description as text for a terminal."""
        data, splits = self.dataset, list(self.counts)
        width = max(len(c) for c in (*data.classes, "class"))
        lines = [
            f"data set     {data.name}"
            + (" (the official FER2013)" if data.official else " (not the official FER2013)"),
            f"edition      {data.edition}",
            f"fingerprint  {data.fingerprint}",
            "",
            "  ".join(["class".ljust(width), *(s.rjust(7) for s in splits)]),
        ]
        for i, name in enumerate(data.classes):
            lines.append("  ".join([name.ljust(width), *(f"{self.counts[s][i]:7,}" for s in splits)]))
        lines.append("  ".join(["total".ljust(width), *(f"{sum(self.counts[s]):7,}" for s in splits)]))
        lines += [
            "",
            "blank        " + ", ".join(f"{self.blank[s]} in {s}" for s in splits),
            "nearly flat  " + ", ".join(f"{self.flat[s]} in {s}" for s in splits),
            f"duplicates   {self.distinct:,} distinct of {self.images:,}; {self.images - self.distinct:,} redundant "
            f"copies in {self.groups:,} groups; {self.groups_with_labels:,} groups with more than one label; "
            f"{self.groups_across:,} across splits",
            f"twins        {self.val_in_train:,} val images in train",
        ]
        if "test" in self.counts:
            clean = sum(self.counts["test"]) - self.test_in_either
            lines[-1] += (
                f"; {self.test_in_train:,} test images in train, {self.test_in_either:,} in train or val; "
                f"clean test: {clean:,}"
            )
        lines.append(f"train pixels mean {self.train_mean:.4f}, std {self.train_std:.4f} (0-1 scale)")
        return [*lines, *(f"note         {note}" for note in data.notes)]


def describe(dataset: Dataset) -> Description:
    """The facts about a data set; equal means equal in every pixel."""
    splits = dict(dataset.splits())
    if dataset.honest is not None:
        # val is test there, which would count twice
        splits["val"] = dataset.honest
    hashes = {name: digests(split.images) for name, split in splits.items()}
    everything = np.concatenate(list(hashes.values()))
    labels = np.concatenate([s.labels for s in splits.values()]).astype(np.int64)
    where = np.repeat(np.arange(len(splits)), [len(s) for s in splits.values()])
    _, group, sizes = np.unique(everything, return_inverse=True, return_counts=True)
    train = hashes["train"]
    test = hashes.get("test", train[:0])
    deviations = {name: _deviations(split.images) for name, split in splits.items()}
    blank = {name: int((split.images.reshape(len(split), -1).max(1) == 0).sum()) for name, split in splits.items()}
    mean, std = _mean_and_std(splits["train"].images)
    return Description(
        dataset=dataset,
        counts={name: tuple(int(c) for c in s.counts(len(dataset.classes))) for name, s in splits.items()},
        blank=blank,
        flat={name: int((d < 1).sum()) - blank[name] for name, d in deviations.items()},
        distinct=len(sizes),
        groups=int((sizes > 1).sum()),
        groups_with_labels=_groups_with_several(group, labels),
        groups_across=_groups_with_several(group, where),
        val_in_train=int(np.isin(hashes["val"], train).sum()),
        test_in_train=int(np.isin(test, train).sum()),
        test_in_either=int(np.isin(test, np.concatenate([train, hashes["val"]])).sum()),
        train_mean=mean,
        train_std=std,
    )


def _groups_with_several(group: npt.NDArray[np.intp], values: npt.NDArray[np.int64]) -> int:
    """How many groups hold more than one of the values."""
    pairs = np.unique(np.stack([group, values]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _deviations(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    chunks = np.array_split(images, max(len(images) // 4096, 1))
    return np.concatenate([c.reshape(len(c), -1).std(1) for c in chunks])


def _mean_and_std(images: npt.NDArray[np.uint8]) -> tuple[float, float]:
    counts = np.bincount(images.reshape(-1), minlength=256)
    levels = np.arange(256) / 255
    mean = float((counts * levels).sum() / counts.sum())
    return mean, float(np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum()))
