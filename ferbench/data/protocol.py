"""How a data set is used: PROTOCOLS says which images are train, val and test; and what a budget may learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from ferbench.data.assemble import Images, assemble, digests, hold_out
from ferbench.data.dataset import RENAMED_FOLDERS, SPLITS, VAL_WAS_DRAWN, Dataset, Split
from ferbench.errors import InputError
from ferbench.registry import Registry

_TRAIN, _VAL, _TEST = range(3)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Protocol:
    """One way of using a data set."""

    name: str
    """Key in recipes, records and tables."""
    title: str
    """What it does, a clause after "Protocol NAME:"; Training, PublicTest and PrivateTest are FER2013's splits."""
    divide: Callable[[Dataset], Dataset]
    """The data set as its files give it -> under this protocol."""

    @property
    def is_of_the_contest(self) -> bool:
        """Whether PrivateTest alone is the test."""
        return self.name in ("official", "official-clean", "oracle")

    @property
    def draws_test(self) -> bool:
        """Whether the files need no test split."""
        return self.name.startswith("stratified")


def divide(dataset: Dataset, protocol: str) -> Dataset:
    """A data set under a protocol.

    Raises:
        InputError: the protocol is unknown, or the data set does not have the splits it needs.
    """
    row = PROTOCOLS[protocol]
    if dataset.name == RENAMED_FOLDERS and row.is_of_the_contest:
        raise InputError(
            f"protocol {protocol}: the files are renamed, so PublicTest and PrivateTest cannot be told apart "
            "(--protocol folder)"
        )
    if dataset.test is None and not row.draws_test:
        raise InputError(f"{dataset.name} has no test split: nothing could be reported")
    return row.divide(dataset)


def clean_test(dataset: Dataset) -> Mask:
    """[N] whether a test image has no pixel-identical twin in train or val.

    Under a clean protocol: whether it had none before the twins were taken out of train and val.
    """
    assert dataset.test is not None
    twins = dataset.twins
    if twins is None:
        twins = np.concatenate([digests(dataset.train.images), digests(dataset.val.images)])
    return ~np.isin(digests(dataset.test.images), twins)


def _as_given(dataset: Dataset) -> Dataset:
    return dataset


def _chosen_on_test(dataset: Dataset) -> Dataset:
    assert dataset.test is not None
    note = "oracle: the epoch is chosen on the test images themselves"
    return replace(dataset, val=dataset.test, honest=dataset.val, notes=(*dataset.notes, note))


def _official_clean(dataset: Dataset) -> Dataset:
    return _cleaned(_pooled(dataset), dataset)


def _folder(dataset: Dataset, *, grouped: bool = True, clean: bool = False) -> Dataset:
    pool = _pooled(dataset)
    # a val that was drawn from train goes back to it
    is_test = pool.splits > (_VAL if VAL_WAS_DRAWN in dataset.notes else _TRAIN)
    mixed = replace(pool, splits=np.where(is_test, _TEST, _TRAIN).astype(np.uint8))
    return _drawn(mixed, {"val": 0.125}, dataset, grouped, clean)


def _stratified(dataset: Dataset, *, grouped: bool = True, clean: bool = False) -> Dataset:
    pool = _pooled(dataset)
    return _drawn(replace(pool, splits=pool.splits * 0), {"val": 0.1, "test": 0.1}, dataset, grouped, clean)


def _drawn(pool: Images, shares: dict[str, float], given: Dataset, grouped: bool, clean: bool) -> Dataset:
    """The data set with shares drawn from train, and a note of what drawing image by image leaks."""
    within = pool.splits == _TRAIN
    naive = hold_out(pool, shares, within, grouped=False)
    leaks = " and ".join(_leak(naive, SPLITS.index(split)) for split in shares)
    if not grouped:
        note = f"drawn image by image: {leaks} have a pixel-identical twin in an earlier split"
        return _assembled(naive, given, note)
    note = f"images with equal pixels were kept together; one by one, {leaks} would have had a twin in an earlier split"
    drawn = hold_out(pool, shares, within)
    return _cleaned(drawn, given, note) if clean else _assembled(drawn, given, note)


def _leak(found: Images, split: int) -> str:
    hashes = digests(found.images)
    leaked = np.isin(hashes[found.splits == split], hashes[found.splits < split])
    return f"{leaked.sum():,} of {len(leaked):,} {SPLITS[split]} images"


