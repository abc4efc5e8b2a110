from __future__ import annotations

import numpy as np
import pytest

from ferbench.data.assemble import Images, assemble
from ferbench.data.checks import describe


def striped(low: int, high: int) -> np.ndarray:
    """A picture of columns in turn `low` and `high`: its mean is between them, its deviation half their distance."""
    return np.tile(np.array([low, high], np.uint8), (48, 24))


# label, split, picture; A to E stand for pictures of their own
A, B, C, D, E = (striped(0, 10 * i) for i in range(1, 6))
BLACK = striped(0, 0)
NEARLY_FLAT = striped(100, 101)  # a deviation of 0.5
ONE_DOT = BLACK.copy()
ONE_DOT[0, 0] = 1
JUST_NOT_FLAT = striped(100, 102)  # a deviation of 1
IMAGES = [
    ("train", 0, A),
    ("train", 0, A),
    ("train", 1, A),
    ("train", 1, B),
    ("train", 0, C),
    ("train", 0, BLACK),
    ("train", 0, BLACK),
    ("train", 1, NEARLY_FLAT),
    ("train", 1, JUST_NOT_FLAT),
    ("val", 0, A),
    ("val", 1, D),
    ("val", 1, D),
    ("val", 1, BLACK),
    ("val", 0, ONE_DOT),
    ("test", 0, B),
    ("test", 0, D),
    ("test", 0, A),
    ("test", 1, A),
    ("test", 1, E),
]


def data_set(rows, notes=()):
    splits, labels, images = zip(*rows, strict=True)
    codes = np.array([("train", "val", "test").index(s) for s in splits], np.uint8)
    sources = [""] * len(rows)
    return assemble(
        Images(
            "made", "test", ("left", "right"), np.stack(images), np.array(labels, np.uint8), codes, sources, None, notes
        )
    )


@pytest.fixture(scope="module")
def facts():
    return describe(data_set(IMAGES, notes=("made by hand",)))


def test_counts(facts):
    assert facts.counts == {"train": (5, 4), "val": (2, 3), "test": (3, 2)}
    assert facts.images == 19


def test_blank_and_flat_images(facts):
    assert facts.blank == {"train": 2, "val": 1, "test": 0}
    # black images are blank and not counted again
    assert facts.flat == {"train": 1, "val": 1, "test": 0}


def test_duplicates(facts):
    # A B C D E, black, nearly flat, just not flat, one dot
    assert facts.distinct == 9
    # A (6), B (2), D (3), black (3)
    assert facts.groups == 4
    # A has 0 and 1, B 1 and 0, D 1 and 0, black 0 and 1; all four reach across splits
    assert facts.groups_with_labels == 4
    assert facts.groups_across == 4


def test_groups_within_one_split_or_label_do_not_count_as_mixed():
    twins = [
        ("train", 0, A),
        ("train", 0, A),
        ("train", 1, B),
        ("train", 0, B),
        ("train", 1, C),
        ("val", 1, C),
        ("val", 0, E),
    ]
    facts = describe(data_set(twins))
    assert (facts.groups, facts.groups_with_labels, facts.groups_across) == (3, 1, 1)


def test_twins(facts):
    # A and black
    assert facts.val_in_train == 2
    # B, A and A again; D stands in val
    assert facts.test_in_train == 3
    assert facts.test_in_either == 4


def test_mean_and_deviation_of_the_training_pixels(facts):
    pixels = np.concatenate([image.reshape(-1) for split, _, image in IMAGES if split == "train"]) / 255
    assert facts.train_mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert facts.train_std == pytest.approx(pixels.std(), rel=1e-12)
    # by hand: nine pictures with means 5 5 5 10 15 0 0 100.5 101
    assert facts.train_mean == pytest.approx(241.5 / 9 / 255)


def test_lines_say_it(facts):
    text = "\n".join(facts.to_lines())
    assert "data set     made (not the official FER2013)" in text
    assert "left         5        2        3" in text
    assert "total        9        5        5" in text
    assert "blank        2 in train, 1 in val, 0 in test" in text
    assert "nearly flat  1 in train, 1 in val, 0 in test" in text
    assert (
        "9 distinct of 19; 10 redundant copies in 4 groups; 4 groups with more than one label; 4 across splits" in text
    )
    assert "2 val images in train; 3 test images in train, 4 in train or val; clean test: 1" in text
    assert text.endswith("note         made by hand")


def test_without_test_nothing_is_said_about_it():
    facts = describe(data_set([row for row in IMAGES if row[0] != "test"]))
    assert (facts.test_in_train, facts.test_in_either) == (0, 0)
    assert "clean test" not in "\n".join(facts.to_lines())
    assert set(facts.counts) == {"train", "val"}
