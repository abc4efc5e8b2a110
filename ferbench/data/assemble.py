"""From images as they were read to a `Dataset`: canonical order, fingerprint, name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ferbench.data.dataset import FER2013_CLASSES, FER2013_COUNTS, SPLITS, Dataset, Split
from ferbench.errors import InputError


@dataclass(frozen=True, eq=False)
class Images:
    """What a reader found, in the order of the files."""

    name: str
    """What the data set is called if it is not the official FER2013."""
    edition: str
    classes: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    """[N, H, W]."""
    labels: npt.NDArray[np.uint8]
    """[N]."""
    splits: npt.NDArray[np.uint8]
    """[N] index into SPLITS."""
    sources: Sequence[str]
    """[N]."""
    votes: npt.NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()

    def take(self, rows: npt.NDArray[np.int64]) -> Images:
        """The images at `rows`, in that order."""
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            splits=self.splits[rows],
            sources=[self.sources[i] for i in rows],
            votes=None if self.votes is None else self.votes[rows],
        )


def digests(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """[N] hashes of the images' pixels, hexadecimal."""
    pixels = np.ascontiguousarray(images)
    return np.array([hashlib.blake2b(p, digest_size=16).hexdigest() for p in pixels], dtype="S32")


def assemble(found: Images) -> Dataset:
    """The data set, each split in canonical order, so that every edition gives the same arrays.

    Raises:
        InputError: a split or a class has no image.
    """
    hashes = digests(found.images)
    parts: dict[str, Split | None] = dict.fromkeys(SPLITS)
    fingerprint = hashlib.blake2b(digest_size=16)
    fingerprint.update(repr((found.images.shape[1:], found.classes)).encode())
    for code, split in enumerate(SPLITS):
        members = np.flatnonzero(found.splits == code)
        if len(members) == 0:
            continue
        keys = [(hashes[i], found.labels[i]) for i in members]
        order = members[sorted(range(len(keys)), key=keys.__getitem__)]
        for i in order:
            fingerprint.update(
                f"{split} {found.classes[found.labels[i]]} ".encode(errors="surrogateescape") + hashes[i]
            )
        if found.votes is not None:
            fingerprint.update(found.votes[order].tobytes())
        parts[split] = Split(
            found.images[order],
            found.labels[order],
            tuple(found.sources[i] for i in order),
            None if found.votes is None else found.votes[order],
        )
    train, val = _needed(found, parts, "train"), _needed(found, parts, "val")
    official = found.name == "fer2013" and _is_official(found.classes, parts)
    name = "fer2013-subset" if found.name == "fer2013" and not official else found.name
    return Dataset(
        name, found.edition, found.classes, train, val, parts["test"], fingerprint.hexdigest(), official, found.notes
    )


def _needed(found: Images, parts: dict[str, Split | None], split: str) -> Split:
    part = parts[split]
    if part is None:
        raise InputError(f"{found.name} ({found.edition}): no {split} image")
    empty = np.flatnonzero(part.counts(len(found.classes)) == 0)
    if split == "train" and len(empty):
        raise InputError(f"{found.name} ({found.edition}): class {found.classes[empty[0]]!r} has no training image")
    return part


def _is_official(classes: tuple[str, ...], parts: dict[str, Split | None]) -> bool:
    return classes == FER2013_CLASSES and all(
        part is not None and tuple(part.counts(len(classes))) == FER2013_COUNTS[name] for name, part in parts.items()
    )


def hold_out(found: Images, shares: dict[str, float], within: npt.NDArray[np.bool_], *, grouped: bool = True) -> Images:
    """The images with a share of each class of those `within` moved to other splits, the same ones every time.

    Args:
        found: the images.
        shares: by the split they move to.
        within: [N] which images may move.
        grouped: keep images with equal pixels together, so that no split holds a twin of another's image.
    """
    splits = found.splits.copy()
    candidates = np.flatnonzero(within)
    keys = digests(found.images[candidates]) if grouped else candidates
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    group_label = found.labels[candidates][first]
    group_size = np.bincount(group)
    random = np.random.Generator(np.random.PCG64(0))
    for label in range(len(found.classes)):
        groups = random.permutation(np.flatnonzero(group_label == label))
        filled = np.cumsum(group_size[groups]) / max(group_size[groups].sum(), 1)
        low = 0.0
        for number, (split, share) in enumerate(shares.items()):
            chosen = groups[(filled > low) & (filled <= low + share)]
            if not len(chosen) and len(groups) > len(shares):
                # of a class too small for its share one stands in every split
                chosen = groups[[-1 - number]]
            splits[candidates[np.isin(group, chosen)]] = SPLITS.index(split)
            low += share
    return replace(found, splits=splits)
