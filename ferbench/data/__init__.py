"""Images in: `load` reads FER2013 in any edition, other folders of faces, or draws synthetic ones."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ferbench.data.dataset import FER2013_CLASSES, SPLITS, Dataset, Split
from ferbench.errors import InputError, check_utf8

__all__ = ["FER2013_CLASSES", "SPLITS", "Dataset", "Split", "forget", "load", "register", "resolve"]

SYNTHETIC = "synthetic"


def load(path: str | Path | None = None, labels: str | None = None, protocol: str = "official") -> Dataset:
    """The data set at a path under a protocol, from the cache if it was parsed before.

    Args:
        path: a file or folder in any form of `formats.ACCEPTED`, "synthetic" or "synthetic:SEED"; None as in `resolve`.
        labels: "ferplus=FILE" or "ferplus-soft=FILE"; None keeps FER2013's own.
        protocol: a row of `protocol.PROTOCOLS`; "official" takes the splits as the files give them.

    Raises:
        InputError: one line naming file, row and reason.
    """
    given = _load(path, labels)
    if protocol == "official":
        return given
    from ferbench.data.protocol import divide

    return divide(given, protocol)


def _load(path: str | Path | None, labels: str | None) -> Dataset:
    from ferbench.data.cache import cached, cached_by_key

    source = resolve(path)
    if source.partition(":")[0] == SYNTHETIC:
        from ferbench.data.synthetic import VERSION, generate

        if labels is not None:
            raise InputError(f"--labels {labels}: the synthetic faces have no FER+ votes")
        seed = _synthetic_seed(source)
        return cached_by_key(f"synthetic-{VERSION}-{seed}", lambda: generate(seed))

    from ferbench.data.assemble import assemble
    from ferbench.data.ferplus import parse_labels, relabel
    from ferbench.data.formats import read_images
    from ferbench.data.sources import content_hash

    place = Path(source).resolve()
    if labels is None:
        return cached(place, "", lambda: assemble(read_images(place)))
    rule, votes = parse_labels(labels)
    extra = f"{rule} {content_hash(votes)}"
    return cached(place, extra, lambda: assemble(relabel(read_images(place), labels)))


def resolve(path: str | Path | None = None) -> str:
    """Which data `load` takes: the path given, else FERBENCH_DATA, else the registered path, else "synthetic".

    Raises:
        InputError: there is nothing at that path.
    """
    registered = _registration()
    if path is not None:
        source, origin = str(path), "data"
    elif os.environ.get("FERBENCH_DATA"):
        source, origin = os.environ["FERBENCH_DATA"], "FERBENCH_DATA"
    elif registered.is_file():
        source, origin = (
            registered.read_text(encoding="utf-8", errors="replace"),
            "data registered by `ferbench data add`",
        )
    else:
        return SYNTHETIC
    if source.partition(":")[0] == SYNTHETIC:
        return source
    # an empty path would be the current folder
    if not source.strip() or not Path(source).exists():
        raise InputError(f"{origin}: nothing at {source!r}")
    check_utf8(source, f"{origin}:")
    return source


def forget() -> bool:
    """Whether there was a registered data set; now there is none."""
    file = _registration()
    was_there = file.is_file()
    file.unlink(missing_ok=True)
    return was_there


def register(path: str | Path) -> Dataset:
    """The data set at a path, which `resolve` takes from now on."""
    source, file = resolve(path), _registration()
    dataset = load(source)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"data.{os.getpid()}")
    new.write_text(source if source.partition(":")[0] == SYNTHETIC else str(Path(source).resolve()), encoding="utf-8")
    new.replace(file)
    return dataset


def _registration() -> Path:
    if os.environ.get("FERBENCH_CONFIG"):
        return Path(os.environ["FERBENCH_CONFIG"]) / "data"
    from platformdirs import user_config_path

    return user_config_path("ferbench") / "data"


def _synthetic_seed(source: str) -> int:
    seed = source.partition(":")[2] or "0"
    if not re.fullmatch("[0-9]{1,9}", seed):
        raise InputError(f"data {source!r}: expected synthetic or synthetic:SEED with a whole number")
    return int(seed)
