"""FER2013 as a table: the competition's CSV files and Parquet."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ferbench.data.assemble import Images
from ferbench.data.dataset import FER2013_CLASSES
from ferbench.data.pictures import decode_all
from ferbench.data.sources import Source, one_line
from ferbench.errors import InputError

SIDE = 48
N_PIXELS = SIDE * SIDE
USAGES = {"training": 0, "publictest": 1, "privatetest": 2}
_ROWS_AT_ONCE = 512


def csv_columns(head: bytes) -> list[str] | None:
    """The header's column names without spaces and quotes, or None if this is no CSV of pixels."""
    line = head.partition(b"\n")[0].decode("utf-8-sig", errors="replace")
    columns = [c.strip().strip('"').strip().lower() for c in line.split(",")]
    return columns if "pixels" in columns or "emotion" in columns else None


def read_csv(source: Source, member: str) -> Images:
    """The images of fer2013.csv or icml_face_data.csv.

    Raises:
        InputError: a column is missing or a row is wrong, named with its row and line.
    """
    where = source.describe(member)
    with source.open(member) as file:
        header = file.readline()
        columns = csv_columns(header) or []
        for needed in ("emotion", "pixels", "usage"):
            if needed not in columns:
                raise InputError(
                    f"{where}: no column {needed!r} (found: {', '.join(columns)}); "
                    "fer2013.csv and icml_face_data.csv have emotion, pixels and Usage"
                )
        chunks = [_csv_rows(rows, columns, where, at) for at, rows in _chunks(file)]
    if not chunks:
        raise InputError(f"{where}: no rows below the header")
    images, labels, splits = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    edition = "icml-csv" if b" pixels" in header or b" Usage" in header else "competition-csv"
    sources = [f"{where} row {i + 1}" for i in range(len(labels))]
    return Images("fer2013", edition, FER2013_CLASSES, images, labels, splits, sources)


def _chunks(file: BinaryIO) -> Iterator[tuple[int, list[bytes]]]:
    at = 0
    while rows := list(itertools.islice(file, _ROWS_AT_ONCE)):
        n = len(rows)
        while rows and not rows[-1].strip():
            # an editor's empty last line
            rows.pop()
        if rows:
            yield at, rows
        at += n


