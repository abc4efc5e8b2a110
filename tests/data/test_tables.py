from __future__ import annotations

import io

import numpy as np
import pytest

from ferbench.data.sources import open_source
from ferbench.data.tables import read_csv
from ferbench.errors import InputError

K = 3  # which row the faults stand in, counted from 1 below the header, so on line 4


def save(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def with_cell(write, rows, column, text, columns):
    """The CSV's lines with row K's cell replaced."""
    lines = write.lines(rows, columns)
    cells = lines[K].split(",")
    cells[[c.strip() for c in columns].index(column)] = text
    lines[K] = ",".join(cells)
    return lines


# what is one data set in many spellings


def quoted(line: str) -> str:
    return ",".join(f'"{cell}"' for cell in line.split(","))


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("emotion,pixels,Usage", "Emotion,PIXELS,usage"),
        lambda text: text.replace("PrivateTest", "privatetest"),
        lambda text: "\n".join(map(quoted, text.splitlines())) + "\n",
        lambda text: "\n".join(", ".join(quoted(line).split(",")) for line in text.splitlines()),
        lambda text: text + "\n \n",
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace(" ", " 00", 99),
    ],
    ids=[
        "crlf",
        "byte-order-mark",
        "no-last-newline",
        "header-case",
        "usage-case",
        "quoted",
        "quoted-apart",
        "empty-last-lines",
        "two-spaces",
        "zeros",
    ],
)
def test_spelling_of_a_csv_does_not_matter(spell, few, write, read, tmp_path):
    plain, spelt = tmp_path / "plain.csv", tmp_path / "spelt.csv"
    text = write.csv(few).decode()
    plain.write_text(text, encoding="utf-8", newline="")
    spelt.write_text(spell(text), encoding="utf-8", newline="")
    assert spelt.read_bytes() != plain.read_bytes()
    dataset = read(spelt)
    assert dataset.fingerprint == read(plain).fingerprint
    assert dataset.edition == "competition-csv"


@pytest.mark.parametrize("columns", [("Usage", "emotion", "pixels"), ("pixels", "note", "Usage", "emotion")])
def test_columns_are_found_by_name(columns, few, write, read, tmp_path):
    lines = write.lines(few, [c for c in columns if c != "note"])
    if "note" in columns:
        lines = [",".join((line.split(",")[0], "note", *line.split(",")[1:])) for line in lines]
    plain = tmp_path / "plain.csv"
    plain.write_bytes(write.csv(few))
    assert read(save(tmp_path / "mixed.csv", lines)).fingerprint == read(plain).fingerprint


def test_few_images_are_a_subset_and_not_official(few, write, read, tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(write.csv(few))
    dataset = read(path)
    assert (dataset.name, dataset.official, dataset.notes) == ("fer2013-subset", False, ())


# what is wrong with a row


@pytest.mark.parametrize("columns", ["csv", "icml"])
@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("pixels", " ".join(["7"] * 2303), "2303 pixels, expected 2304"),
        ("pixels", " ".join(["7"] * 2305), "2305 pixels, expected 2304"),
        ("pixels", "", "0 pixels, expected 2304"),
        ("pixels", " ".join(["7"] * 9 + ["256"] + ["7"] * 2294), "pixel 10 is '256'"),
        ("pixels", " ".join(["300"] + ["7"] * 2303), "pixel 1 is '300'"),
        ("pixels", " ".join(["7"] * 2303 + ["-1"]), "pixel 2304 is '-1'"),
        ("pixels", " ".join(["7", "abc"] + ["7"] * 2302), "pixel 2 is 'abc'"),
        ("pixels", " ".join(["7", "1.5"] + ["7"] * 2302), "pixel 2 is '1.5'"),
        ("pixels", " ".join(["7", "nan"] + ["7"] * 2302), "pixel 2 is 'nan'"),
        # these are 0 and 255 once they are squeezed into 32 and 8 bits
        ("pixels", " ".join(["7", "4294967296"] + ["7"] * 2302), "pixel 2 is '4294967296'"),
        ("pixels", " ".join(["7", "99999999999999999999"] + ["7"] * 2302), "pixel 2 is '99999999999999999999'"),
        ("pixels", ";".join(["7"] * 2304), "pixel 1 is '7;7"),
        ("emotion", "7", "unknown label '7' (0 to 6)"),
        ("emotion", "-1", "unknown label '-1'"),
        ("emotion", "3.0", "unknown label '3.0'"),
        ("emotion", "happy", "unknown label 'happy'"),
        ("emotion", "", "unknown label ''"),
        ("Usage", "Train", "unknown Usage 'Train' (Training, PublicTest or PrivateTest)"),
        ("Usage", "", "unknown Usage ''"),
        ("Usage", "PublicTest,x", "4 fields, expected 3"),
    ],
)
def test_fault_in_a_row_is_named(column, text, reason, columns, few, write, refusal, tmp_path):
    columns = getattr(write.columns, columns)
    message = refusal(save(tmp_path / "faulty.csv", with_cell(write, few, column, text, columns)))
    assert message.startswith(f"faulty.csv: row {K} (line {K + 1}): ")
    assert reason in message
    assert len(message) < 200


