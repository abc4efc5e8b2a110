from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferbench.errors import InputError
from ferbench.evaluation.predictions import Predictions, predictions_of, softmax

GOOD: dict[str, Any] = {
    "split": "val",
    "classes": ("angry", "happy", "sad"),
    "ids": np.array(["val-00000", "val-00001"]),
    "labels": np.array([0, 2], np.uint8),
    "probabilities": np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], np.float32),
}


def write(path: Path, **changes: Any) -> Path:
    np.savez(path, **{k: np.asarray(v) for k, v in {**GOOD, **changes}.items() if v is not None})
    return path


def row(*values: float) -> np.ndarray:
    return np.array([values, [0, 1, 0]], np.float32)


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"ids": np.array(["a"])}, ["1 ids", "3 classes", "labels [2]", "probabilities [2, 3]"]),
        ({"labels": np.array([0], np.uint8)}, ["labels [1]"]),
        ({"labels": np.array([[0], [2]], np.uint8)}, ["labels [2, 1]"]),
        ({"classes": ("angry", "happy")}, ["2 classes"]),
        ({"probabilities": np.ones(2, np.float32)}, ["probabilities [2]"]),
        ({"ids": np.array(["a", "a"])}, ["appears twice"]),
        ({"classes": ("angry", "happy", "angry")}, ["appears twice"]),
        ({"labels": np.array([0, 3], np.uint8)}, ["label 3"]),
        ({"labels": np.array([0, -1])}, ["label -1"]),
        ({"labels": np.array([0, 0.5])}, ["float64", "whole numbers"]),
        ({"labels": np.array([True, False])}, ["bool", "whole numbers"]),
        ({"ids": np.array([["a"], ["b"]])}, ["no texts"]),
        ({"ids": np.array([1, 2])}, ["int64", "no texts"]),
        ({"probabilities": row(0.2, 0.3, 0.5) * (1 + 0j)}, ["complex", "floats"]),
        ({"probabilities": row(0.5, 0.5, 0.5)}, ["val-00000 is no distribution", "1.5"]),
        ({"probabilities": row(1.5, -0.5, 0.0)}, ["val-00000 is no distribution"]),
        ({"probabilities": row(np.nan, 0.5, 0.5)}, ["val-00000 is no distribution", "nan"]),
        ({"probabilities": row(np.inf, 0, 0)}, ["val-00000 is no distribution"]),
        ({"probabilities": row(0.5, 0.4, 0.0989)}, ["val-00000 is no distribution"]),
    ],
)
def test_inconsistent_predictions_are_refused(changes, fragments, tmp_path):
    with pytest.raises(InputError) as caught:
        Predictions(**{**GOOD, **changes})
    message = str(caught.value)
    assert "\n" not in message and message.startswith("predictions on val: ")
    assert all(f in message for f in fragments)
    # and so are such files, with their name
    path = write(tmp_path / "val.npz", **changes)
    with pytest.raises(InputError) as caught:
        Predictions.load(path)
    assert str(caught.value) == f"{path}: {message}"


def test_rounding_is_no_fault():
    Predictions(**{**GOOD, "probabilities": row(0.5, 0.4, 0.0995)})


def test_most_probable_class():
    assert Predictions(**GOOD).predicted.tolist() == [0, 1]
    assert len(Predictions(**GOOD)) == 2


def test_round_trip(tmp_path):
    path = tmp_path / "val.npz"
    first = Predictions(**GOOD)
    path.write_bytes(first.to_bytes())
    second = Predictions.load(path)
    assert (second.split, second.classes) == (first.split, first.classes)
    for name in ("ids", "labels", "probabilities"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.dtype == b.dtype and np.array_equal(a, b)
    assert second.to_bytes() == first.to_bytes()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04", pickle.dumps({"split": "val"})])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "val.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not readable as predictions") as caught:
        Predictions.load(path)
    assert "\n" not in str(caught.value)


def test_damaged_incomplete_and_missing_files_are_refused(tmp_path):
    good = Predictions(**GOOD).to_bytes()
    cut, partial, array = tmp_path / "cut.npz", tmp_path / "partial.npz", tmp_path / "array.npy"
    cut.write_bytes(good[:-30])
    np.savez(partial, split=np.array("val"))
    np.save(array, np.zeros(3))
    for path in (
        cut,
        partial,
        array,
        tmp_path / "missing.npz",
        write(tmp_path / "o.npz", ids=np.array([{}, 1], object)),
    ):
        with pytest.raises(InputError, match="not readable as predictions"):
            Predictions.load(path)


# from logits


def test_softmax_by_hand():
    probabilities = softmax(np.array([[0.0, 0.0], [np.log(3), 0.0], [1000.0, 0.0], [-1000.0, -1000.0]]))
    np.testing.assert_allclose(probabilities, [[0.5, 0.5], [0.75, 0.25], [1, 0], [0.5, 0.5]])
    assert probabilities.dtype == np.float32


def test_softmax_does_not_depend_on_a_shift():
    logits = np.random.default_rng(0).normal(0, 5, (50, 7)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), softmax(logits + 64), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(softmax(logits).sum(1), 1, rtol=1e-6)


def test_predictions_of_logits():
    logits = np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 5.0]], np.float32)
    made = predictions_of("test", ["a", "b", "c"], ["x", "y"], np.array([0, 2], np.uint8), logits)
    assert (made.split, made.classes, made.ids.tolist()) == ("test", ("a", "b", "c"), ["x", "y"])
    assert made.predicted.tolist() == [0, 2]
    with pytest.raises(InputError, match="x is no distribution"):
        predictions_of("test", ["a", "b", "c"], ["x", "y"], np.array([0, 2], np.uint8), logits * np.nan)
