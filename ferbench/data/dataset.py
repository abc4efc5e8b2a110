"""What a data set is once it is read: uint8 images, labels and ids by split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

FER2013_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's seven classes in the order of the competition's codes 0-6."""

FER2013_COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "val": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}
"""Images per class of the official data set (Goodfellow et al. 2013, arXiv 1307.0414)."""

SPLITS = ("train", "val", "test")

VAL_WAS_DRAWN = "no val folder: 12.5 % of each class of train, images with equal pixels kept together"
"""Note of a data set whose files have no val."""

RENAMED_FOLDERS = "fer2013-folder"
"""Name of FER2013's folder edition where the files no longer tell PublicTest from PrivateTest."""


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in canonical order (by pixel digest, then label), equal for every edition."""

    images: npt.NDArray[np.uint8]
    """[N, H, W] grey levels; a memory map when it comes from the cache."""
    labels: npt.NDArray[np.uint8]
    """[N] class codes."""
    sources: tuple[str, ...] = field(repr=False)
    """[N] where each image stands in the user's files ("fer2013.csv row 17", "train/happy/Training_3.jpg")."""
    votes: npt.NDArray[np.float32] | None = None
    """[N, K] label distributions (rows sum to 1) where the labels are soft, else None."""

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, n_classes: int) -> npt.NDArray[np.int64]:
        """Images per class, [K]."""
        return np.bincount(self.labels, minlength=n_classes)

    def take(self, index: npt.NDArray[np.int64]) -> Split:
        """The images at `index`, in that order."""
        return Split(
            self.images[index],
            self.labels[index],
            tuple(self.sources[i] for i in index),
            None if self.votes is None else self.votes[index],
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set under one protocol's names: train to learn from, val to choose with, test to report once."""

    name: str
    """The leaderboard it belongs to: "fer2013", "ferplus-majority", "synthetic", or the folder's own name."""
    edition: str
    """Which form the files had: "competition-csv", "icml-csv", "folders", "parquet", "synthetic", ..."""
    classes: tuple[str, ...]
    """[K] class names, in the order of the codes."""
    train: Split
    val: Split
    test: Split | None
    """None where the caller must not see it (a study) or the files have none."""
    fingerprint: str
    """Hash over (split, class, pixels) of every image, independent of edition and file order."""
    official: bool
    """Whether the files' counts per split and class are FER2013's published ones, whatever a protocol draws."""
    notes: tuple[str, ...] = ()
    """What the reader must tell: rows dropped, splits that had to be made."""
    honest: Split | None = None
    """What should choose the epoch, where a protocol has test do it; None: val does."""
    twins: npt.NDArray[np.bytes_] | None = None
    """Digests of the images of train and val before a clean protocol took some out; None: of those that are there."""

    def splits(self) -> Iterator[tuple[str, Split]]:
        """("train", Split), ("val", Split), ("test", Split) as far as present."""
        for name in SPLITS:
            split = getattr(self, name)
            if split is not None:
                yield name, split

    def without_test(self) -> Dataset:
        """The data set that a study may see."""
        return replace(self, test=None)


def image_ids(split: str, n: int) -> list[str]:
    """Ids of a split's n images ("test-00017"): the rank in canonical order, unique under the fingerprint."""
    return [f"{split}-{i:05d}" for i in range(n)]
