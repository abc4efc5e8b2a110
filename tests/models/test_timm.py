"""Networks of timm; its `test_*` ones are made to be small."""

from __future__ import annotations

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.models import MODELS, build, head_name
from ferbench.models.cost import count_cost
from ferbench.recipe import ModelRecipe


def recipe_of(name: str, **changes: object) -> ModelRecipe:
    return load_recipe(f"timm:{name}").model.model_copy(update=changes)


def one_line(recipe: ModelRecipe) -> str:
    with pytest.raises(InputError) as caught:
        build(recipe, 7)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_network_takes_grey_images_of_the_recipes_size(name, size):
    network = build(recipe_of(name, input_size=size), 7)
    logits = network(torch.randn(2, 1, size, size))
    assert logits.shape == (2, 7) and logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


# each refuses an option that others need: vgg11 a depth rate, test_vit none, convnext_atto the image size
@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "vgg11", "convnext_atto", "ghostnet_100"])
def test_head_name_is_the_classifier(name):
    recipe = recipe_of(name)
    with torch.device("meta"):
        seven, five = build(recipe, 7), build(recipe, 5)
    shapes = {n: t.shape for n, t in five.state_dict().items()}
    changed = {n for n, t in seven.state_dict().items() if t.shape != shapes[n]}
    head = head_name(MODELS[recipe.name], seven)
    assert changed and all(n.startswith(head + ".") for n in changed)


def test_image_size_reaches_a_transformer():
    # 48 pixels are 3x3 patches of 16, and one more token
    assert build(recipe_of("test_vit", input_size=48), 7).pos_embed.shape[1] == 10
    assert build(recipe_of("test_vit", input_size=64), 7).pos_embed.shape[1] == 17


def test_regularisation_reaches_the_network():
    network = build(recipe_of("test_vit", dropout=0.3, drop_path=0.25), 7)
    assert network.head_drop.p == 0.3
    assert network.blocks[-1].drop_path1.drop_prob == 0.25
    # a network's own default would be 0.1
    with torch.device("meta"):
        swin = build(recipe_of("swin_tiny_patch4_window7_224", drop_path=0.0), 7)
    assert not any(getattr(m, "drop_prob", 0.0) for m in swin.modules())


def test_cost_is_counted():
    parameters, macs = count_cost(recipe_of("test_vit"), 7)
    assert parameters == sum(p.numel() for p in build(recipe_of("test_vit"), 7).parameters())
    # the patches alone: 9 of 16x16 pixels, each to a vector of 64
    assert macs > 9 * 16 * 16 * 64


@pytest.mark.parametrize(
    ("name", "changes", "fragments"),
    [
        ("resnet81", {}, ["unknown model 'timm:resnet81'", "did you mean timm:resnet"]),
        ("zzzz", {}, ["unknown model 'timm:zzzz'", "timm.list_models()"]),
        ("resnet18.nonsense", {}, ["timm:resnet18.nonsense", "Invalid pretrained tag"]),
        ("vgg11", {"drop_path": 0.1}, ["timm:vgg11", "drop_path_rate"]),
    ],
)
def test_what_timm_does_not_have(name, changes, fragments):
    message = one_line(recipe_of(name, **changes))
    assert all(f in message for f in fragments)


def test_imagenet_weights_of_the_hub(monkeypatch, tmp_path):
    published = timm.create_model("test_resnet")
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def download(repository: str, file: str, **options: object) -> str:
        asked.append((repository, file))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    network = build(recipe_of("test_resnet", init="imagenet"), 7)
    assert asked == [(published.pretrained_cfg["hf_hub_id"], "model.safetensors")]
    first = published.pretrained_cfg["first_conv"] + ".weight"
    assert torch.equal(network.state_dict()[first], published.state_dict()[first].sum(1, keepdim=True))


def test_imagenet_without_a_network(monkeypatch):
    def refuse(*args: object, **options: object) -> str:
        raise ConnectionError("offline\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    message = one_line(recipe_of("test_resnet", init="imagenet"))
    assert "cannot be fetched (ConnectionError: offline)" in message
    assert "get model.safetensors of timm/test_resnet" in message


def test_network_that_was_never_published():
    name = next(n for n in timm.list_models("*") if not timm.get_pretrained_cfg(n).hf_hub_id and "resnet" in n)
    assert "no published ImageNet weights" in one_line(recipe_of(name, init="imagenet"))
