"""A few faces, written in every form that a user's disk may hold them in."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from ferbench.data import FER2013_CLASSES, Dataset
from ferbench.data.assemble import assemble
from ferbench.data.formats import read_images
from ferbench.data.synthetic import generate
from ferbench.errors import InputError

USAGES = ("Training", "PublicTest", "PrivateTest")
CSV = ("emotion", "pixels", "Usage")
ICML = ("emotion", " Usage", " pixels")


class Row(NamedTuple):
    label: int
    usage: str
    image: np.ndarray


def draw_rows() -> list[Row]:
    """28 + 14 + 14 faces in mixed order, and a twin in test, a twin with another label in train, and a black image."""
    drawn = generate(seed=11, train=28, val=14, test=14)
    rows = [
        Row(int(label), usage, np.array(image))
        for usage, (_, split) in zip(USAGES, drawn.splits(), strict=True)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    first, second = rows[0], rows[1]
    rows.append(Row(first.label, "PrivateTest", first.image))
    rows.append(Row((second.label + 1) % 7, "Training", second.image))
    rows.append(Row(3, "Training", np.zeros((48, 48), np.uint8)))
    order = np.random.Generator(np.random.PCG64(1)).permutation(len(rows))
    return [rows[i] for i in order]


def pixel_text(image: np.ndarray) -> str:
    return " ".join(map(str, image.reshape(-1).tolist()))


def csv_lines(rows: Sequence[Row], columns: Sequence[str] = CSV) -> list[str]:
    """The lines of a CSV, header first, without line ends."""
    lines = [",".join(columns)]
    for row in rows:
        cells = {"emotion": str(row.label), "pixels": pixel_text(row.image), "usage": row.usage}
        lines.append(",".join(cells[c.strip().lower()] for c in columns))
    return lines


def csv_bytes(rows: Sequence[Row], columns: Sequence[str] = CSV) -> bytes:
    return ("\n".join(csv_lines(rows, columns)) + "\n").encode()


def picture_bytes(image: np.ndarray | Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def write_folders(root: Path, rows: Sequence[Row]) -> Path:
    """FER2013's tree: both held-out usages lie in one folder "test", and only the file's name tells them apart."""
    for i, row in enumerate(rows):
        top = "train" if row.usage == "Training" else "test"
        folder = root / top / FER2013_CLASSES[row.label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row.usage}_{i}.png").write_bytes(picture_bytes(row.image))
    return root


def parquet_bytes(rows: Sequence[Row], **changes: list | None) -> bytes:
    """The layout of Hugging Face's image data; `changes` replace whole columns, None leaves one out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list | None] = {
        "image": [{"bytes": picture_bytes(row.image), "path": f"{row.usage}_{i}.png"} for i, row in enumerate(rows)],
        "emotion": [row.label for row in rows],
        "usage": [row.usage for row in rows],
        **changes,
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: cells for name, cells in columns.items() if cells is not None}), buffer)
    return buffer.getvalue()


