from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from ferbench.inputs import load_recipe
from ferbench.models import MODELS, build, head_name
from ferbench.recipe import OptimizerRecipe, ScheduleRecipe
from ferbench.training.optimization import (
    Plateau,
    build_optimizer,
    parameter_groups,
    schedule_factor,
    set_learning_rate,
)

TIMM = ["timm:test_vit", "timm:test_resnet", "timm:convnext_atto"]


def optimizer_recipe(**changes: object) -> OptimizerRecipe:
    recipe = OptimizerRecipe(
        name="sgd",
        lr=0.1,
        momentum=0.9,
        beta2=0.999,
        weight_decay=5e-4,
        clip_norm=0.0,
        backbone_lr=1.0,
        layer_decay=1.0,
    )
    return recipe.model_copy(update=changes)


def schedule(name: str, **changes: object) -> ScheduleRecipe:
    numbers = {"warmup": 0.2, "start": 0.05, "final": 0.001, "plateau_factor": 0.75, "plateau_patience": 5}
    return ScheduleRecipe.model_validate({"name": name, **numbers, **changes})


def network_of(name: str) -> tuple[nn.Module, str]:
    with torch.device("meta"):
        network = build(load_recipe(name).model, 7)
    return network, head_name(MODELS[name], network)


# groups


@pytest.mark.parametrize("name", [*MODELS.names, *TIMM])
@pytest.mark.parametrize(("backbone_lr", "layer_decay"), [(1.0, 1.0), (0.1, 0.8)])
def test_every_parameter_is_in_one_group(name, backbone_lr, layer_decay):
    network, head = network_of(name)
    recipe = optimizer_recipe(weight_decay=0.3, backbone_lr=backbone_lr, layer_decay=layer_decay)
    groups = parameter_groups(network, head, recipe)
    grouped = [id(p) for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    scale_of = {id(p): g["scale"] for g in groups for p in g["params"]}
    for parameter_name, parameter in network.named_parameters():
        in_head = parameter_name.startswith(head + ".")
        scale = scale_of[id(parameter)]
        assert scale == 1 if in_head else scale <= backbone_lr
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)
    assert {g["weight_decay"] for g in groups} == {0.0, 0.3}
    # the stage next to the head is not decayed
    assert max(g["scale"] for g in groups if g["scale"] < 1 or backbone_lr == 1) == backbone_lr


def test_layers_of_a_resnet_by_hand():
    network, head = network_of("resnet18")
    groups = parameter_groups(network, head, optimizer_recipe(backbone_lr=0.2, layer_decay=0.5))
    scale_of = {id(p): g["scale"] for g in groups for p in g["params"]}
    seen = {n.partition(".")[0]: scale_of[id(p)] for n, p in network.named_parameters()}
    assert seen == pytest.approx(
        {"fc": 1, "layer4": 0.2, "layer3": 0.1, "layer2": 0.05, "layer1": 0.025, "bn1": 0.0125, "conv1": 0.00625}
    )


def test_blocks_of_a_transformer_are_stages():
    network, head = network_of("timm:test_vit")
    groups = parameter_groups(network, head, optimizer_recipe(layer_decay=0.5))
    scale_of = {id(p): g["scale"] for g in groups for p in g["params"]}
    blocks = [scale_of[id(block.attn.qkv.weight)] for block in network.blocks]
    assert blocks == [0.5 * b for b in [*blocks[1:], 2 * blocks[-1]]]


def test_frozen_parameters_are_left_out():
    network, head = network_of("plain_cnn")
    network.features.requires_grad_(False)
    groups = parameter_groups(network, head, optimizer_recipe())
    assert [id(p) for g in groups for p in g["params"]] == [id(p) for p in network.head.parameters()]


def test_learning_rate_is_scaled_by_group():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = parameter_groups(network, "1", optimizer_recipe(backbone_lr=0.1, weight_decay=0.0))
    optimizer = build_optimizer(groups, optimizer_recipe(), scaled=False)
    set_learning_rate(optimizer, 0.5)
    assert sorted(g["lr"] for g in optimizer.param_groups) == pytest.approx([0.05, 0.5])


# updates


