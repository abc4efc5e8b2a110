from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ferbench import models
from ferbench.errors import InputError
from ferbench.evaluation.predictions import predictions_of
from ferbench.inputs import (
    described_fields,
    load_budget,
    load_paper,
    load_recipe,
    parse_override,
    recipe_names,
)
from ferbench.knobs import strategy_defaults
from ferbench.recipe import Recipe
from ferbench.runner import build_network
from ferbench.spec import Budget, DataKey, RunSpec
from ferbench.toml import read_toml, shipped, validated
from ferbench.training.imbalance import STRATEGIES
from ferbench.training.treatment import Treatment
from ferbench.variants import changed_fields


def one_line(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message
    return message


@pytest.fixture
def spec() -> RunSpec:
    return RunSpec(
        recipe=load_recipe("plain_cnn", strategy="inverse"),
        seed=3,
        budget=load_budget("quick"),
        data=DataKey(name="faces", fingerprint="0123abcd", protocol="official"),
    )


# what is shipped


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_loads_and_its_network_can_do_what_it_asks(name):
    recipe = load_recipe("timm:mobilenetv3_small_050" if name == "timm" else name)
    assert models.check(recipe.model).name == recipe.model.name
    own = {"timm": "timm:mobilenetv3_small_050", "plain_cnn_fast": "plain_cnn", "papers/insideout": "efficientnet_v2_s"}
    assert recipe.model.name == own.get(name, name.removeprefix("papers/"))
    assert not recipe.training.start_size or recipe.training.start_size <= recipe.model.input_size
    # a published system may come with a strategy
    assert recipe.imbalance.strategy == "none" or name.startswith("papers/")


def test_every_model_has_a_recipe_and_every_recipe_a_model():
    assert {n for n in recipe_names() if "/" not in n} == {*models.MODELS.names, "timm", "plain_cnn_fast"}


def leaves(table: Mapping[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in table.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def schema_leaves(schema: dict, node: dict, prefix: str = "") -> set[str]:
    """Fields according to the JSON schema that pydantic derives, not to our own walk."""
    found: set[str] = set()
    for key, value in node["properties"].items():
        if "$ref" in value:
            found |= schema_leaves(schema, schema["$defs"][value["$ref"].rpartition("/")[2]], f"{prefix}{key}.")
        else:
            found.add(prefix + key)
    return found


def test_defaults_hold_exactly_the_fields_of_a_recipe():
    schema = Recipe.model_json_schema()
    # the network's name is each recipe's own, the knobs are in strategies.toml
    expected = schema_leaves(schema, schema) - {"model.name", "imbalance.params"}
    assert leaves(read_toml(shipped("baselines", "defaults.toml"))) == expected


def test_no_field_has_a_default_in_code():
    schema = RunSpec.model_json_schema()
    for node in (schema, *schema["$defs"].values()):
        if "properties" in node:
            optional = node["properties"].keys() - set(node["required"])
            # what came after the first records, which say nothing of it
            later = {
                "ModelRecipe": {"flip_tta"},
                "TrainingRecipe": {"start_strength", "compile"},
                "RunSpec": {"tta"},
            }
            assert optional == later.get(node["title"], set())


def test_every_field_is_documented():
    schema = Recipe.model_json_schema()
    for node in schema["$defs"].values():
        for name, field in node.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, name


@pytest.mark.parametrize("path", sorted(shipped("baselines").rglob("*.toml")), ids=lambda p: p.stem)
def test_model_files_say_only_what_differs(path):
    if path.stem in ("defaults", "budgets", "strategies", "published"):
        return
    defaults = read_toml(shipped("baselines", "defaults.toml"))
    own = {key: table for key, table in read_toml(path).items() if key != "paper"}
    knobs = {f"imbalance.params.{k}" for k in strategy_defaults()[own.get("imbalance", {}).get("strategy", "none")]}
    assert leaves(own) <= leaves(defaults) | {"model.name"} | knobs


def test_budgets():
    names = list(read_toml(shipped("baselines", "budgets.toml")))
    assert [load_budget(n).name for n in names] == names
    assert load_budget("full") == Budget(name="full", fraction=1.0, epochs=0, batch_size=0)
    assert "did you mean quick" in one_line(lambda: load_budget("quik"))


def test_strategies_have_the_same_names_in_file_and_code():
    assert list(strategy_defaults()) == STRATEGIES.names


class Noted(dict):
    """A table that remembers which keys were read."""

    def __init__(self, table: Mapping[str, float]) -> None:
        super().__init__(table)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> float:
        self.read.add(key)
        return super().__getitem__(key)


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_every_knob_is_used_and_no_other(name):
    params = Noted(strategy_defaults()[name])
    counts = np.array([5, 3, 2])
    treatment = Treatment(STRATEGIES[name], counts, params, np.repeat([0, 1, 2], counts))
    treatment.loss(9, 10)
    treatment.image_weights(9, 10)
    treatment.mixing(torch.device("cpu"))
    network = build_network(load_recipe("plain_cnn", strategy=name), 3)
    treatment.consistency(network, "head", 48)
    if STRATEGIES[name].head == "normalised":
        params["scale"]  # of the classifier's logits
    if STRATEGIES[name].decoupled:
        # of the second stage, which needs a finished run: tests/test_again.py
        params.read |= {"stage", "lr", "most", "power"} & set(params)
    if STRATEGIES[name].posthoc:
        module, function = STRATEGIES[name].posthoc.split(":")
        labels = np.array([0, 1, 2], np.uint8)
        val = predictions_of("val", "abc", ["x", "y", "z"], labels, np.eye(3))
        getattr(importlib.import_module(module), function)(val, counts, params)
    assert params.read == set(params)


# what a user may write


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("[optimizer]\nlrr = 1.0", ["unknown field 'optimizer.lrr'", "did you mean optimizer.lr?"]),
        ("[augmentation]\nflip = 1.0", ["unknown field 'augmentation'"]),
        ('[optimizer]\nlr = "high"', ["optimizer.lr = 'high'", "number"]),
        ("[optimizer]\nlr = -1.0", ["optimizer.lr = -1.0", "greater than 0"]),
        ("[optimizer]\nlr = nan", ["optimizer.lr = nan"]),
        ("[optimizer]\nlr = inf", ["optimizer.lr = inf", "finite"]),
        ("[optimizer]\nmomentum = 1.0", ["optimizer.momentum = 1.0", "less than 1"]),
        ('[optimizer]\nname = "adam"', ["optimizer.name = 'adam'", "'sgd', 'adamw' or 'muon'"]),
        ("[training]\nepochs = 0", ["training.epochs = 0"]),
        ("[training]\nepochs = 2.5", ["training.epochs = 2.5", "integer"]),
        ("[training]\nepochs = true", ["training.epochs = True", "integer"]),
        ("[training]\nchannels_last = 1", ["training.channels_last = 1", "true, false or 'auto'"]),
        ('[training.precision]\ncpu = "int8"', ["training.precision.cpu = 'int8'"]),
        ("[augment]\nflip = 1.5", ["augment.flip = 1.5"]),
        ("[training]\nstart_size = 8", ["training.start_size = 8", "0 or at least 16"]),
        ("[augment]\nrotate = 181", ["augment.rotate = 181"]),
        ('[model]\nname = "vgg16"\ninput_size = 8', ["model.input_size = 8"]),
        ('[model]\nname = "vgg16"\ninit = 3', ["model.init = 3", "string"]),
        ('[imbalance]\nstrategy = "focl"', ["unknown strategy 'focl'", "did you mean focal?"]),
        ("[imbalance]\nstrategy = 3", ["imbalance.strategy = 3"]),
        ('[imbalance]\nstrategy = "focal"\nparams = {gama = 1.0}', ["'gama'", "did you mean gamma?", "focal"]),
        ('[imbalance]\nstrategy = "focal"\nparams = {gamma = "x"}', ["imbalance.params.gamma = 'x'"]),
        ('[imbalance]\nstrategy = "focal"\nparams = 2', ["imbalance.params = 2"]),
        ("imbalance = 3", ["imbalance = 3"]),
        ("model = 3", ["model = 3"]),
        ("optimizer = 0.1", ["optimizer = 0.1"]),
        ("[optimizer\nlr = 1", ["not TOML"]),
        (b'[model]\nname = "\xff"', ["not TOML"]),
    ],
)
def test_faults_in_a_recipe_are_one_line_with_file_field_and_value(text, fragments, tmp_path):
    path = tmp_path / "mine.toml"
    # one may not write to a table twice, so the name goes where the case is about something else
    named = b"" if b"model" in as_bytes(text) else b'model.name = "plain_cnn"\n'
    path.write_bytes(named + as_bytes(text))
    message = one_line(lambda: load_recipe(str(path)))
    assert "mine.toml" in message
    for fragment in fragments:
        assert fragment in message


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def test_missing_fields_are_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[optimizer]\nlr = 0.5\n")
    assert one_line(lambda: load_recipe(str(path))) == "mine.toml: field 'model.name' is missing"
    table = load_recipe("plain_cnn").model_dump()
    del table["augment"]["flip"]
    assert one_line(lambda: validated(Recipe, table, "x.toml")) == "x.toml: field 'augment.flip' is missing"


def test_recipe_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nname = "vgg16"\n[imbalance]\nstrategy = "effective_number"\nparams = {beta = 0.99}\n')
    recipe = load_recipe(str(path))
    assert recipe.model.name == "vgg16"
    # beta from the file, clip from strategies.toml
    assert recipe.imbalance.params == {"beta": 0.99, "clip": 0.0}
    # another strategy takes its own knobs, not the file's
    assert load_recipe(str(path), strategy="focal").imbalance.params == {"gamma": 1.0}
    assert recipe.optimizer == load_recipe("vgg16").optimizer
    assert "no recipe file" in one_line(lambda: load_recipe("nowhere.toml"))
    assert "did you mean resnet18" in one_line(lambda: load_recipe("resnet19"))


def test_init_and_overrides_win_over_the_file():
    overrides = {"model.init": "/a.pth", "lr": 0.25, "training.precision.cpu": "fp32", "gamma": 3}
    recipe = load_recipe("plain_cnn", strategy="focal", init="imagenet", overrides=overrides)
    assert recipe.model.init == "/a.pth"
    assert recipe.optimizer.lr == 0.25
    assert recipe.training.precision.cpu == "fp32"
    assert recipe.training.precision.cuda == "auto"
    assert recipe.imbalance.params == {"gamma": 3.0}
    assert load_recipe("plain_cnn", init="imagenet").model.init == "imagenet"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.lr=0.05", ("optimizer.lr", 0.05)),
        ("optimizer.lr = 1e-3", ("optimizer.lr", 0.001)),
        ("training.epochs=3", ("training.epochs", 3)),
        ("channels_last=false", ("channels_last", False)),
        ("optimizer.name=adamw", ("optimizer.name", "adamw")),
        ('optimizer.name="adamw"', ("optimizer.name", "adamw")),
        ("model.init=/data/a=b.pth", ("model.init", "/data/a=b.pth")),
        ("optimizer.lr=", ("optimizer.lr", "")),
    ],
)
def test_override_is_read(text, expected):
    key, value = parse_override(text)
    assert (key, value) == expected
    assert type(value) is type(expected[1])


