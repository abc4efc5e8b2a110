"""Every row of MODELS, as its shipped recipe builds it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.models import MAIN_MODELS, MODELS, build, check, head_name, select
from ferbench.models.cost import count_cost
from ferbench.recipe import ModelRecipe

# (module of the last feature map, {stem stride: its side at 48 pixels}) as the docstrings say
LAST_MAP = {
    "plain_cnn": ("features", {1: 3}),
    "vgg16": ("features", {1: 3}),
    "resnet18": ("layer4", {1: 6, 2: 3, 4: 2}),
    "resnet34": ("layer4", {1: 6, 2: 3, 4: 2}),
    "resnet50": ("layer4", {1: 6, 2: 3, 4: 2}),
    "efficientnet_b2": ("features", {1: 3, 2: 2}),
    "efficientnet_v2_s": ("features", {1: 3, 2: 2}),
}


def recipe_of(name: str, **changes: object) -> ModelRecipe:
    return load_recipe(name).model.model_copy(update=changes)


def on_meta(recipe: ModelRecipe, n_classes: int = 7) -> nn.Module:
    """The network without its numbers: at once, whatever its size."""
    with torch.device("meta"):
        return build(recipe, n_classes)


def head_tensors(name: str, network: nn.Module) -> set[str]:
    head = head_name(MODELS[name], network)
    return {n for n in network.state_dict() if n.startswith(head + ".")}


@pytest.fixture(scope="module", params=MODELS.names)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return build(recipe_of(request.param, dropout=0.0, drop_path=0.0), 7)


@pytest.fixture
def faces4() -> Tensor:
    return torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def test_logits_are_finite_and_depend_on_the_image(network, faces4):
    with torch.no_grad():
        logits = network.train()(faces4)
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()
    assert len(logits.unique(dim=0)) == 4


def test_gradients_reach_every_parameter(network, faces4):
    network.zero_grad()
    nn.functional.cross_entropy(network.train()(faces4), torch.tensor([0, 2, 4, 6])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # a bias before a batch norm has none, so only matrices and filters must have some
        assert parameter.ndim < 2 or parameter.grad.any(), name


@pytest.mark.parametrize("name", MODELS.names)
def test_cost_is_what_the_row_says(name):
    row = MODELS[name]
    assert count_cost(recipe_of(name), 7) == (row.parameters, row.macs)


@pytest.mark.parametrize("name", ["plain_cnn", "resnet18", "efficientnet_b2"])
def test_flip_tta_is_the_mean_of_both_views_and_costs_two(name, faces4):
    network = build(recipe_of(name, dropout=0.0, drop_path=0.0, flip_tta=True), 7)
    plain = build(recipe_of(name, dropout=0.0, drop_path=0.0), 7)
    plain.load_state_dict(network.state_dict())
    # weight averages are taken of copies
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        views = [plain.eval()(images) for images in (faces4, faces4.flip(3))]
        # fresh norms leave some networks next to nothing
        size = views[0].abs().max()
        assert not torch.allclose(views[0] / size, views[1] / size)
        torch.testing.assert_close(network(faces4) / size, sum(views) / 2 / size)
        # norms learn from one view of each image
        torch.testing.assert_close(network.train()(faces4), plain.train()(faces4))
    row = MODELS[name]
    assert row.macs is not None
    assert count_cost(recipe_of(name, flip_tta=True), 7) == (row.parameters, 2 * row.macs)


@pytest.mark.parametrize("name", MODELS.names)
def test_only_the_head_depends_on_the_classes(name):
    seven, five = on_meta(recipe_of(name), 7), on_meta(recipe_of(name), 5)
    shapes = {n: t.shape for n, t in five.state_dict().items()}
    changed = {n for n, t in seven.state_dict().items() if t.shape != shapes[n]}
    assert changed == head_tensors(name, seven)
    assert changed and seven.state_dict().keys() == shapes.keys()


@pytest.mark.parametrize("name", MODELS.names)
def test_dropout_is_the_recipes_and_in_the_head_alone(name):
    network = on_meta(recipe_of(name, dropout=0.37))
    rates = {n: m.p for n, m in network.named_modules() if isinstance(m, nn.Dropout)}
    # the dense layers of Khaireddin & Chen's, a part of its backbone, have it too
    layers = 2 if name == "vggnet" else 1
    assert list(rates.values()) == [0.37] * layers
    assert all(n.startswith("dense." if name == "vggnet" else head_name(MODELS[name], network) + ".") for n in rates)


@pytest.mark.parametrize(
    ("name", "stride", "side"), [(n, *pair) for n, (_, sides) in LAST_MAP.items() for pair in sides.items()]
)
def test_last_feature_map(name, stride, side):
    network = on_meta(recipe_of(name, stem_stride=stride)).eval()
    shapes: list[torch.Size] = []
    network.get_submodule(LAST_MAP[name][0]).register_forward_hook(lambda *seen: shapes.append(seen[2].shape))
    network(torch.empty(1, 1, 48, 48, device="meta"))
    assert [s[2:] for s in shapes] == [(side, side)]


@pytest.mark.parametrize("name", LAST_MAP)
def test_stem_strides_are_those_of_the_docstring(name):
    assert set(LAST_MAP[name][1]) == set(MODELS[name].stem_strides)


@pytest.mark.parametrize(
    ("name", "native", "times"), [("resnet18", 4, 13), ("efficientnet_b2", 2, 3), ("efficientnet_v2_s", 2, 3)]
)
def test_cost_of_a_stride_1_stem(name, native, times):
    (_, fine), (_, coarse) = (count_cost(recipe_of(name, stem_stride=s), 7) for s in (1, native))
    assert round(fine / coarse) == times


@pytest.mark.parametrize("name", [row.name for row in MODELS if row.drop_path])
def test_stochastic_depth_rises_to_the_recipes_rate(name):
    rates = [m.p for m in on_meta(recipe_of(name, drop_path=0.5)).modules() if isinstance(m, StochasticDepth)]
    assert rates == sorted(rates)
    assert rates[0] == 0 and 0.45 < rates[-1] <= 0.5


@pytest.mark.parametrize(
    ("name", "changes", "fragments"),
    [
        ("plain_cnn", {"stem_stride": 2}, ["plain_cnn", "stem_stride = 2", "one of: 1"]),
        ("resnet18", {"stem_stride": 3}, ["stem_stride = 3", "one of: 1, 2, 4"]),
        ("efficientnet_b2", {"stem_stride": 4}, ["one of: 1, 2"]),
        ("timm:test_vit", {"stem_stride": 1}, ["timm:test_vit", "one of: 0"]),
        ("vgg16", {"drop_path": 0.1}, ["vgg16", "drop_path = 0.1", "0.0 is right"]),
    ],
)
def test_impossible_recipes_are_refused(name, changes, fragments):
    for refuse in (check, lambda recipe: build(recipe, 7)):
        with pytest.raises(InputError) as caught:
            refuse(recipe_of(name, **changes))
        assert all(f in str(caught.value) for f in fragments)


def test_all_stands_for_one_network_of_each_family():
    assert tuple(row.name for row in select("all")) == MAIN_MODELS
    # named twice, run once
    assert [row.name for row in select("resnet50,all,resnet*")] == ["resnet50", *MAIN_MODELS, "resnet34"]
