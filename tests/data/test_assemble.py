from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ferbench.data.assemble import Images, assemble, digests, hold_out
from ferbench.data.dataset import FER2013_CLASSES, FER2013_COUNTS, Split, image_ids
from ferbench.errors import InputError


def dots(levels) -> np.ndarray:
    """Pictures of 2 x 2 pixels, `[N, 2, 2]`, of one grey level each."""
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None], (len(levels), 2, 2))


def found(levels, labels, splits, name="dots", classes=("a", "b")) -> Images:
    sources = [f"row {i}" for i in range(len(levels))]
    return Images(name, "test", classes, dots(levels), np.array(labels, np.uint8), np.array(splits, np.uint8), sources)


def test_digest_tells_pixels_apart_and_nothing_else():
    images = np.stack([np.arange(4).reshape(2, 2), np.arange(4).reshape(2, 2).T, np.arange(4).reshape(2, 2)])
    first, turned, again = digests(images.astype(np.uint8))
    assert first == again != turned
    assert digests(np.zeros((1, 4, 4), np.uint8)).dtype == np.dtype("S32")
    # a view with strides has the hash of its pixels
    assert digests(images.astype(np.uint8).transpose(0, 2, 1))[1] == first


def test_order_is_by_pixels_then_label():
    dataset = assemble(found([9, 5, 5, 7, 5, 3], [0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]))
    levels = dataset.train.images[:, 0, 0].tolist()
    # by their hashes, whatever order that is; equal pictures stand together, the lower label first
    by_hash = sorted((9, 5, 7), key=lambda level: digests(dots([level]))[0])
    assert levels == [level for level in by_hash for _ in range(3 if level == 5 else 1)]
    at = levels.index(5)
    assert dataset.train.labels[at : at + 3].tolist() == [0, 0, 1]
    # twins with equal labels keep the order of the files
    assert dataset.train.sources[at : at + 3] == ("row 2", "row 4", "row 1")


def test_fingerprint_is_over_split_class_and_pixels():
    rows = ([1, 2, 3, 4], [0, 1, 0, 1], [0, 0, 1, 2])
    base = assemble(found(*rows)).fingerprint
    order = [2, 0, 3, 1]
    assert assemble(found(*([part[i] for i in order] for part in rows))).fingerprint == base
    assert assemble(replace(found(*rows), name="x", edition="y", sources=["z"] * 4, notes=("n",))).fingerprint == base
    others = [
        found([1, 2, 3, 5], *rows[1:]),
        found(rows[0], [0, 1, 1, 1], rows[2]),
        found(*rows[:2], [0, 0, 2, 1]),
        found(*rows, classes=("a", "c")),
        found([1, 1, 2, 3, 4], [0, 0, 1, 0, 1], [0, 0, 0, 1, 2]),
        replace(found(*rows), votes=np.full((4, 2), 0.5, np.float32)),
        replace(found(*rows), images=dots(rows[0]).reshape(4, 4, 1)),
    ]
    prints = [assemble(other).fingerprint for other in others]
    assert len({base, *prints}) == len(prints) + 1
    # by name, not by code: the same images under classes in another order
    swapped = found(rows[0], [1, 0, 1, 0], rows[2], classes=("b", "a"))
    assert assemble(swapped).classes == ("b", "a")


def test_votes_go_with_their_images():
    votes = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], np.float32)
    dataset = assemble(replace(found([1, 2, 3, 4], [0, 1, 0, 1], [0, 0, 1, 2]), votes=votes))
    for _, split in dataset.splits():
        np.testing.assert_array_equal(split.votes, votes[split.images[:, 0, 0] - 1])


@pytest.mark.parametrize(
    ("labels", "splits", "reason"),
    [
        ([0, 1, 0], [1, 1, 2], "dots (test): no train image"),
        ([0, 1, 0], [0, 0, 2], "dots (test): no val image"),
        ([0, 0, 1], [0, 0, 1], "dots (test): class 'b' has no training image"),
    ],
)
def test_missing_images_are_refused(labels, splits, reason):
    with pytest.raises(InputError) as caught:
        assemble(found([1, 2, 3], labels, splits))
    assert str(caught.value) == reason


