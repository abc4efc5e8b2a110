from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from ferbench.data import Dataset, load
from ferbench.data.assemble import Images, assemble, digests
from ferbench.data.checks import describe
from ferbench.data.dataset import RENAMED_FOLDERS, VAL_WAS_DRAWN
from ferbench.data.protocol import PROTOCOLS, clean_test, divide
from ferbench.errors import InputError
from ferbench.spec import ProtocolName

OFFICIAL, CLEAN = "official", "official-clean"


def faces(pixels: list[int], labels: list[int], splits: list[int], name: str = "faces") -> Dataset:
    """Images of one pixel each, so that equal numbers are twins."""
    n = len(pixels)
    images = np.array(pixels, np.uint8).reshape(n, 1, 1)
    codes = np.array(labels, np.uint8), np.array(splits, np.uint8)
    return assemble(Images(name, "test", ("a", "b"), images, *codes, [f"image {i}" for i in range(n)]))


def pixels(dataset: Dataset) -> dict[str, list[int]]:
    return {name: sorted(split.images.reshape(-1).tolist()) for name, split in dataset.splits()}


# train 1 1 2 2 3 4 5 6, val 3 7 8, test 4 7 9 9; twins 2 carry labels a and b
#
#   of train: one 1 is a copy, both 2 are in conflict, 3 stands in val and 4 in test
#   of val:   7 stands in test
#   of test:  4 and 7 have a twin in train or val; 9 and 9 only one another
@pytest.fixture
def small() -> Dataset:
    labels = [0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0]
    return faces([1, 1, 2, 2, 3, 4, 5, 6, 3, 7, 8, 4, 7, 9, 9], labels, [0] * 8 + [1] * 3 + [2] * 4)


def test_names_are_those_that_records_accept():
    assert PROTOCOLS.names == list(get_args(ProtocolName))


def test_official_is_as_given_and_knows_its_clean_test(small):
    assert divide(small, OFFICIAL) is small
    test = small.test.images.reshape(-1)
    assert dict(zip(test.tolist(), clean_test(small).tolist(), strict=True)) == {4: False, 7: False, 9: True}


def test_clean_by_hand(small):
    clean = divide(small, CLEAN)
    assert pixels(clean) == {"train": [1, 5, 6], "val": [3, 8], "test": [4, 7, 9, 9]}
    assert clean.notes[-1] == (
        "clean: left out of train and val 3 images that stand in a later split too, of train 1 further copies and 2 "
        "images whose copies have different labels"
    )
    # the test images that had a twin are still told apart
    assert clean_test(clean).tolist() == clean_test(small).tolist()
    assert clean.fingerprint != small.fingerprint
    assert clean.name == small.name


def test_oracle_chooses_on_test(small):
    oracle = divide(small, "oracle")
    assert oracle.val is oracle.test is small.test
    assert oracle.train is small.train
    assert "oracle" in oracle.notes[-1]
    # described as it was given: test would count twice
    described, given = describe(oracle), describe(small)
    assert (described.counts, described.images) == (given.counts, given.images)
    assert (described.val_in_train, described.test_in_either) == (1, 2)


@pytest.mark.parametrize("protocol", PROTOCOLS.names)
def test_splits_that_are_drawn_leave_the_data_official(protocol):
    assert divide(replace(many(), official=True), protocol).official
    assert not divide(many(), protocol).official


def many(name: str = "faces") -> Dataset:
    """1,200 images of 256 kinds: most have several twins, of one class."""
    random = np.random.Generator(np.random.PCG64(0))
    kinds = random.integers(0, 256, 1200)
    return faces(kinds.tolist(), (kinds % 2).tolist(), random.choice(3, 1200, p=[0.8, 0.1, 0.1]).tolist(), name)


def shared(dataset: Dataset) -> dict[tuple[str, str], int]:
    """How many kinds of image two splits have in common."""
    kinds = {name: set(digests(split.images)) for name, split in dataset.splits()}
    return {(a, b): len(kinds[a] & kinds[b]) for a, b in (("train", "val"), ("train", "test"), ("val", "test"))}


@pytest.mark.parametrize("name", [n for n in PROTOCOLS.names if n.endswith("-clean")])
def test_clean_has_no_image_on_both_sides_nor_twice_in_train(name):
    clean = divide(many(), name)
    assert set(shared(clean).values()) == {0}
    hashes = digests(clean.train.images)
    assert len(set(hashes)) == len(hashes)


