"""The same images in every form are the same data set."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ferbench.data import FER2013_CLASSES

EDITIONS = ("competition-csv", "icml-csv", "folders", "parquet")
PACKINGS = ("plain", "gz", "zip", "tar", "tar.gz")
# a folder cannot be compressed without being packed first
FORMS = [(e, p) for e in EDITIONS for p in PACKINGS if (e, p) != ("folders", "gz")]


@pytest.fixture(scope="session")
def reference(editions, read):
    return read(editions["competition-csv"])


def packed(packing, path, write, folder):
    return path if packing == "plain" else write.pack(packing, path, folder / "thing.jpg")


@pytest.mark.parametrize(("edition", "packing"), FORMS)
def test_every_form_is_the_same_data_set(edition, packing, editions, expected, reference, write, read, tmp_path):
    dataset = read(packed(packing, editions[edition], write, tmp_path))
    assert dataset.edition == edition
    assert (dataset.name, dataset.classes) == ("fer2013-subset", FER2013_CLASSES)
    assert (dataset.official, dataset.notes) == (False, ())
    for name, split in dataset.splits():
        rows = expected[name]
        np.testing.assert_array_equal(split.images, np.stack([r.image for r in rows]))
        np.testing.assert_array_equal(split.labels, [r.label for r in rows])
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert split.votes is None
        assert len(split.sources) == len(rows)
    assert dataset.fingerprint == reference.fingerprint


def test_the_rows_are_what_they_are_said_to_be(expected):
    # 28 + 14 + 14 faces; a twin in test, a twin with another label and a black image in train
    assert {split: len(rows) for split, rows in expected.items()} == {"train": 30, "val": 14, "test": 15}
    assert all({r.label for r in rows} == set(range(7)) for rows in expected.values())


@pytest.mark.parametrize(
    ("edition", "packing"), [("competition-csv", "tar.gz"), ("icml-csv", "plain"), ("parquet", "gz")]
)
def test_sources_lead_back_to_the_row(edition, packing, editions, rows, write, read, tmp_path):
    dataset = read(packed(packing, editions[edition], write, tmp_path))
    for _, split in dataset.splits():
        for image, label, source in zip(split.images, split.labels, split.sources, strict=True):
            row = rows[int(re.search(r" row (\d+)", source)[1]) - 1]
            np.testing.assert_array_equal(row.image, image)
            assert row.label == label


@pytest.mark.parametrize("packing", ["plain", "zip"])
def test_sources_lead_back_to_the_file(packing, editions, write, read, tmp_path):
    from PIL import Image

    dataset = read(packed(packing, editions["folders"], write, tmp_path))
    for _, split in dataset.splits():
        for image, source in zip(split.images, split.sources, strict=True):
            file = editions["folders"] / source.removeprefix("archive/")
            np.testing.assert_array_equal(np.asarray(Image.open(file)), image)


def test_order_of_the_rows_does_not_matter(rows, reference, write, read, tmp_path):
    path = tmp_path / "backwards.csv"
    path.write_bytes(write.csv(rows[::-1]))
    assert read(path).fingerprint == reference.fingerprint


def changed(rows, i, **changes):
    return [*rows[:i], rows[i]._replace(**changes), *rows[i + 1 :]]


@pytest.mark.parametrize("what", ["pixel", "label", "usage", "left out"])
def test_every_image_counts(what, few, write, read, tmp_path):
    # the last of the few stands in test
    image = few[-1].image.copy()
    image[47, 47] ^= 1
    other = {
        "pixel": changed(few, len(few) - 1, image=image),
        "label": changed(few, len(few) - 1, label=(few[-1].label + 1) % 7),
        "usage": changed(few, len(few) - 1, usage="PublicTest"),
        "left out": few[:-1],
    }[what]
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, content in zip(paths, (few, other), strict=True):
        path.write_bytes(write.csv(content))
    assert read(paths[0]).fingerprint != read(paths[1]).fingerprint