def test_too_few_and_too_many_pixels_do_not_make_up_for_each_other(few, write, refusal, tmp_path):
    lines = write.lines(few)
    label, pixels, usage = lines[K].split(",")
    lines[K] = f"{label},{pixels.rpartition(' ')[0]},{usage}"
    label, pixels, usage = lines[K + 1].split(",")
    lines[K + 1] = f"{label},{pixels} 9,{usage}"
    message = refusal(save(tmp_path / "shifted.csv", lines))
    assert f"row {K} (line {K + 1}): 2303 pixels, expected 2304" in message


def numbers(text):
    """The pixels of a cell as a person would read them, or None."""
    words = text.split()
    good = len(words) == 48 * 48 and all(word.isdecimal() and int(word) <= 255 for word in words)
    return [int(word) for word in words] if good else None


@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_byte_more_or_another_is_read_as_the_numbers_say(place, few, write, tmp_path):
    # most rows are read by a fast way that must see for itself what it cannot read
    path = tmp_path / "changed.csv"
    head, first, second = write.lines(few[:2])
    label, pixels, usage = first.split(",")
    random = np.random.Generator(np.random.PCG64(0))
    low, high = {"start": (0, 9), "middle": (9, len(pixels) - 9), "end": (len(pixels) - 9, len(pixels) + 1)}[place]
    outcomes = set()
    for _ in range(100):
        at, skip = random.integers(low, high), random.integers(2)
        text = pixels[:at] + random.choice(list("0123456789  \t./:")) + pixels[at + skip :]
        path.write_text("\n".join([head, f"{label},{text},{usage}", second]), encoding="utf-8")
        expected = numbers(text)
        outcomes.add(expected is None)
        if expected is None:
            with pytest.raises(InputError, match=r"^changed\.csv: row 1 \(line 2\): "):
                read_csv(open_source(path), path.name)
        else:
            images = read_csv(open_source(path), path.name).images
            np.testing.assert_array_equal(images[0].reshape(-1), expected)
            np.testing.assert_array_equal(images[1], few[1].image)
    assert outcomes == {True, False}


def test_rows_do_not_make_up_for_each_other_in_their_spaces(few, write, refusal, tmp_path):
    # both rows have the usual number of spaces, and both together the right number of pixels
    lines = write.lines(few)
    label, pixels, usage = lines[K].split(",")
    lines[K] = f"{label},{pixels}\t9,{usage}"
    label, pixels, usage = lines[K + 1].split(",")
    lines[K + 1] = f"{label},{pixels.rpartition(' ')[0]} ,{usage}"
    message = refusal(save(tmp_path / "shifted.csv", lines))
    assert f"row {K} (line {K + 1}): 2305 pixels, expected 2304" in message


