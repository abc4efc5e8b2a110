from __future__ import annotations

from itertools import pairwise
from math import ceil

import numpy as np
import pytest

from ferbench.data.dataset import FER2013_COUNTS, Split
from ferbench.data.protocol import training_subset

COUNTS = (200, 30, 3, 1)


@pytest.fixture
def split() -> Split:
    labels = np.random.Generator(np.random.PCG64(3)).permutation(np.repeat(np.arange(4), COUNTS)).astype(np.uint8)
    n = len(labels)
    numbered = np.arange(n).reshape(n, 1, 1).astype(np.uint8)
    return Split(numbered, labels, tuple(map(str, range(n))), np.arange(n, dtype=np.float32)[:, None])


def members(split: Split) -> list[int]:
    return [int(s) for s in split.sources]


@pytest.mark.parametrize(
    ("fraction", "counts"),
    [
        (0.5, (100, 15, 2, 1)),
        (0.25, (50, 8, 1, 1)),
        (0.1, (20, 3, 1, 1)),
        (0.001, (1, 1, 1, 1)),
        (0.999, (200, 30, 3, 1)),
    ],
)
def test_share_of_each_class_and_at_least_one(fraction, counts, split):
    assert training_subset(split, fraction).counts(4).tolist() == list(counts)


@pytest.mark.parametrize("fraction", [1, 1.0])
def test_everything_is_the_split_itself(fraction, split):
    assert training_subset(split, fraction) is split


def test_smaller_shares_are_contained_in_larger_ones(split):
    parts = [set(members(training_subset(split, f))) for f in (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)]
    for smaller, larger in pairwise(parts):
        assert smaller < larger


def test_subset_is_in_canonical_order_and_whole(split):
    part = training_subset(split, 0.3)
    index = members(part)
    assert index == sorted(set(index))
    np.testing.assert_array_equal(part.labels, split.labels[index])
    np.testing.assert_array_equal(part.images, split.images[index])
    np.testing.assert_array_equal(part.votes, split.votes[index])


def test_subset_is_the_same_every_time_and_no_run_of_neighbours(split):
    first = members(training_subset(split, 0.1))
    assert first == members(training_subset(split, 0.1))
    of_class_0 = np.flatnonzero(split.labels == 0)
    chosen = np.searchsorted(of_class_0, [i for i in first if split.labels[i] == 0])
    assert chosen.max() - chosen.min() > 100


def test_quarter_of_fer2013():
    counts = FER2013_COUNTS["train"]
    labels = np.repeat(np.arange(7), counts).astype(np.uint8)
    whole = Split(np.zeros((len(labels), 1, 1), np.uint8), labels, ("",) * len(labels))
    # 3995/4 = 998.75, 436/4 = 109, ...
    assert training_subset(whole, 0.25).counts(7).tolist() == [999, 109, 1025, 1804, 1208, 793, 1242]
    assert [ceil(c / 4) for c in counts] == [999, 109, 1025, 1804, 1208, 793, 1242]