def pack(kind: str, path: Path, target: Path) -> Path:
    """A file or folder as "gz", "zip", "tar" or "tar.gz", a folder below one more folder as downloads have it."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    names = [f"archive/{p.relative_to(path).as_posix()}" if path.is_dir() else path.name for p in files]
    if kind == "gz":
        target.write_bytes(gzip.compress(path.read_bytes(), 1))
    elif kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, name in zip(files, names, strict=True):
                archive.write(file, name)
    else:
        with tarfile.open(target, "w:gz" if kind == "tar.gz" else "w") as archive:
            for file, name in zip(files, names, strict=True):
                archive.add(file, name)
    return target


def noise_picture(i: int) -> np.ndarray:
    """A picture of its own for each number."""
    return np.random.Generator(np.random.PCG64(i)).integers(0, 256, (48, 48), np.uint8)


@pytest.fixture(scope="session")
def write() -> SimpleNamespace:
    """The writers above, by name."""
    return SimpleNamespace(
        columns=SimpleNamespace(csv=CSV, icml=ICML),
        row=Row,
        lines=csv_lines,
        csv=csv_bytes,
        picture=picture_bytes,
        folders=write_folders,
        parquet=parquet_bytes,
        pack=pack,
    )


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return draw_rows()


@pytest.fixture(scope="session")
def few(rows: list[Row]) -> list[Row]:
    """One face of each class in train and one in val and test: little to write, and enough to be a data set."""
    train = [next(r for r in rows if r.usage == "Training" and r.label == code) for code in range(7)]
    return [*train, *(next(r for r in rows if r.usage == usage) for usage in USAGES[1:])]


@pytest.fixture(scope="session")
def editions(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The rows in each edition, under names that say nothing, or something wrong, about the form."""
    base = tmp_path_factory.mktemp("editions")
    paths = {
        "competition-csv": base / "one.zip",
        "icml-csv": base / "two",
        "folders": base / "three.csv",
        "parquet": base / "four.tar.gz",
    }
    paths["competition-csv"].write_bytes(csv_bytes(rows))
    paths["icml-csv"].write_bytes(csv_bytes(rows, ICML))
    paths["parquet"].write_bytes(parquet_bytes(rows))
    write_folders(paths["folders"], rows)
    return paths


@pytest.fixture(scope="session")
def expected(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each split in canonical order: by the pixels' hash, then by label."""

    def key(row: Row) -> tuple[str, int]:
        return hashlib.blake2b(row.image.tobytes(), digest_size=16).hexdigest(), row.label

    return {
        split: sorted((r for r in rows if r.usage == usage), key=key)
        for split, usage in zip(("train", "val", "test"), USAGES, strict=True)
    }


@pytest.fixture(scope="session")
def read() -> Callable[[Path], Dataset]:
    """The data set at a path, read without the cache."""
    return lambda path: assemble(read_images(path))


@pytest.fixture(scope="session")
def refusal(read: Callable[[Path], Dataset]) -> Callable[[Path], str]:
    """What a reader says about a path it must refuse: one line that names it."""

    def call(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            read(path)
        message = str(caught.value)
        assert "\n" not in message
        assert path.name in message
        return message

    return call


@pytest.fixture(scope="session")
def fer2013_file() -> Path:
    """The real FER2013, where a test may use it."""
    path = os.environ.get("FERBENCH_TEST_FER2013")
    if not path:
        pytest.skip("FERBENCH_TEST_FER2013 does not name a FER2013 Parquet file")
    return Path(path)


@pytest.fixture(scope="session")
def noise() -> Callable[[int], np.ndarray]:
    return noise_picture


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[str, dict[str, Iterable[int]]], Path]:
    """Write pictures into a tree: `{"train/a": range(3)}` puts pictures 0, 1 and 2 into train/a."""

    def call(name: str, tree: dict[str, Iterable[int]]) -> Path:
        root = tmp_path / name
        for folder, numbers in tree.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for at, i in enumerate(numbers):
                (root / folder / f"{at:03}.png").write_bytes(picture_bytes(noise_picture(i)))
        return root

    return call


@pytest.fixture
def small_tree(plant: Callable[[str, dict[str, Iterable[int]]], Path]) -> Path:
    """A folder "faces" of two classes and six pictures."""
    return plant("faces", {"train/a": range(2), "train/b": range(2, 4), "val/a": [4], "test/b": [5]})


@pytest.fixture
def table(few: list[Row], write: SimpleNamespace, tmp_path: Path) -> Path:
    """A CSV file of a few faces."""
    path = tmp_path / "faces.csv"
    path.write_bytes(write.csv(few))
    return path


@pytest.fixture
def tree(few: list[Row], write: SimpleNamespace, tmp_path: Path) -> Path:
    """The same faces in folders."""
    return write.folders(tmp_path / "tree", few)
