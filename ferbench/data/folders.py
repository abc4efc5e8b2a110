"""Faces in folders: FER2013's `train/<class>/Training_3.jpg`, or any `split/class/image` or `class/image`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from ferbench.data.assemble import Images, hold_out
from ferbench.data.dataset import FER2013_CLASSES, FER2013_COUNTS, RENAMED_FOLDERS, VAL_WAS_DRAWN
from ferbench.data.pictures import SIDE, decode_all, is_image
from ferbench.data.sources import Source
from ferbench.errors import InputError, check_utf8

_SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("val", "valid", "validation", "publictest"), 1),
    **dict.fromkeys(("test", "testing", "privatetest"), 2),
}
_FILE_PREFIXES = {"Training_": 0, "PublicTest_": 1, "PrivateTest_": 2}
_TAKEN_NAMES = ("fer2013", "fer2013-subset", RENAMED_FOLDERS, "ferplus-majority", "ferplus-soft", "synthetic")
_SYNONYMS = {"anger": "angry", "happiness": "happy", "sadness": "sad", "surprised": "surprise", "fearful": "fear"}


def read_folders(source: Source) -> Images:
    """The images of a folder tree, classes read by their folders' names.

    Raises:
        InputError: there is no image, a class is empty, a file is no image or stands where no class is.
    """
    members = source.members()
    if not members:
        raise InputError(f"{source.path}: no files in it")
    _check_no_empty_folder(source, members)
    paths = [PurePosixPath(m) for m in members]
    for member, path in zip(members, paths, strict=True):
        if not is_image(source.head(member, 16)):
            raise InputError(f"{source.describe(member)}: neither an image nor a FER2013 table")
        if len(path.parts) < 2 or path.parts[-2].lower() in _SPLIT_FOLDERS:
            raise InputError(f"{source.describe(member)}: not in a class folder (split/class/image or class/image)")
    classes, labels = _classes(source, [p.parts[-2] for p in paths])
    folder_splits = _folder_splits(source, paths)
    named = [next((s for p, s in _FILE_PREFIXES.items() if path.name.startswith(p)), -1) for path in paths]
    known = classes == FER2013_CLASSES and min(named) >= 0
    images = decode_all(
        (source.read(m) for m in members), [source.describe(m) for m in members], SIDE if known else None
    )
    found = Images(
        name=_own_name(source),
        edition="folders",
        classes=classes,
        images=images,
        labels=labels,
        splits=np.array(named if known else folder_splits or [0] * len(paths), np.uint8),
        sources=members,
    )
    if known:
        return replace(found, name="fer2013")
    return _with_splits(found, had_splits=folder_splits is not None)


def _check_no_empty_folder(source: Source, members: list[str]) -> None:
    used = {str(parent) for m in members for parent in PurePosixPath(m).parents}
    for folder in source.folders():
        if folder not in used:
            raise InputError(f"{source.describe(folder)}: the folder is empty")


def _own_name(source: Source) -> str:
    name = source.path.name.partition(".")[0] or "folder"
    # what a folder is called does not put it on another data set's leaderboard
    return f"other-{name}" if name in _TAKEN_NAMES else name


def _classes(source: Source, folders: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """FER2013's classes in its own order where the folders are exactly those seven, else the names in order."""
    for name in dict.fromkeys(folders):
        check_utf8(name, f"{source.path}: class folder")
    mapped = [_SYNONYMS.get(f.lower(), f.lower()) for f in folders]
    names = FER2013_CLASSES if set(mapped) == set(FER2013_CLASSES) else tuple(sorted(set(folders)))
    if len(names) > 256:
        raise InputError(f"{source.path}: {len(names)} class folders, at most 256 classes: is this the right folder?")
    keys = mapped if names is FER2013_CLASSES else folders
    code = {name: i for i, name in enumerate(names)}
    return names, np.array([code[k] for k in keys], np.uint8)


def _folder_splits(source: Source, paths: list[PurePosixPath]) -> list[int] | None:
    """Split codes by the folder above the class, or None where no folder names a split."""
    splits = [_SPLIT_FOLDERS.get(p.parts[-3].lower(), -1) if len(p.parts) > 2 else -1 for p in paths]
    if max(splits) < 0:
        return None
    if min(splits) < 0:
        odd = paths[splits.index(-1)]
        raise InputError(f"{source.describe(str(odd))}: not below train, val or test, as other images are")
    return splits


def _with_splits(found: Images, had_splits: bool) -> Images:
    """The images with the splits that the folders do not give, and notes that say so."""
    everything = np.ones(len(found.labels), bool)
    if not had_splits:
        note = "the folders have no splits: 80/10/10 % of each class, images with equal pixels kept together"
        return replace(hold_out(found, {"val": 0.1, "test": 0.1}, everything), notes=(note,))
    counts = np.bincount(found.splits, minlength=3)
    if counts[1] == 0 and counts[2] == 0:
        note = "the folders have only train: 80/10/10 % of each class, images with equal pixels kept together"
        return replace(hold_out(found, {"val": 0.1, "test": 0.1}, everything), notes=(note,))
    if counts[1]:
        return found
    renamed = found.classes == FER2013_CLASSES and tuple(counts) == (
        sum(FER2013_COUNTS["train"]), 0, sum(FER2013_COUNTS["val"]) + sum(FER2013_COUNTS["test"])
    )  # fmt: skip
    notes = [VAL_WAS_DRAWN]
    if renamed:
        notes.append(
            "the files are renamed, so PublicTest and PrivateTest cannot be told apart: the official protocol is "
            "impossible, test is the mixed 7,178"
        )
    held_out = hold_out(found, {"val": 0.125}, found.splits == 0)
    return replace(held_out, name=RENAMED_FOLDERS if renamed else found.name, notes=tuple(notes))