def _csv_rows(
    rows: list[bytes], columns: list[str], where: str, at: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images `[n, 48, 48]`, labels and splits of some lines, `at` rows below the header."""
    i_label, i_pixels, i_usage = (columns.index(c) for c in ("emotion", "pixels", "usage"))
    labels, splits, texts = [], [], []
    for n, row in enumerate(rows, at + 1):
        cells = row.rstrip(b"\r\n").split(b",")
        place = f"{where}: row {n} (line {n + 1})"
        if len(cells) != len(columns):
            raise InputError(f"{place}: {len(cells)} fields, expected {len(columns)}: is the file cut off?")
        labels.append(_label(cells[i_label], place))
        splits.append(_usage(cells[i_usage], place))
        texts.append(cells[i_pixels].strip().strip(b'"'))
    pixels = _plain_pixels(texts)
    if pixels is None:
        pixels = _spaced_pixels(texts, where, at)
    return pixels.reshape(-1, SIDE, SIDE), np.array(labels, np.uint8), np.array(splits, np.uint8)


def _plain_pixels(texts: list[bytes]) -> npt.NDArray[np.uint8] | None:
    """The numbers of texts with one space between two numbers, as FER2013 has them; None where anything is otherwise.

    All at once, each from the three bytes before the one that ends it: several times faster than numpy's own reader.
    """
    # a line end behind each text, and three in front: the first number too has three bytes before its end
    codes = np.frombuffer(b"\n".join([b"\n\n", *texts, b""]), np.uint8)
    # bytes that are no digit wrap round to more than 9
    digits = codes - np.uint8(ord("0"))
    ends = np.flatnonzero(digits[3:] > 9)
    if len(ends) != len(texts) * N_PIXELS:
        return None
    hundreds, tens, ones = (digits[k:][ends] for k in range(3))
    has_tens = tens <= 9
    has_hundreds = has_tens & (hundreds <= 9)
    values = ones + 10 * tens * has_tens + np.uint16(100) * (hundreds * has_hundreds)
    n_digits = len(ends) + np.count_nonzero(has_tens) + np.count_nonzero(has_hundreds)
    separators = codes[3:][ends].reshape(-1, N_PIXELS)
    plain = (
        (separators[:, :-1] == ord(" ")).all()
        and (separators[:, -1] == ord("\n")).all()
        and ones.max() <= 9
        and values.max() <= 255
        # what is left over are fourth digits
        and 3 + n_digits + len(ends) == len(codes)
    )
    return values.astype(np.uint8) if plain else None


def _spaced_pixels(texts: list[bytes], where: str, at: int) -> npt.NDArray[np.uint8]:
    """The numbers of texts with any white space between them, or the error that names the first wrong row."""
    with warnings.catch_warnings():
        # numpy stops at what is no number and warns; the size tells, and _bad_pixels finds the row
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            # 64 bits: numbers that do not fit come out as the largest, where 32 would wrap round
            values = np.fromstring(b" ".join(texts).decode("latin-1"), dtype=np.int64, sep=" ")
        except ValueError:
            values = np.empty(0, np.int64)
    whole = values.size == len(texts) * N_PIXELS and all(len(text.split()) == N_PIXELS for text in texts)
    if not whole or values.min() < 0 or values.max() > 255:
        raise _bad_pixels(texts, where, at)
    return values.astype(np.uint8)


def _label(cell: bytes, place: str) -> int:
    text = cell.strip().strip(b'"').decode("utf-8", errors="replace")
    if len(text) == 1 and text.isdecimal() and int(text) < len(FER2013_CLASSES):
        return int(text)
    raise InputError(f"{place}: unknown label {text!r} (0 to {len(FER2013_CLASSES) - 1})")


def _usage(cell: bytes, place: str) -> int:
    text = cell.strip().strip(b'"').decode("utf-8", errors="replace")
    if text.lower() in USAGES:
        return USAGES[text.lower()]
    raise InputError(f"{place}: unknown Usage {text!r} (Training, PublicTest or PrivateTest)")


def _bad_pixels(texts: list[bytes], where: str, at: int) -> InputError:
    """The error that names the first wrong row."""
    total = 0
    for n, text in enumerate(texts, at + 1):
        words = text.decode("latin-1").split()
        place = f"{where}: row {n} (line {n + 1})"
        for i, word in enumerate(words):
            if not word.isdecimal() or int(word[:24]) > 255:
                return InputError(f"{place}: pixel {i + 1} is {word[:24]!r}, expected a whole number from 0 to 255")
        if len(words) != N_PIXELS:
            return InputError(f"{place}: {len(words)} pixels, expected {N_PIXELS} (48 x 48)")
        total += len(words)
    return InputError(f"{where}: rows {at + 1} to {at + len(texts)}: pixels are not separated by spaces")


def read_parquet(source: Source, member: str) -> Images:
    """The images of a Parquet file with columns image (bytes and path, or bytes), emotion and usage.

    Raises:
        InputError: it cannot be read, a column is missing, or a row is wrong.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = source.describe(member)
    try:
        table = pq.read_table(io.BytesIO(source.read(member)))
        columns = {
            name: table[name].to_pylist() for name in ("image", "emotion", "usage") if name in table.column_names
        }
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: not readable as Parquet, cut off or damaged ({one_line(error)})") from None
    for needed in ("image", "emotion", "usage"):
        if needed not in columns:
            raise InputError(
                f"{where}: no column {needed!r} (found: {', '.join(table.column_names)}); needed: image, emotion, usage"
            )
    if not table.num_rows:
        raise InputError(f"{where}: no rows")
    cells = columns["image"]
    contents = [(c.get("bytes") if isinstance(c, dict) else c) or b"" for c in cells]
    paths = [str((c.get("path") if isinstance(c, dict) else None) or "") for c in cells]
    names = [f"{where} row {i + 1}" + (f" ({p})" if p else "") for i, p in enumerate(paths)]
    labels = [_label(str(v).encode(), f"{where}: row {i + 1}") for i, v in enumerate(columns["emotion"])]
    splits = [_usage(str(v).encode(), f"{where}: row {i + 1}") for i, v in enumerate(columns["usage"])]
    images = decode_all(contents, names, exact_side=SIDE)
    return Images(
        "fer2013", "parquet", FER2013_CLASSES, images, np.array(labels, np.uint8), np.array(splits, np.uint8), names
    )