def test_rows_are_counted_over_the_whole_file(write, refusal, tmp_path):
    # files are read some hundred rows at a time
    black = write.row(0, "Training", np.zeros((48, 48), np.uint8))
    lines = write.lines([black] * 1100)
    lines[1030] = lines[1030].replace("0 0,Training", "0 256,Training")
    message = refusal(save(tmp_path / "long.csv", lines))
    assert message.startswith("long.csv: row 1030 (line 1031): pixel 2304 is '256'")


# what is wrong with a file


@pytest.mark.parametrize(
    ("columns", "missing"),
    [(("emotion", "Usage"), "pixels"), (("pixels", "Usage"), "emotion"), ((" Usage", " pixels"), "emotion")],
)
def test_missing_column_is_named(columns, missing, few, write, refusal, tmp_path):
    message = refusal(save(tmp_path / "part.csv", write.lines(few, columns)))
    assert f"part.csv: no column {missing!r}" in message


@pytest.mark.parametrize("columns", [("emotion", "pixels"), ("pixels",)], ids=["train.csv", "test.csv"])
def test_kaggles_split_tables_are_refused_with_the_way_out(columns, few, write, refusal, tmp_path):
    message = refusal(save(tmp_path / "table.csv", write.lines(few, columns)))
    assert f"table.csv has only {', '.join(columns)}" in message
    assert "without Usage there is no val and test" in message
    assert "fer2013.csv or icml_face_data.csv" in message


@pytest.mark.parametrize("text", ["emotion,pixels,Usage", "emotion,pixels,Usage\n"])
def test_header_alone_is_refused(text, refusal, tmp_path):
    path = tmp_path / "head.csv"
    path.write_text(text)
    assert "no rows below the header" in refusal(path)


def test_rows_without_header_are_refused(few, write, refusal, tmp_path):
    assert "unknown format" in refusal(save(tmp_path / "rows.csv", write.lines(few)[1:]))


@pytest.mark.parametrize(
    ("columns", "keep", "reason"),
    [
        # counted from the end of a file whose last cell is the usage, or the pixels
        ("csv", -3, "unknown Usage 'PrivateTe'"),
        ("csv", -14, "2 fields, expected 3: is the file cut off?"),
        ("icml", -1000, "pixels, expected 2304"),
    ],
)
def test_cut_csv_is_refused(columns, keep, reason, few, write, refusal, tmp_path):
    content = write.csv(few, getattr(write.columns, columns))
    path = tmp_path / "cut.csv"
    path.write_bytes(content[:keep])
    message = refusal(path)
    assert f"row {len(few)} (line {len(few) + 1})" in message
    assert reason in message


@pytest.mark.parametrize(("usage", "split"), [("Training", "train"), ("PublicTest", "val")])
def test_a_table_without_a_needed_split_is_refused(usage, split, few, write, read, tmp_path):
    path = tmp_path / "part.csv"
    path.write_bytes(write.csv([r for r in few if r.usage != usage]))
    with pytest.raises(InputError, match=rf"^fer2013 \(competition-csv\): no {split} image$"):
        read(path)


def test_a_class_without_training_image_is_refused(few, write, read, tmp_path):
    path = tmp_path / "part.csv"
    path.write_bytes(write.csv([r for r in few if (r.label, r.usage) != (1, "Training")]))
    with pytest.raises(InputError, match=r"^fer2013 \(competition-csv\): class 'disgust' has no training image$"):
        read(path)


def test_a_table_without_test_has_none(few, write, read, tmp_path):
    path = tmp_path / "part.csv"
    path.write_bytes(write.csv([r for r in few if r.usage != "PrivateTest"]))
    dataset = read(path)
    assert dataset.test is None
    assert [name for name, _ in dataset.splits()] == ["train", "val"]


# Parquet