def test_class_may_be_missing_from_val_and_test():
    dataset = assemble(found([1, 2, 3, 4], [0, 1, 0, 0], [0, 0, 1, 2]))
    assert dataset.val.counts(2).tolist() == dataset.test.counts(2).tolist() == [1, 0]


def fer2013(change=None, name="fer2013", classes=FER2013_CLASSES) -> Images:
    """Pictures of one pixel in FER2013's counts; `change` is (split, from class, to class) of one image."""
    labels, splits = [], []
    for code, (split, official) in enumerate(FER2013_COUNTS.items()):
        counts = np.array(official)
        if change and change[0] == split:
            counts[list(change[1:])] += (-1, 1)
        labels.append(np.repeat(np.arange(7), counts))
        splits.append(np.full(counts.sum(), code))
    labels, splits = (np.concatenate(parts).astype(np.uint8) for parts in (labels, splits))
    return Images(name, "test", classes, np.zeros((len(labels), 1, 1), np.uint8), labels, splits, [""] * len(labels))


def test_published_counts_are_official():
    dataset = assemble(fer2013())
    assert (dataset.name, dataset.official) == ("fer2013", True)
    assert [len(s) for _, s in dataset.splits()] == [28709, 3589, 3589]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_label_more_or_less_is_not_official(split):
    dataset = assemble(fer2013((split, 3, 6)))
    assert (dataset.name, dataset.official) == ("fer2013-subset", False)


def test_other_data_with_fer2013s_counts_are_not_official():
    dataset = assemble(fer2013(name="faces"))
    assert (dataset.name, dataset.official) == ("faces", False)
    assert not assemble(fer2013(classes=tuple("abcdefg"))).official


def test_hold_out_moves_whole_groups_in_the_asked_shares():
    # 40 pictures of class 0 twice each, 20 of class 1, and 10 test images that may not move
    levels = [*range(40), *range(40), *range(100, 120), *range(200, 210)]
    labels = [0] * 80 + [1] * 30
    splits = [0] * 100 + [2] * 10
    before = found(levels, labels, splits)
    after = hold_out(before, {"val": 0.1, "test": 0.2}, before.splits == 0)
    assert before.splits.tolist() == splits
    counts = np.array([[((after.labels == c) & (after.splits == s)).sum() for s in range(3)] for c in (0, 1)])
    # class 0: 70, 10 and 20 % of 80; class 1: of 20, and the ten that were in test already
    assert counts.tolist() == [[56, 8, 16], [14, 2, 14]]
    assert (after.splits[100:] == 2).all()
    np.testing.assert_array_equal(after.splits[:40], after.splits[40:80])
    np.testing.assert_array_equal(hold_out(before, {"val": 0.1, "test": 0.2}, before.splits == 0).splits, after.splits)


@pytest.mark.parametrize(("n", "counts"), [(2, [2, 0, 0]), (3, [1, 1, 1]), (9, [7, 1, 1]), (10, [8, 1, 1])])
def test_hold_out_leaves_no_split_without_a_small_class(n, counts):
    before = found([*range(100), *range(100, 100 + n)], [0] * 100 + [1] * n, [0] * (100 + n))
    after = hold_out(before, {"val": 0.1, "test": 0.1}, before.splits == 0)
    assert np.bincount(after.splits[100:], minlength=3).tolist() == counts


def test_split_and_data_set():
    dataset = assemble(found([1, 2, 3, 4], [0, 1, 0, 1], [0, 0, 1, 2]))
    assert image_ids("train", len(dataset.train)) == ["train-00000", "train-00001"]
    assert dataset.without_test().test is None
    assert [name for name, _ in dataset.without_test().splits()] == ["train", "val"]
    split = Split(dots([5, 6, 7]), np.array([0, 1, 1], np.uint8), ("x", "y", "z"), np.eye(3, dtype=np.float32))
    part = split.take(np.array([2, 0]))
    assert (len(part), part.images[:, 0, 0].tolist(), part.labels.tolist()) == (2, [7, 5], [1, 0])
    assert part.sources == ("z", "x")
    assert part.votes.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert split.counts(4).tolist() == [1, 2, 0, 0]
