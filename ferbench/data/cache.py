"""Parsed data sets on disk: memory-mapped uint8, keyed by the content of the files they came from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ferbench.data.dataset import SPLITS, Dataset, Split
from ferbench.data.sources import content_hash, one_line, signature, to_bytes
from ferbench.errors import InputError

READER_VERSION = 2
"""Raised whenever a reader would give another result for the same files."""


def cache_folder() -> Path:
    """FERBENCH_CACHE, or the user's cache folder."""
    if os.environ.get("FERBENCH_CACHE"):
        return Path(os.environ["FERBENCH_CACHE"])
    from platformdirs import user_cache_path

    return user_cache_path("ferbench")


def cached(path: Path, extra: str, parse: Callable[[], Dataset]) -> Dataset:
    """The data set parsed from `path`, from the cache if the same content was parsed before.

    Args:
        path: file or folder.
        extra: what else the result depends on.
    """
    try:
        index = cache_folder() / "index" / _hash(f"{READER_VERSION} {signature(path)} {extra}")
        # unchanged files are known by size and time; their content is hashed only once
        known = _read_key(index)
        key = known or _hash(f"{READER_VERSION} {path.name} {content_hash(path)} {extra}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None
    dataset = cached_by_key(key, parse)
    if known is None:
        try_writing(index, key)
    return dataset


def _hash(text: str) -> str:
    return hashlib.blake2b(to_bytes(text), digest_size=16).hexdigest()


def _read_key(index: Path) -> str | None:
    """The key in an index file; None if there is none, or what a crash or a full disk left is no key."""
    try:
        text = index.read_text(encoding="latin-1")
    except OSError:
        return None
    # anything else would name another folder, and a folder that cannot be read is removed
    return text if re.fullmatch("[0-9a-f]{32}", text) else None


def cached_by_key(key: str, parse: Callable[[], Dataset]) -> Dataset:
    """The data set stored under a key, or a newly parsed one, then stored."""
    folder = cache_folder() / key
    stored = _read(folder)
    if stored is not None:
        return stored
    dataset = parse()
    _write(folder, dataset)
    return _read(folder) or dataset


def try_writing(file: Path, text: str) -> None:
    """Put a small ASCII file in place if that is possible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(text, encoding="ascii")
        temporary.replace(file)
    except OSError:
        # a cache that cannot be written costs time, nothing else
        return


def _write(folder: Path, dataset: Dataset) -> None:
    """Store a data set in one move; a folder that is there and cannot be read is replaced."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="writing-"))
    except OSError:
        return
    try:
        for name, split in dataset.splits():
            np.save(temporary / f"{name}-images.npy", split.images)
            np.save(temporary / f"{name}-labels.npy", split.labels)
            if split.votes is not None:
                np.save(temporary / f"{name}-votes.npy", split.votes)
            (temporary / f"{name}-sources").write_bytes(zlib.compress(to_bytes("\0".join(split.sources)), 1))
        facts = {k: getattr(dataset, k) for k in ("name", "edition", "classes", "fingerprint", "official", "notes")}
        (temporary / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
        if folder.exists() and _read(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError:
        # the disk is full, or another process was first
        shutil.rmtree(temporary, ignore_errors=True)


def _read(folder: Path) -> Dataset | None:
    try:
        facts = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        splits = {name: _read_split(folder, name) for name in SPLITS}
        return Dataset(
            facts["name"],
            facts["edition"],
            tuple(facts["classes"]),
            **splits,  # type: ignore[arg-type]
            fingerprint=facts["fingerprint"],
            official=facts["official"],
            notes=tuple(facts["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error):
        return None


def _read_split(folder: Path, name: str) -> Split | None:
    if name == "test" and not (folder / "test-images.npy").exists():
        return None
    images = np.load(folder / f"{name}-images.npy", mmap_mode="r")
    labels = np.load(folder / f"{name}-labels.npy")
    votes = folder / f"{name}-votes.npy"
    sources = zlib.decompress((folder / f"{name}-sources").read_bytes()).decode(errors="surrogateescape").split("\0")
    if not len(images) == len(labels) == len(sources):
        raise ValueError("the parts do not fit together")
    return Split(images, labels, tuple(sources), np.load(votes) if votes.exists() else None)
