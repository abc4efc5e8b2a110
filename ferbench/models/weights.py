"""Pretrained weights: found on disk or fetched, and fitted to one channel and another head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ferbench.errors import InputError

if TYPE_CHECKING:
    from ferbench.models import Model


def load_pretrained(network: nn.Module, row: Model, init: str, head: str) -> None:
    """Fill a network, all but its head, from `init`: "imagenet" or the path of a .pth or .safetensors file.

    A first layer of three input channels is summed to one: grey input repeated to RGB gives the same activations.

    Raises:
        InputError: no such file, no network to fetch it, or tensors that do not fit.
    """
    if init == "imagenet":
        path = _timm_file(network, row) if row.head is None else imagenet_file(row)
    else:
        path = Path(init)
    stored = _read(path)
    own = network.state_dict()
    fitted: dict[str, Tensor] = {}
    for name, value in own.items():
        if name.startswith(head + "."):
            fitted[name] = value
        else:
            fitted[name] = _fit(stored, name, value, path)
    network.load_state_dict(fitted)


def _fit(stored: dict[str, Tensor], name: str, own: Tensor, path: Path) -> Tensor:
    if name not in stored:
        if name.endswith("num_batches_tracked"):
            return own
        raise InputError(f"{path}: no tensor {name!r}: these are not weights of this network")
    tensor = stored[name]
    if tensor.ndim == 4 and tensor.shape[1] == 3 and own.shape[1:2] == (1,):
        tensor = tensor.sum(1, keepdim=True)
    if tensor.shape != own.shape:
        raise InputError(f"{path}: {name} has shape {list(tensor.shape)}, the network needs {list(own.shape)}")
    return tensor


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"model.init = {str(path)!r} is no file (scratch, imagenet, or a .pth or .safetensors file)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: not readable as weights ({_cause(error)})") from None
    table = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    return {k: v for k, v in table.items() if isinstance(v, Tensor)} if isinstance(table, dict) else {}


def imagenet_file(row: Model) -> Path:
    """Where the ImageNet weights of a network (not timm's) are, fetched if they were not there.

    Raises:
        InputError: there are none, or they cannot be fetched.
    """
    if row.weights is None:
        raise InputError(f"{row.name} has no published ImageNet weights: use model.init = 'scratch' or a file")
    file = Path(torch.hub.get_dir()) / "checkpoints" / row.weights.rpartition("/")[2]
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # its name ends in the beginning of its hash: half a file must not stay
            digest = file.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(row.weights, str(file), hash_prefix=digest, progress=False)
        except Exception as error:
            raise InputError(
                f"{row.name}: ImageNet weights are not here and cannot be fetched ({_cause(error)}): "
                f"put {row.weights} at {file}, or set model.init to its path"
            ) from None
    return file


def _timm_file(network: nn.Module, row: Model) -> Path:
    repository = network.pretrained_cfg.get("hf_hub_id")  # type: ignore[operator,union-attr]
    if not repository:
        raise InputError(f"{row.name} has no published ImageNet weights: use model.init = 'scratch' or a file")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, "model.safetensors", etag_timeout=5))
    except Exception as error:
        raise InputError(
            f"{row.name}: ImageNet weights are not here and cannot be fetched ({_cause(error)}): "
            f"get model.safetensors of {repository} and set model.init to its path"
        ) from None


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
