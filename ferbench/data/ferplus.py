"""FER+ votes (Barsoum et al. 2016, arXiv 1608.01041), joined by row to FER2013's CSV."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ferbench.data.assemble import Images
from ferbench.data.dataset import FER2013_CLASSES, SPLITS
from ferbench.data.sources import one_line
from ferbench.data.tables import USAGES
from ferbench.errors import InputError

COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
CLASSES = (*FER2013_CLASSES, "contempt")
_NAMED = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
_BY_CLASS = [COLUMNS.index(_NAMED.get(c, c)) for c in CLASSES]
RULES = ("ferplus", "ferplus-soft")


def parse_labels(labels: str) -> tuple[str, Path]:
    """(rule, file) of "ferplus=FILE" or "ferplus-soft=FILE"."""
    rule, sign, file = labels.partition("=")
    if rule not in RULES or not sign or not file:
        raise InputError(f"--labels {labels!r}: expected ferplus=FILE or ferplus-soft=FILE")
    if not Path(file).is_file():
        raise InputError(f"--labels: no file {file!r}")
    return rule, Path(file)


def relabel(found: Images, labels: str) -> Images:
    """The images with FER+ labels; what the rule cannot label is dropped and counted in the notes.

    "ferplus": the class with most of the ten votes; dropped are rows without an image name, rows whose majority is
    unknown or not a face, and ties. "ferplus-soft": the share of votes of each of the eight classes; dropped are the
    same rows but for ties.

    Raises:
        InputError: the images are no CSV edition, or rows and usages do not agree.
    """
    rule, path = parse_labels(labels)
    if not found.edition.endswith("csv"):
        raise InputError(
            f"--labels {labels}: FER+ joins by row to fer2013.csv; the {found.edition} edition has another order"
        )
    usages, named, votes = _read(path)
    if len(votes) != len(found.labels):
        raise InputError(f"{path}: {len(votes)} rows, the images have {len(found.labels)}")
    wrong = np.flatnonzero(usages != found.splits)
    if len(wrong):
        i = wrong[0]
        raise InputError(
            f"{path}: row {i + 1} is {SPLITS[int(usages[i])]}, the image's row is {SPLITS[int(found.splits[i])]}"
        )
    top = votes.max(1, keepdims=True)
    tie = (votes == top).sum(1) > 1
    face = votes[:, _BY_CLASS].sum(1) > 0
    rejected = (votes[:, 8:] == top).any(1) & ~(tie & (votes[:, :8] == top).any(1)) | ~face
    reasons = {"no image name": ~named, "majority unknown or not a face": named & rejected}
    if rule == "ferplus":
        reasons["tie"] = named & ~rejected & tie
    keep = ~np.logical_or.reduce(list(reasons.values()))
    shares = votes[keep][:, _BY_CLASS].astype(np.float32)
    shares /= shares.sum(1, keepdims=True)
    counted = ", ".join(f"{int(rows.sum())} {reason}" for reason, rows in reasons.items())
    return replace(
        found,
        name="ferplus-soft" if rule == "ferplus-soft" else "ferplus-majority",
        classes=CLASSES,
        images=found.images[keep],
        labels=shares.argmax(1).astype(np.uint8),
        splits=found.splits[keep],
        sources=[found.sources[i] for i in np.flatnonzero(keep).tolist()],
        votes=shares if rule == "ferplus-soft" else None,
        notes=(f"FER+ ({rule}): {int(keep.sum())} of {len(keep)} rows kept; dropped: {counted}",),
    )


def _read(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """(split codes [N], has an image name [N], votes [N, 10] in the order of COLUMNS)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            fields = [f.strip() for f in reader.fieldnames or []]
            missing = {"Usage", "Image name", *COLUMNS} - set(fields)
            if missing:
                raise InputError(f"{path}: no column {sorted(missing)[0]!r}: not FER+'s fer2013new.csv")
            reader.fieldnames = fields
            rows = [_row(row, f"{path}: row {n} (line {n + 1})") for n, row in enumerate(reader, 1)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as CSV ({one_line(error)})") from None
    usages, named, votes = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(usages, np.uint8), np.array(named, bool), np.array(votes, np.int64)


def _row(row: dict[str, str], where: str) -> tuple[int, bool, list[int]]:
    """(split code, has an image name, votes) of a row."""
    # csv puts what is too much under None, and None for what is missing
    if None in row or None in row.values():
        raise InputError(f"{where}: more or fewer fields than columns: is the file cut off?")
    usage = row["Usage"].strip()
    if usage.lower() not in USAGES:
        raise InputError(f"{where}: unknown Usage {usage!r} (Training, PublicTest or PrivateTest)")
    texts = [row[c].strip() for c in COLUMNS]
    for column, text in zip(COLUMNS, texts, strict=True):
        if not re.fullmatch("[0-9]{1,9}", text):
            raise InputError(f"{where}: {column} has {text!r} votes, expected a whole number")
    return USAGES[usage.lower()], bool(row["Image name"].strip()), [int(t) for t in texts]