@pytest.mark.parametrize("text", ["optimizer.lr", "=3", "", " = 2"])
def test_override_without_key_or_value_is_refused(text):
    assert "expected key=value" in one_line(lambda: parse_override(text))


@pytest.mark.parametrize(
    ("key", "value", "fragments"),
    [
        ("name", "x", ["several fields", "model.name", "optimizer.name", "schedule.name"]),
        ("optimizer.lrr", 0.1, ["optimizer.lrr", "optimizer.lr"]),
        ("zzzz", 1, ["zzzz", "ferbench list fields"]),
        # a table is no field
        ("optimizer", {}, ["optimizer"]),
        ("optimizer.lr", "high", ["--set", "optimizer.lr = 'high'"]),
        ("lr", -1, ["plain_cnn.toml with --set", "optimizer.lr = -1"]),
        ("gamma", 2.0, ["gamma"]),
        ("imbalance.strategy", "focal", ["imbalance.strategy", "--imbalance"]),
        ("imbalance.params", 3, ["imbalance.params = 3"]),
        ("imbalance.params", {"gamma": 1.0}, ["gamma"]),
    ],
)
def test_faults_in_overrides(key, value, fragments):
    message = one_line(lambda: load_recipe("plain_cnn", overrides={key: value}))
    for fragment in fragments:
        assert fragment in message


