"""The real FER2013: FERBENCH_TEST_FER2013=fer2013.parquet. Its numbers were counted apart from this project."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ferbench.data import FER2013_CLASSES, load
from ferbench.data.checks import describe

USAGES = ("Training", "PublicTest", "PrivateTest")


@pytest.fixture(scope="module")
def facts(fer2013_file, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return describe(load(fer2013_file))


def test_it_is_the_official_data_set(facts):
    dataset = facts.dataset
    assert (dataset.name, dataset.edition, dataset.official, dataset.notes) == ("fer2013", "parquet", True, ())
    assert dataset.classes == FER2013_CLASSES
    assert facts.counts == {
        "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
        "val": (467, 56, 496, 895, 653, 415, 607),
        "test": (491, 55, 528, 879, 594, 416, 626),
    }


def test_duplicates(facts):
    assert (facts.images, facts.distinct, facts.images - facts.distinct) == (35887, 34034, 1853)
    assert (facts.groups, facts.groups_with_labels, facts.groups_across) == (1516, 57, 557)


def test_twins_across_splits(facts):
    assert (facts.val_in_train, facts.test_in_train, facts.test_in_either) == (280, 288, 314)
    assert "clean test: 3,275" in "\n".join(facts.to_lines())


def test_blank_images(facts):
    assert facts.blank == {"train": 11, "val": 1, "test": 0}
    assert facts.flat == {"train": 1, "val": 0, "test": 0}


def test_training_pixels(facts):
    assert round(facts.train_mean, 4) == 0.5077
    assert round(facts.train_std, 4) == 0.2551


def test_sources_name_the_files(facts):
    for (_, split), usage in zip(facts.dataset.splits(), USAGES, strict=True):
        assert all(f"({usage}_" in source for source in split.sources)


@pytest.fixture(scope="module")
def sample(fer2013_file, write):
    """Rows, and the JPEG files' own bytes, of two images of each class and usage."""
    import pyarrow.parquet as pq

    table = pq.read_table(fer2013_file)
    labels, usages = table["emotion"].to_numpy(), np.array(table["usage"].to_pylist())
    chosen = [i for c in range(7) for u in USAGES for i in np.flatnonzero((labels == c) & (usages == u))[:2]]
    files = [cell["bytes"] for cell in table["image"].take(chosen).to_pylist()]
    images = [np.asarray(Image.open(io.BytesIO(file)).convert("L")) for file in files]
    return [write.row(int(labels[i]), str(usages[i]), image) for i, image in zip(chosen, images, strict=True)], files


def test_every_edition_of_a_sample_is_the_same_data_set(sample, write, read, tmp_path):
    rows, files = sample
    (tmp_path / "competition").write_bytes(write.csv(rows))
    (tmp_path / "icml").write_bytes(write.csv(rows, write.columns.icml))
    (tmp_path / "table").write_bytes(write.parquet(rows))
    write.folders(tmp_path / "png", rows)
    for i, (row, content) in enumerate(zip(rows, files, strict=True)):
        folder = tmp_path / "jpeg" / ("train" if row.usage == "Training" else "test") / FER2013_CLASSES[row.label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row.usage}_{i}.jpg").write_bytes(content)
    found = {path.name: read(path) for path in tmp_path.iterdir()}
    assert {name: d.edition for name, d in found.items()} == {
        "competition": "competition-csv", "icml": "icml-csv", "table": "parquet", "png": "folders", "jpeg": "folders",
    }  # fmt: skip
    assert len({d.fingerprint for d in found.values()}) == 1
    for dataset in found.values():
        assert [split.counts(7).tolist() for _, split in dataset.splits()] == [[2] * 7] * 3
        assert (dataset.name, dataset.official) == ("fer2013-subset", False)
