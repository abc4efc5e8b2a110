"""Weights from files and from ImageNet, with no network in sight."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from ferbench.errors import InputError
from ferbench.inputs import load_recipe
from ferbench.models import MODELS, build, head_name

# torchvision's network, the part before its head, and the stem at which ours has the same strides
PUBLISHED = {
    "resnet18": (torchvision.models.resnet18, "layer4", 4),
    "efficientnet_b2": (torchvision.models.efficientnet_b2, "features", 2),
}
WITH_WEIGHTS = [row.name for row in MODELS if row.weights]


def ours(name: str, init: Path | str, **changes: object) -> nn.Module:
    return build(load_recipe(name, init=str(init)).model.model_copy(update=changes), 7)


def one_line(name: str, init: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        ours(name, init)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def features(network: nn.Module, module: str, images: Tensor) -> Tensor:
    """What a module gives out when images go through the network."""
    seen: list[Tensor] = []
    handle = network.get_submodule(module).register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        network.eval()(images)
    handle.remove()
    return seen[0]


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """A network of torchvision with numbers of its own, batch norms included."""
    torch.manual_seed(1)
    network = PUBLISHED[request.param][0](num_classes=1000)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return request.param, network


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_grey_gives_the_activations_that_rgb_gave(published, suffix, tmp_path):
    name, network = published
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    _, last, stride = PUBLISHED[name]
    adapted = ours(name, path, stem_stride=stride)
    grey = torch.randn(2, 1, 48, 48)
    torch.testing.assert_close(
        features(adapted, last, grey), features(network, last, grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
    )
    assert adapted(grey).shape == (2, 7)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_imagenet_tensors_fit(name):
    """Names and shapes of torchvision's network cover ours, but for the head and the first layer's channels."""
    with torch.device("meta"):
        theirs = getattr(torchvision.models, "vgg16_bn" if name == "vgg16" else name)().state_dict()
        network = build(load_recipe(name).model, 7)
    head = head_name(MODELS[name], network) + "."
    for tensor, value in network.state_dict().items():
        if not tensor.startswith(head):
            shape = list(theirs[tensor].shape)
            assert list(value.shape) in (shape, [shape[0], 1, *shape[2:]] if shape[1:2] == [3] else None), tensor


def test_own_weights_come_back_all_but_the_head(tmp_path):
    first = ours("plain_cnn", "scratch")
    nn.init.constant_(first.features[1].running_mean, 0.25)
    save_file(first.state_dict(), tmp_path / "a.safetensors")
    torch.save({"epoch": 3, "state_dict": first.state_dict()}, tmp_path / "a.pth")
    for path in tmp_path.iterdir():
        second = ours("plain_cnn", path).state_dict()
        for tensor, value in first.state_dict().items():
            assert torch.equal(value, second[tensor]) != tensor.startswith("head."), tensor


def plain_tensors() -> dict[str, Tensor]:
    return dict(ours("plain_cnn", "scratch").state_dict())


def without(name: str) -> dict[str, Tensor]:
    tensors = plain_tensors()
    del tensors[name]
    return tensors


def test_counters_of_batch_norm_may_be_missing(tmp_path):
    # files from before torch 0.4.1 have none
    torch.save({k: v for k, v in plain_tensors().items() if "num_batches" not in k}, tmp_path / "old.pth")
    ours("plain_cnn", tmp_path / "old.pth")


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (without("features.3.weight"), ["no tensor 'features.3.weight'", "not weights of this network"]),
        (plain_tensors() | {"features.3.weight": torch.zeros(32, 31, 3, 3)}, ["[32, 31, 3, 3]", "[32, 32, 3, 3]"]),
        # an RGB filter where a vector belongs
        (plain_tensors() | {"features.1.weight": torch.zeros(32, 3, 3, 3)}, ["features.1.weight", "[32]"]),
        (plain_tensors() | {"features.0.weight": 3}, ["no tensor 'features.0.weight'"]),
        ({"state_dict": None}, ["no tensor"]),
        ([1, 2], ["no tensor"]),
    ],
)
def test_tensors_that_do_not_fit(content, fragments, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    message = one_line("plain_cnn", path)
    assert all(f in message for f in [str(path), *fragments])


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a"])
@pytest.mark.parametrize("content", [b"", b"no weights\nat all\n", b"PK\x03\x04 cut short"])
def test_files_that_are_no_weights(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert one_line("plain_cnn", path).startswith(f"{path}: not readable as weights")


def test_pickled_code_is_not_run(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    assert "not readable as weights" in one_line("plain_cnn", tmp_path / "module.pth")


def test_no_such_file():
    assert one_line("plain_cnn", "imagnet") == (
        "model.init = 'imagnet' is no file (scratch, imagenet, or a .pth or .safetensors file)"
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """torch's folder of downloads, empty, and no way to fill it."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "torch/hub/checkpoints"


def test_imagenet_without_a_network_says_what_to_put_where(offline):
    message = one_line("resnet18", "imagenet")
    assert "cannot be fetched (URLError: <urlopen error no route to host>)" in message
    assert f"put {MODELS['resnet18'].weights} at {offline / 'resnet18-f37072fd.pth'}" in message


def test_imagenet_file_put_there_is_used(offline):
    network = torchvision.models.resnet18()
    offline.mkdir(parents=True)
    torch.save(network.state_dict(), offline / "resnet18-f37072fd.pth")
    assert torch.equal(ours("resnet18", "imagenet").layer4[1].conv2.weight, network.layer4[1].conv2.weight)


def test_a_network_without_imagenet_weights_says_so(offline):
    message = one_line("plain_cnn", "imagenet")
    assert message.startswith("plain_cnn has no published ImageNet weights") and "scratch" in message