def test_parquet_of_plain_bytes_is_read(few, write, read, tmp_path):
    struct, plain = tmp_path / "struct", tmp_path / "plain"
    struct.write_bytes(write.parquet(few))
    plain.write_bytes(write.parquet(few, image=[write.picture(r.image) for r in few]))
    assert read(plain).fingerprint == read(struct).fingerprint
    assert read(plain).train.sources[0].startswith("plain row ")


@pytest.mark.parametrize("column", ["image", "emotion", "usage"])
def test_missing_parquet_column_is_named(column, few, write, refusal, tmp_path):
    path = tmp_path / "part.parquet"
    path.write_bytes(write.parquet(few, **{column: None}))
    assert f"part.parquet: no column {column!r} (found: " in refusal(path)


def replaced(cells, value):
    return [value if i == K - 1 else cell for i, cell in enumerate(cells)]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("emotion", 7, "unknown label '7'"),
        ("emotion", -1, "unknown label '-1'"),
        ("emotion", None, "unknown label 'None'"),
        ("usage", "Train", "unknown Usage 'Train'"),
        ("usage", None, "unknown Usage 'None'"),
        ("image", None, "not readable as an image"),
        ("image", {"bytes": None, "path": "x.png"}, "not readable as an image"),
        ("image", {"bytes": b"", "path": "x.png"}, "not readable as an image"),
        ("image", {"bytes": b"\x89PNG and then nothing", "path": "x.png"}, "not readable as an image"),
    ],
)
def test_fault_in_a_parquet_row_is_named(column, value, reason, few, write, refusal, tmp_path):
    cells = {
        "image": [{"bytes": write.picture(r.image), "path": "a.png"} for r in few],
        "emotion": [r.label for r in few],
        "usage": [r.usage for r in few],
    }[column]
    path = tmp_path / "faulty"
    path.write_bytes(write.parquet(few, **{column: replaced(cells, value)}))
    message = refusal(path)
    assert message.startswith(f"faulty: row {K}") or message.startswith(f"faulty row {K}")
    # a binary file has no lines
    assert reason in message and "line" not in message


def test_parquet_image_of_another_size_is_refused(few, write, refusal, tmp_path):
    images = replaced([write.picture(r.image) for r in few], write.picture(np.zeros((48, 47), np.uint8)))
    path = tmp_path / "wide"
    path.write_bytes(write.parquet(few, image=images))
    assert refusal(path) == f"wide row {K}: 47x48 pixels, expected 48x48"


@pytest.mark.parametrize(
    "cells",
    [["a.png"] * 9, [{"path": "a.png"}] * 9, [5] * 9, [[0.5] * 4] * 9],
    ids=["names", "paths", "numbers", "lists"],
)
def test_parquet_without_image_bytes_is_refused(cells, few, write, refusal, tmp_path):
    path = tmp_path / "no-bytes"
    path.write_bytes(write.parquet(few, image=cells))
    assert "no-bytes row 1" in refusal(path)


def test_parquet_text_that_is_not_unicode_is_refused(few, write, refusal, tmp_path):
    import pyarrow as pa

    usages = pa.array([b"\xff" if i == K else r.usage.encode() for i, r in enumerate(few)]).view(pa.string())
    path = tmp_path / "damaged"
    path.write_bytes(write.parquet(few, usage=usages))
    assert "not readable as Parquet, cut off or damaged ('utf-8' codec" in refusal(path)


def test_parquet_without_rows_is_refused(few, write, refusal, tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "empty"
    pq.write_table(pq.read_table(io.BytesIO(write.parquet(few))).slice(0, 0), path)
    assert refusal(path) == "empty: no rows"


@pytest.mark.parametrize("keep", [4, 100, 0.5, -1])
def test_cut_parquet_is_refused(keep, few, write, refusal, tmp_path):
    content = write.parquet(few)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert "not readable as Parquet, cut off or damaged" in refusal(path)