def test_one_fault_does_not_hide_behind_another_override():
    changes = {"imbalance.params": 3, "optimizer.lr": 0.1}
    assert "imbalance.params = 3" in one_line(lambda: load_recipe("plain_cnn", strategy="focal", overrides=changes))


@pytest.mark.parametrize(
    ("strategy", "knob", "value"),
    [
        ("crt", "lr", -1.0),
        ("inverse", "clip", -1.0),
        ("focal", "gamma", -2.0),
        ("remix", "kappa", 0.0),
        ("drw", "start", 7.0),
    ],
)
def test_a_knob_has_its_range(strategy, knob, value):
    changes = {f"imbalance.params.{knob}": value}
    message = one_line(lambda: load_recipe("plain_cnn", strategy=strategy, overrides=changes))
    assert f"plain_cnn.toml with --set, imbalance.params: {knob} = {value}: Input should be " in message


def test_a_strategy_cannot_lose_its_knobs():
    message = one_line(lambda: load_recipe("plain_cnn", strategy="focal", overrides={"imbalance.params": {}}))
    assert "gamma" in message


# the run as a value


def replaced(spec: RunSpec, part: str, **changes: Any) -> RunSpec:
    return spec.model_copy(update={part: getattr(spec, part).model_copy(update=changes)})


