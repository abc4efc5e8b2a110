from __future__ import annotations

import pytest

from ferbench.inputs import FROM_SCRATCH, load_budget, load_recipe
from ferbench.variants import changed_fields, differing_fields, variant_label


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
        (
            "plain_cnn_fast",
            {"optimizer.name": "sgd", "schedule.name": "cosine"},
            "plain_cnn_fast, optimizer.name=sgd, schedule.name=cosine",
        ),
        ("papers/insideout", {}, "papers/insideout"),
        ("papers/insideout", {"model.init": "scratch"}, "papers/insideout, scratch"),
        # as they run without ImageNet weights
        ("papers/insideout", FROM_SCRATCH, "papers/insideout, scratch"),
        ("papers/efficientnet_b2", FROM_SCRATCH, "papers/efficientnet_b2, scratch"),
        ("timm:resnet26", {"model.dropout": 0.5}, "dropout=0.5"),
    ],
)
def test_label_is_of_the_nearest_shipped_recipe(source, changes, label):
    recipe = load_recipe(source, overrides=changes)
    assert variant_label(recipe, differing_fields({"": recipe}, load_budget("full"))[""]) == label


def test_recipe_that_is_near_no_shipped_one_has_a_hash():
    changes = {"optimizer.lr": 0.5, "training.growth": 0.5, "augment.erase": 0.5}
    labels = set()
    for source in ("plain_cnn", "plain_cnn_fast", "timm:resnet26"):
        recipe = load_recipe(source, overrides=changes)
        labels.add(variant_label(recipe, differing_fields({"": recipe}, load_budget("full"))[""]))
    # of the two that follow their model's own recipe the same, as that is what they change
    assert len(labels) == 2 and all(len(label) == 8 for label in labels)


def test_strategy_is_a_part_of_the_label_where_it_has_no_column():
    usual = load_recipe("plain_cnn")
    found = {}
    for gamma in (1.0, 3.0):
        for source in ("plain_cnn", "plain_cnn_fast"):
            changes = {"imbalance.params.gamma": gamma, "model.std": 0.3} if source == "plain_cnn" else {}
            recipe = load_recipe(source, strategy="focal", overrides={"imbalance.params.gamma": gamma, **changes})
            found[source, gamma] = variant_label(recipe, changed_fields(recipe, usual), unnamed=())
    assert len(set(found.values())) == 4
    assert found["plain_cnn_fast", 3.0] == "plain_cnn_fast, strategy=focal, gamma=3.0"