def test_stratified_keeps_equal_images_together_and_shares_by_class():
    before = many()
    after = divide(before, "stratified")
    assert set(shared(after).values()) == {0}
    assert sum(len(s) for _, s in after.splits()) == 1200
    for label in range(2):
        shares = [
            split.counts(2)[label] / sum(s.counts(2)[label] for _, s in before.splits()) for _, split in after.splits()
        ]
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert clean_test(after).all()


def test_stratified_needs_no_test_of_the_files():
    given = many().without_test()
    after = divide(given, "stratified-clean")
    assert after.test is not None
    assert len(after.test) == pytest.approx(0.1 * (len(given.train) + len(given.val)), rel=0.2)


def test_naive_split_leaks_and_says_how_much():
    naive, grouped = divide(many(), "stratified-naive"), divide(many(), "stratified")
    assert min(shared(naive).values()) > 20
    leaked = (~clean_test(naive)).sum()
    assert (
        f"{leaked} of {len(naive.test)} test images have a pixel-identical twin in an earlier split" in naive.notes[-1]
    )
    # the grouped split tells what it has avoided
    assert f"{leaked} of {len(naive.test)} test images would have had a twin" in grouped.notes[-1]


def test_folder_joins_val_and_test_and_takes_its_val_from_train():
    before = many()
    for name in ("folder", "folder-naive"):
        after = divide(before, name)
        assert len(after.test) == len(before.val) + len(before.test)
        assert len(after.val) / len(before.train) == pytest.approx(0.125, abs=0.01)
        assert (shared(after)["train", "val"] == 0) == (name == "folder")


def test_renamed_folders_have_no_official_protocol():
    renamed = replace(many(RENAMED_FOLDERS), notes=(VAL_WAS_DRAWN,))
    for name in (OFFICIAL, CLEAN, "oracle"):
        with pytest.raises(InputError, match="cannot be told apart"):
            divide(renamed, name)
    # their val has been taken from Training: it goes back
    after = divide(renamed, "folder")
    assert len(after.test) == len(renamed.test)
    assert len(after.train) + len(after.val) == len(renamed.train) + len(renamed.val)


def test_errors():
    with pytest.raises(InputError, match=r"unknown protocol 'offical' .did you mean official"):
        divide(many(), "offical")
    with pytest.raises(InputError, match="faces has no test split"):
        divide(many().without_test(), "folder")


def test_same_split_every_time():
    assert divide(many(), "stratified").fingerprint == divide(many(), "stratified").fingerprint
    names = {divide(many(), name).fingerprint for name in PROTOCOLS.names if name != "oracle"}
    assert len(names) == len(PROTOCOLS) - 1


def test_votes_go_with_their_images():
    before = many()
    images = np.concatenate([s.images for _, s in before.splits()])
    # the vote says which image it belongs to
    votes = images.reshape(-1, 1).astype(np.float32)
    splits = np.repeat(np.arange(3, dtype=np.uint8), [len(s) for _, s in before.splits()])
    labels = np.concatenate([s.labels for _, s in before.splits()])
    soft = assemble(Images("faces", "test", ("a", "b"), images, labels, splits, ["?"] * len(labels), votes))
    for name in ("stratified", "folder-clean"):
        for _, split in divide(soft, name).splits():
            assert np.array_equal(split.votes[:, 0], split.images.reshape(-1))


@pytest.mark.parametrize(
    ("name", "sizes", "leaked"),
    [
        ("official", (28709, 3589, 3589), 314),
        ("official-clean", None, 314),
        ("folder", None, None),
        ("stratified", None, 0),
    ],
)
def test_fer2013(name, sizes, leaked, fer2013_file, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    dataset = load(fer2013_file, protocol=name)
    if sizes:
        assert tuple(len(s) for _, s in dataset.splits()) == sizes
    if leaked is not None:
        assert (~clean_test(dataset)).sum() == leaked
    if name == "folder":
        assert len(dataset.test) == 7178
        assert shared(dataset)["train", "val"] == 0
    if name == "official-clean":
        assert set(shared(dataset).values()) == {0}
        assert len(dataset.test) == 3589