def test_id_changes_with_everything_that_decides_the_result(spec):
    recipes = [
        {"optimizer.lr": 0.3},
        {"training.precision.cpu": "fp32"},
        {"augment.mixup": 0.1},
        {"model.init": "imagenet"},
        {"imbalance.params.power": 0.9},
    ]
    others = [
        *(
            spec.model_copy(update={"recipe": load_recipe("plain_cnn", strategy="inverse", overrides=o)})
            for o in recipes
        ),
        spec.model_copy(update={"seed": 4}),
        replaced(spec, "budget", name="slow"),
        replaced(spec, "budget", fraction=0.5),
        replaced(spec, "budget", epochs=6),
        replaced(spec, "budget", batch_size=33),
        replaced(spec, "data", name="other"),
        replaced(spec, "data", fingerprint="0123abce"),
    ]
    hashes = [s.fingerprint for s in (spec, *others)]
    assert len(set(hashes)) == len(hashes)
    assert len({s.id for s in (spec, *others)}) == len(hashes)


def test_id_reads_as_model_strategy_seed_hash(spec):
    assert re.fullmatch(r"plain_cnn-inverse-s3-[0-9a-f]{8}", spec.id)
    assert spec.id.endswith(spec.fingerprint)


def test_id_does_not_depend_on_the_order_or_spelling_of_values(spec):
    table = json.loads(spec.model_dump_json())

    def backwards(value: Any) -> Any:
        return {k: backwards(value[k]) for k in reversed(value)} if isinstance(value, dict) else value

    assert RunSpec.model_validate(backwards(table)).id == spec.id
    whole = {"optimizer.clip_norm": 1}
    point = {"optimizer.clip_norm": 1.0}
    a, b = (spec.model_copy(update={"recipe": load_recipe("plain_cnn", overrides=o)}) for o in (whole, point))
    assert a.id == b.id


def test_fields_added_later_leave_old_names_alone(spec):
    table = json.loads(spec.model_dump_json())
    for name in ("start_strength", "compile"):
        del table["recipe"]["training"][name]
    assert RunSpec.model_validate(table).id == spec.id
    table["recipe"]["training"]["start_strength"] = 0.5
    assert RunSpec.model_validate(table).id != spec.id


def test_id_is_the_same_in_another_process(spec):
    code = "import sys; from ferbench.spec import RunSpec; print(RunSpec.model_validate_json(sys.stdin.read()).id)"
    for hash_seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", code],
            input=spec.model_dump_json(),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert result.stdout.strip() == spec.id


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224.augreg_in21k", "timm:hf-hub:timm/resnet18.a1_in1k"])
def test_id_is_one_folder_name(name, spec):
    spec = spec.model_copy(update={"recipe": load_recipe(name)})
    assert spec.recipe.model.name == name
    assert re.fullmatch(r"[A-Za-z0-9._-]+", spec.id)
    assert not spec.id.startswith(".")


def test_epochs_are_the_budgets_or_the_recipes(spec):
    assert spec.epochs == load_budget("quick").epochs
    assert spec.batch_size == load_budget("quick").batch_size
    own = replaced(spec, "budget", epochs=0, batch_size=0)
    assert (own.epochs, own.batch_size) == (spec.recipe.training.epochs, spec.recipe.training.batch_size)


def test_spec_survives_json(spec):
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again == spec and again.id == spec.id
    assert validated(RunSpec, json.loads(spec.model_dump_json()), "x") == spec


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": "3"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"seed": 3.0}, "seed"),
        ({"colour": 1}, "colour"),
        ({"budget": {"name": "x", "fraction": 0.0, "epochs": 1, "batch_size": 0}}, "budget.fraction"),
        ({"data": {"name": "x", "fingerprint": "y", "protocol": "folds"}}, "data.protocol"),
    ],
)
def test_spec_is_strict(spec, change, field):
    table = {**json.loads(spec.model_dump_json()), **change}
    assert field in one_line(lambda: validated(RunSpec, table, "spec"))


