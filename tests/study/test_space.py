"""Study files and the spaces in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.models import MAIN_MODELS
from ferbench.study.space import Space, load_study, study_names


def space_of(path: Path) -> Space:
    model, file = load_study(str(path))
    return Space(load_recipe(model), file.space, "study plain_cnn")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plain_cnn.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", study_names())
def test_shipped_spaces_hold_their_baseline(name):
    model, file = load_study("timm:convnext_atto" if name == "timm" else name)
    space = Space(load_recipe(model), file.space, name)
    assert space.recipe(space.start) == space.baseline == load_recipe(model)
    assert file.limit.unit == "trials" and file.limit.amount >= 25


def test_every_main_model_has_a_study():
    assert set(MAIN_MODELS) <= set(study_names())


def test_file_over_defaults(study_file):
    model, file = load_study(str(study_file))
    assert model == "plain_cnn"
    # its own, and what it says nothing of
    assert (file.sampler.startup_trials, file.sampler.name) == (4, "tpe")
    assert list(file.space) == ["optimizer.name", "optimizer.lr", "optimizer.beta2", "training.label_smoothing"]


def test_conditional_field_counts_only_where_its_condition_holds(study_file):
    space = space_of(study_file)
    asked = []

    def suggest(name, dimension):
        asked.append(name)
        return {"optimizer.name": "sgd", "optimizer.lr": 0.02}.get(name, 0.1)

    params = space.walk(suggest)
    assert "optimizer.beta2" not in asked
    recipe = space.recipe(params)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.training.label_smoothing) == ("sgd", 0.02, 0.1)
    # what does not count keeps the baseline's value
    assert recipe.optimizer.beta2 == load_recipe("plain_cnn").optimizer.beta2
    assert space.start["optimizer.beta2"] == 0.999


def test_strategy_with_its_own_knobs(tmp_path):
    text = """[space]
"imbalance.strategy" = { choices = ["none", "logit_adjusted", "focal"] }
"imbalance.params.tau" = { low = 0.1, high = 2.0, when = { "imbalance.strategy" = ["logit_adjusted"] } }
"imbalance.params.gamma" = { low = 0.5, high = 3.0, when = { "imbalance.strategy" = ["focal"] } }
"""
    space = space_of(written(tmp_path, text))
    assert space.start == {"imbalance.strategy": "none"}
    recipe = space.recipe({"imbalance.strategy": "focal", "imbalance.params.gamma": 2.5})
    assert recipe.imbalance.params == {"gamma": 2.5}
    # without a value of its own a knob has its strategy's
    assert space.recipe({"imbalance.strategy": "logit_adjusted"}).imbalance.params == {"tau": 1.0}


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("", ["plain_cnn.toml", "no [space]"]),
        ("[space]\n'optimiser.lr' = {low = 1.0, high = 2.0}", ["'optimiser.lr'", "did you mean optimizer.lr"]),
        ("[space]\n'lr' = {low = 1e-4, high = 2e-3}", ["unknown field 'lr'"]),
        ("[space]\n'optimizer.lr' = 3", ["space.optimizer.lr = 3", "a table"]),
        (
            "[space]\n'optimizer.lr' = {low = 1e-3, high = 0.1, hihg = 0.2}",
            ['space."optimizer.lr"', "'hihg'", "did you mean high"],
        ),
        ("[space]\n'optimizer.lr' = {low = 0.1, high = 0.01}", ["the range from low = 0.1 to high = 0.01 is empty"]),
        ("[space]\n'optimizer.lr' = {low = 0.1, high = 0.1}", ["is empty"]),
        ("[space]\n'optimizer.lr' = {low = 0.0, high = 0.1, log = true}", ["low = 0.0", "begins above 0"]),
        ("[space]\n'optimizer.lr' = {low = 0.01, high = 0.1}", ["baseline's optimizer.lr = 0.002 lies outside 0.01"]),
        ("[space]\n'optimizer.name' = {choices = ['sgd', 'muon']}", ["baseline's optimizer.name", "'adamw'", "'sgd'"]),
        ("[space]\n'optimizer.name' = {choices = ['adamw']}", ["at least two"]),
        ("[space]\n'optimizer.name' = {choices = ['adamw', 'adam']}", ["optimizer.name = 'adam'"]),
        ("[space]\n'model.dropout' = {low = 0.0, high = 1.5}", ["model.dropout = 1.5"]),
        ("[space]\n'training.batch_size' = {low = 32, high = 100.5}", ["100.5", "whole number"]),
        ("[space]\n'training.batch_size' = {choices = [64, true]}", ["True", "whole number"]),
        ("[space]\n'model.name' = {choices = ['plain_cnn', 'vgg16']}", ["one model"]),
        ("[space]\n'imbalance.params.tua' = {low = 0.1, high = 1.0}", ["'tua'", "tau"]),
        ("[space]\n'imbalance.params.tau' = {low = 0.1, high = 1.0}", ["the baseline has no such field"]),
        ("[space]\n'imbalance.strategy' = {choices = ['none', 'posthoc_class_bias']}", ["finished run"]),
        (
            "[space]\n'optimizer.lr' = {low = 1e-4, high = 0.1, when = {'optimizer.name' = ['sgd']}}",
            ["'optimizer.name' is no field with choices above"],
        ),
        (
            "[space]\n'optimizer.name' = {choices = ['adamw', 'sgd']}\n"
            "'optimizer.lr' = {low = 1e-4, high = 0.1, when = {'optimizer.name' = []}}",
            ["when.optimizer.name = []: at least one"],
        ),
        ("seed = -1\n[space]\n'optimizer.lr' = {low = 1e-3, high = 0.1}", ["seed = -1"]),
        (
            "[space]\n'optimizer.name' = {choices = ['adamw', 'sgd']}\n"
            "'optimizer.lr' = {low = 1e-4, high = 0.1, when = {'optimizer.name' = ['sdg']}}",
            ["when.optimizer.name: 'sdg' is none of the choices"],
        ),
        ("objectives = ['loss']\n[space]\n'optimizer.lr' = {low = 1e-3, high = 0.1}", ["'loss'", "accuracy, macro_f1"]),
        ("objectives = []\n[space]\n'optimizer.lr' = {low = 1e-3, high = 0.1}", ["objective"]),
        (
            "objectives = ['accuracy', 'macro_f1']\n[space]\n'optimizer.lr' = {low = 1e-3, high = 0.1}",
            ["'macro_f1'", "parameters"],
        ),
        ("trails = 3\n[space]\n'optimizer.lr' = {low = 1e-3, high = 0.1}", ["unknown field 'trails'"]),
        ("[limit]\namount = 0\n[space]\n'optimizer.lr' = {low = 1e-3, high = 0.1}", ["limit.amount = 0"]),
        ("[sampler]\nname = 'cma'\n[space]\n'optimizer.lr' = {low = 1e-3, high = 0.1}", ["sampler.name = 'cma'"]),
        ("[space", ["not TOML"]),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_line(text, fragments, tmp_path):
    with pytest.raises(InputError) as caught:
        space_of(written(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message and all(f in message for f in fragments), message


@pytest.mark.parametrize(("source", "said"), [("nowhere.toml", "no study file"), ("vgg61", "did you mean vgg16")])
def test_unknown_study(source, said):
    with pytest.raises(InputError, match=said):
        load_study(source)