def update(recipe: OptimizerRecipe, gradients: list[float], scaled: bool = False) -> list[float]:
    """A weight of 1.0 after each of these gradients; a loss scaler skips what is not finite."""
    weight = nn.Parameter(torch.ones(1, 1))
    groups = [{"params": [weight], "scale": 1.0, "weight_decay": recipe.weight_decay}]
    optimizer = build_optimizer(groups, recipe, scaled=scaled)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)
    values = []
    for gradient in gradients:
        scaler.scale((weight * gradient).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        values.append(weight.item())
    return values


def test_sgd_is_nesterovs_by_hand():
    recipe = optimizer_recipe(name="sgd", lr=0.1, momentum=0.5, weight_decay=0.0)
    # momentum 2, then 0.5 * 2 + 1 = 2; each update is gradient + 0.5 * momentum: 3, then 2
    assert update(recipe, [2.0, 1.0]) == pytest.approx([0.7, 0.5])
    assert update(recipe.model_copy(update={"momentum": 0.0}), [2.0, 1.0]) == pytest.approx([0.8, 0.7])


def test_weight_decay_by_hand():
    # SGD adds it to the gradient, AdamW shrinks the weight beside its update of lr * sign
    assert update(optimizer_recipe(lr=0.1, momentum=0.0, weight_decay=0.5), [2.0]) == pytest.approx([0.75])
    assert update(optimizer_recipe(name="adamw", lr=0.1, weight_decay=0.5), [2.0]) == pytest.approx([0.85])


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_skipped_updates_leave_no_trace(name):
    recipe = optimizer_recipe(name=name, lr=0.1)
    values = update(recipe, [math.inf, 2.0, math.nan, 1.0], scaled=True)
    assert values[0] == 1 and values[2] == values[1]
    assert values[1::2] == pytest.approx(update(recipe, [2.0, 1.0]), rel=1e-6)


# the rate over the updates


@pytest.mark.parametrize(
    ("recipe", "points"),
    [
        # from 0.05 to 1 in a tenth, then down to 0.001, half-way at 0.55
        (schedule("cosine", warmup=0.1, start=0.05, final=0.001),
         {0: 0.05, 0.05: 0.525, 0.1: 1, 0.325: 0.001 + 0.999 * (1 + math.sqrt(0.5)) / 2, 0.55: 0.5005, 1: 0.001}),
        (schedule("one_cycle", warmup=0.2, start=0.05, final=0.001),
         {0: 0.05, 0.1: 0.525, 0.2: 1, 0.4: 0.75025, 0.6: 0.5005, 1: 0.001}),
        (schedule("constant", warmup=0.5, start=0.0), {0: 0, 0.25: 0.5, 0.5: 1, 0.75: 1, 1: 1}),
        (schedule("plateau", warmup=0.5, start=0.2, final=0.001), {0: 0.2, 0.25: 0.6, 0.5: 1, 1: 1}),
        (schedule("constant", warmup=0.0), {0: 1, 1: 1}),
        (schedule("cosine", warmup=0.0, final=0.0), {0: 1, 0.5: 0.5, 1: 0}),
        (schedule("one_cycle", warmup=1.0, start=0.0, final=0.001), {0: 0, 0.5: 0.5, 1: 0.001}),
    ],
)  # fmt: skip
def test_schedule_by_hand(recipe, points):
    for progress, factor in points.items():
        assert schedule_factor(recipe, progress) == pytest.approx(factor), progress


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "constant", "plateau"])
def test_schedule_rises_to_the_peak_and_never_again(name):
    recipe = schedule(name, warmup=0.3)
    factors = [schedule_factor(recipe, i / 1000) for i in range(1001)]
    assert factors[:301] == sorted(factors[:301]) and factors[300] == 1
    assert factors[300:] == sorted(factors[300:], reverse=True)
    # no jumps: a thousandth of the way changes little
    assert max(abs(a - b) for a, b in pairwise(factors)) < 0.005


def test_plateau_by_hand():
    plateau = Plateau(schedule("plateau", plateau_patience=2, plateau_factor=0.5, final=0.3))
    seen = []
    for score in [0.5, 0.5, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6]:
        plateau.update(score)
        seen.append(plateau.factor)
    # two epochs without a better score: half, and not below 0.3
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]


def test_plateau_goes_on_from_its_state():
    recipe = schedule("plateau", plateau_patience=3, plateau_factor=0.5)
    for cut in range(6):
        whole, first, second = Plateau(recipe), Plateau(recipe), Plateau(recipe)
        scores = [0.5, 0.4, 0.4, 0.4, 0.6, 0.1, 0.1, 0.1]
        for plateau, part in ((whole, scores), (first, scores[:cut])):
            for score in part:
                plateau.update(score)
        second.restore(first.state())
        for score in scores[cut:]:
            second.update(score)
        assert second == whole


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "constant"])
def test_plateau_does_nothing_for_other_schedules(name):
    plateau = Plateau(schedule(name, plateau_patience=1))
    for _ in range(5):
        plateau.update(0.1)
    assert plateau.factor == 1
