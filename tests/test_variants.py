from __future__ import annotations

import pytest

from ferbench.inputs import load_recipe
from ferbench.variants import differing_fields, variant_label


@pytest.mark.parametrize(
    ("source", "changes", "label"),
    [
        ("plain_cnn", {}, ""),
        ("plain_cnn", {"model.init": "imagenet"}, "imagenet"),
        ("plain_cnn", {"model.input_size": 24, "optimizer.lr": 0.5}, "input_size=24, lr=0.5"),
        ("plain_cnn", {"training.compile": True}, ""),
        ("plain_cnn_fast", {}, "plain_cnn_fast"),
        ("plain_cnn_fast", {"training.compile": True}, "plain_cnn_fast"),
        ("plain_cnn_fast", {"training.growth": 0.5}, "plain_cnn_fast, growth=0.5"),
        ("papers/insideout", {"model.init": "scratch"}, "papers/insideout, scratch"),
        ("timm:resnet26", {}, ""),
    ],
)
def test_label_is_of_the_shipped_recipe_that_is_nearest(source, changes, label):
    recipe = load_recipe(source, overrides=changes)
    assert variant_label(recipe, differing_fields({"": recipe})[""]) == label


def test_recipe_that_is_near_no_shipped_one_has_a_hash():
    changes = {"optimizer.lr": 0.5, "training.growth": 0.5, "augment.erase": 0.5}
    labels = set()
    for source in ("plain_cnn", "plain_cnn_fast"):
        recipe = load_recipe(source, overrides=changes)
        labels.add(variant_label(recipe, differing_fields({"": recipe})[""]))
    assert len(labels) == 2 and all(len(label) == 8 for label in labels)
