from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ferbench.data import FER2013_CLASSES, load, synthetic
from ferbench.data.checks import describe
from ferbench.data.dataset import FER2013_COUNTS
from ferbench.data.synthetic import SIZES, VERSION, generate
from ferbench.errors import InputError

BYTES = {
    1: {
        0: "314cd0fdee0577f487fa41dab3609b8e202de46822899a4295062fd15a846149",
        5: "ad462bed45cd5bc25155e02e5a05c5c9a693d738290a93df0281eeac24701f85",
    },
}
"""By VERSION and seed: the hash of a small set's images and labels, the same on every machine."""


def content(dataset) -> str:
    digest = hashlib.sha256()
    for _, split in dataset.splits():
        digest.update(split.images.tobytes() + split.labels.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def default():
    return generate()


@pytest.mark.parametrize("seed", [0, 5])
def test_bytes_belong_to_version_and_seed(seed):
    # other bytes need another VERSION, or a cache would go on giving the old ones
    assert content(generate(seed, train=42, val=14, test=14)) == BYTES[VERSION][seed]


def test_the_default_set_belongs_to_its_version(default):
    assert default.fingerprint == {1: "b423d94f50ccdbf6a24e9a635c0a20fb"}[VERSION]


def test_seeds_differ():
    first, second = (
        {image.tobytes() for _, split in generate(seed, 42, 14, 14).splits() for image in split.images}
        for seed in (0, 1)
    )
    assert len(first) == len(second) == 70
    assert not first & second


def test_no_image_is_drawn_twice(default):
    facts = describe(default)
    assert (facts.images, facts.distinct) == (3000, 3000)
    assert sum(facts.blank.values()) == sum(facts.flat.values()) == 0


def test_it_is_not_fer2013(default):
    assert (default.name, default.edition, default.official, default.notes) == ("synthetic", "synthetic", False, ())
    assert default.classes == FER2013_CLASSES


# 300 of 3,589 images in FER2013's shares, cut off to whole numbers: angry 467 / 3589 x 300 = 39.04 in val;
# happy takes what is missing at 300: 74.8 + 4, 73.5 + 3; train before labels go wrong: 603.2 + 4
COUNTS = {
    "train": (333, 36, 342, 606, 403, 265, 415),
    "val": (39, 4, 41, 78, 54, 34, 50),
    "test": (41, 4, 44, 76, 49, 34, 52),
}


def true_labels(dataset) -> dict[str, np.ndarray]:
    """The classes that faces were drawn as: they are drawn class by class, and their sources count them."""
    drawn = np.concatenate([np.repeat(np.arange(7), counts) for counts in COUNTS.values()])
    return {name: drawn[[int(s.split()[1]) for s in split.sources]] for name, split in dataset.splits()}


def test_sizes_and_class_shares_are_fer2013s(default):
    assert {name: len(split) for name, split in default.splits()} == SIZES == {n: sum(c) for n, c in COUNTS.items()}
    assert default.val.counts(7).tolist() == list(COUNTS["val"])
    assert default.test.counts(7).tolist() == list(COUNTS["test"])
    for name, counts in COUNTS.items():
        shares = np.array(FER2013_COUNTS[name]) / sum(FER2013_COUNTS[name])
        np.testing.assert_allclose(np.array(counts) / sum(counts), shares, atol=0.012)


def test_about_one_training_label_in_twenty_is_wrong_and_no_other(default):
    true = true_labels(default)
    wrong = default.train.labels != true["train"]
    # 120 of 2,400 expected; three standard deviations are 32
    assert 88 <= wrong.sum() <= 152
    # the wrong ones are spread over the classes
    assert set(default.train.labels[wrong].tolist()) == set(range(7))
    assert len(set(true["train"][wrong].tolist())) >= 6
    np.testing.assert_array_equal(default.val.labels, true["val"])
    np.testing.assert_array_equal(default.test.labels, true["test"])


def features(split) -> np.ndarray:
    """Means of 2 x 2 pixels at zero mean and unit deviation, and a constant."""
    small = split.images.reshape(-1, 24, 2, 24, 2).mean((2, 4)).reshape(len(split), -1)
    small -= small.mean(1, keepdims=True)
    return np.c_[small / small.std(1, keepdims=True), np.ones(len(split))]


def test_expressions_can_be_learned(default):
    inputs, targets = features(default.train), np.eye(7)[default.train.labels]
    weights = np.linalg.solve(inputs.T @ inputs + 100 * np.eye(inputs.shape[1]), inputs.T @ targets)
    # a linear model has about 60 %, saying happy always 25 %
    assert ((features(default.test) @ weights).argmax(1) == default.test.labels).mean() > 0.5


@pytest.mark.parametrize("n", [7, 8, 20])
def test_small_sets_have_each_class(n):
    dataset = generate(3, train=70, val=n, test=n)
    for split in (dataset.val, dataset.test):
        assert len(split) == n
        assert split.counts(7).min() >= 1


@pytest.fixture
def small(monkeypatch, tmp_path):
    """What `load` draws is small, and cached where no other test finds it."""
    monkeypatch.setattr(synthetic, "SIZES", {"train": 42, "val": 14, "test": 14})
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("asked", "seed"), [("synthetic", 0), ("synthetic:5", 5), (None, 0)])
def test_load_takes_the_seed_from_the_name(asked, seed, small):
    for _ in range(2):
        assert content(load(asked)) == BYTES[VERSION][seed]


@pytest.mark.parametrize("asked", ["synthetic:x", "synthetic:-1", "synthetic:1.5", "synthetic:1:2"])
def test_seed_that_is_none_is_refused(asked, small):
    with pytest.raises(InputError, match="expected synthetic or synthetic:SEED with a whole number"):
        load(asked)