def _cleaned(found: Images, given: Dataset, *notes: str) -> Dataset:
    """No image of train or val that stands in a later split too; of train no second copy and no label conflict."""
    hashes, splits = digests(found.images), found.splits
    straddles = np.zeros(len(hashes), bool)
    for split in (_TRAIN, _VAL):
        straddles |= (splits == split) & np.isin(hashes, hashes[splits > split])
    train = np.flatnonzero((splits == _TRAIN) & ~straddles)
    _, first, group = np.unique(hashes[train], return_index=True, return_inverse=True)
    pairs = np.unique(np.stack([group, found.labels[train]]), axis=1)
    conflicts = (np.bincount(pairs[0]) > 1)[group]
    copies = ~np.isin(np.arange(len(train)), first) & ~conflicts
    keep = ~straddles
    keep[train[conflicts | copies]] = False
    note = (
        f"clean: left out of train and val {straddles.sum():,} images that stand in a later split too, of train "
        f"{copies.sum():,} further copies and {conflicts.sum():,} images whose copies have different labels"
    )
    twins = hashes[splits < _TEST]
    return replace(_assembled(found.take(np.flatnonzero(keep)), given, *notes, note), twins=twins)


def _pooled(dataset: Dataset) -> Images:
    """The images of all splits as if just read."""
    parts = [split for _, split in dataset.splits()]
    votes = [p.votes for p in parts if p.votes is not None]
    return Images(
        name=dataset.name,
        edition=dataset.edition,
        classes=dataset.classes,
        images=np.concatenate([p.images for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
        splits=np.repeat(np.arange(len(parts)), [len(p) for p in parts]).astype(np.uint8),
        sources=[s for p in parts for s in p.sources],
        votes=np.concatenate(votes) if votes else None,
        notes=dataset.notes,
    )


def _assembled(found: Images, given: Dataset, *notes: str) -> Dataset:
    dataset = assemble(found)
    return replace(dataset, name=given.name, official=given.official, notes=(*given.notes, *notes))


_OFFICIAL = "trained on Training; the epoch is chosen on PublicTest (val); PrivateTest (test) is looked at once per run"
_ORACLE = "trained on Training; the epoch is chosen on PrivateTest, the test itself, so that the score is too good"
_FOLDER = (
    "trained and the epoch chosen on Training (87.5 and 12.5 % of each class{how}); PublicTest and PrivateTest are "
    "the test"
)
_STRATIFIED = "train, val and test are 80, 10 and 10 % of each class of all images{how}"
_GROUPED = ", images with equal pixels together"
_NAIVE = ", drawn image by image: twins stand on both sides"
_CLEAN = (
    "; nothing in train or val has a twin in a later split, and train holds no image twice and none with two labels"
)

PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    [
        Protocol("official", _OFFICIAL, _as_given),
        Protocol("official-clean", "as official" + _CLEAN, _official_clean),
        Protocol("folder", _FOLDER.format(how=_GROUPED), _folder),
        Protocol("folder-clean", _FOLDER.format(how=_GROUPED) + _CLEAN, partial(_folder, clean=True)),
        Protocol("folder-naive", _FOLDER.format(how=_NAIVE), partial(_folder, grouped=False)),
        Protocol("stratified", _STRATIFIED.format(how=_GROUPED), _stratified),
        Protocol("stratified-clean", _STRATIFIED.format(how=_GROUPED) + _CLEAN, partial(_stratified, clean=True)),
        Protocol("stratified-naive", _STRATIFIED.format(how=_NAIVE), partial(_stratified, grouped=False)),
        Protocol("oracle", _ORACLE, _chosen_on_test),
    ],
)


def training_subset(split: Split, fraction: float) -> Split:
    """A share of each class's images, at least one of each, in canonical order.

    The choice is the same for every model and seed, and a smaller share is contained in a larger one.
    """
    if fraction >= 1:
        return split
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(split))
    codes, counts = np.unique(split.labels, return_counts=True)
    chosen = [
        shuffled[split.labels[shuffled] == code][:n]
        for code, n in zip(codes, subset_counts(counts, fraction), strict=True)
    ]
    return split.take(np.sort(np.concatenate(chosen)))


def subset_counts(counts: npt.NDArray[np.integer], fraction: float) -> npt.NDArray[np.int64]:
    """[K] images of each class in that share of [K] images, at least one where there are any."""
    return np.ceil(fraction * counts).astype(np.int64)