def test_spec_is_frozen(spec):
    with pytest.raises(ValidationError):
        spec.seed = 4
    with pytest.raises(ValidationError):
        spec.recipe.optimizer.lr = 1.0


# recipes of published systems


@pytest.mark.parametrize("name", [n for n in recipe_names() if n.startswith("papers/")])
def test_published_system_says_what_it_assumes(name):
    paper, own = load_paper(name), leaves(read_toml(shipped("baselines", f"{name}.toml")))
    assert "arXiv" in paper.source
    # what is assumed and not written is the default, which decides too
    assert set(paper.assumed) <= own | leaves(read_toml(shipped("baselines", "defaults.toml"))) | {
        "imbalance.params.power"
    }
    assert load_paper("plain_cnn") is None


def test_unknown_assumption_is_told(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[paper]\nsource = "x"\nprotocol = "official"\nassumed = ["model.droput"]\n[model]\nname = "vgg16"\n'
    )
    assert "unknown field 'model.droput' (did you mean model.dropout?)" in one_line(lambda: load_paper(str(path)))
    path.write_text('[paper]\nsource = "x"\nprotocol = "offical"\nassumed = []\n[model]\nname = "vgg16"\n')
    assert "mine.toml: protocol = 'offical'" in one_line(lambda: load_paper(str(path)))


def test_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[optimizer]\nlr = 0.1\n")
    first = read_toml(path)
    first["optimizer"]["lr"] = "the caller's own"
    assert read_toml(path) == {"optimizer": {"lr": 0.1}}
    path.write_text("[optimizer]\nlr = 0.2\n")
    assert read_toml(path) == {"optimizer": {"lr": 0.2}}


# bases


def test_recipe_file_has_its_bases_fields_where_it_says_nothing(tmp_path):
    usual = load_recipe("plain_cnn")
    (tmp_path / "mine.toml").write_text('base = "plain_cnn"\n[optimizer]\nlr = 0.5\n')
    recipe = load_recipe(str(tmp_path / "mine.toml"))
    assert changed_fields(recipe, usual) == {"optimizer.lr": 0.5}
    # a file beside it, found from wherever the command is given
    (tmp_path / "again.toml").write_text('base = "mine.toml"\n[model]\ndropout = 0.3\n')
    assert changed_fields(load_recipe(str(tmp_path / "again.toml")), recipe) == {"model.dropout": 0.3}
    # without a base the defaults count, which are not the plain CNN's
    (tmp_path / "mine.toml").write_text('[model]\nname = "plain_cnn"\n')
    assert changed_fields(load_recipe(str(tmp_path / "mine.toml")), usual)


def test_base_may_be_a_timm_network_or_have_another_strategy(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "timm:resnet26"\n[model]\ninput_size = 32\n')
    assert changed_fields(load_recipe(str(path)), load_recipe("timm:resnet26")) == {"model.input_size": 32}
    path.write_text('base = "plain_cnn"\n[imbalance]\nstrategy = "focal"\n')
    (tmp_path / "again.toml").write_text('base = "mine.toml"\n[imbalance]\nstrategy = "inverse"\n')
    recipe = load_recipe(str(tmp_path / "again.toml"))
    assert recipe.imbalance == load_recipe("plain_cnn", strategy="inverse").imbalance


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ('"mine.toml"', "mine.toml: base = 'mine.toml': bases go round in a circle"),
        ('"./../{here}/mine.toml"', "bases go round in a circle"),
        ("3", "mine.toml: base = 3: a recipe's name or file is expected"),
        ('"plain_cn"', "unknown recipe 'plain_cn' (did you mean plain_cnn?)"),
        ('"nowhere.toml"', "no recipe file"),
    ],
)
def test_bases_that_are_none_are_refused(base, message, tmp_path):
    base = base.replace("{here}", tmp_path.name)
    (tmp_path / "mine.toml").write_text(f'base = {base}\n[model]\nname = "vgg16"\n')
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe(str(tmp_path / "mine.toml"))


def test_every_field_says_what_it_means():
    for name, _, meaning in described_fields():
        assert meaning, name
