from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ferbench.data import load
from ferbench.data.assemble import Images
from ferbench.data.dataset import FER2013_CLASSES
from ferbench.data.ferplus import CLASSES, COLUMNS, relabel
from ferbench.errors import InputError

# neutral happiness surprise sadness anger disgust fear contempt unknown NF
CLEAR = {
    "neutral": (8, 0, 0, 1, 1, 0, 0, 0, 0, 0),
    "happiness": (1, 9, 0, 0, 0, 0, 0, 0, 0, 0),
    "surprise": (0, 0, 10, 0, 0, 0, 0, 0, 0, 0),
    "sadness": (2, 0, 0, 8, 0, 0, 0, 0, 0, 0),
    "anger": (0, 0, 0, 0, 7, 3, 0, 0, 0, 0),
    "disgust": (0, 0, 0, 0, 3, 7, 0, 0, 0, 0),
    "fear": (0, 0, 4, 0, 0, 0, 6, 0, 0, 0),
    "contempt": (3, 0, 0, 0, 0, 1, 0, 6, 0, 0),
}

# name, votes, majority class, soft distribution over the classes with a share; None: dropped
CASES = [
    ("most", (4, 0, 0, 1, 3, 2, 0, 0, 0, 0), "neutral", {"neutral": 0.4, "sad": 0.1, "angry": 0.3, "disgust": 0.2}),
    # votes for unknown and NF are no part of the shares: 4 + 1 + 1 are left of ten
    ("unsure", (4, 0, 1, 1, 0, 0, 0, 0, 3, 1), "neutral", {"neutral": 4 / 6, "surprise": 1 / 6, "sad": 1 / 6}),
    ("plurality", (2, 0, 0, 0, 0, 0, 3, 2, 2, 1), "fear", {"neutral": 2 / 7, "fear": 3 / 7, "contempt": 2 / 7}),
    ("nine votes", (0, 0, 0, 0, 0, 0, 0, 9, 0, 0), "contempt", {"contempt": 1.0}),
    # the label of a tie is the first class in the order of the codes
    ("tie", (4, 0, 0, 4, 1, 0, 0, 0, 1, 0), None, {"neutral": 4 / 9, "sad": 4 / 9, "angry": 1 / 9}),
    ("tie with unknown", (4, 2, 0, 0, 0, 0, 0, 0, 4, 0), None, {"neutral": 4 / 6, "happy": 2 / 6}),
    ("tie with NF", (0, 0, 5, 0, 0, 0, 0, 0, 0, 5), None, {"surprise": 1.0}),
    ("unknown", (3, 0, 0, 2, 0, 0, 0, 0, 5, 0), None, None),
    ("no face", (0, 0, 0, 0, 0, 0, 0, 0, 0, 10), None, None),
    ("mostly no face", (3, 0, 0, 0, 0, 0, 0, 0, 3, 4), None, None),
    ("unknown or no face", (1, 0, 0, 1, 0, 0, 0, 0, 4, 4), None, None),
    ("all unknown", (0, 0, 0, 0, 0, 0, 0, 0, 10, 0), None, None),
    ("no votes", (0, 0, 0, 0, 0, 0, 0, 0, 0, 0), None, None),
    ("unnamed", (0, 10, 0, 0, 0, 0, 0, 0, 0, 0), None, None),
    # counted once, as unnamed
    ("unnamed no face", (0, 0, 0, 0, 0, 0, 0, 0, 0, 10), None, None),
]
HEADER = "Usage,Image name," + ",".join(COLUMNS)
USAGES = ["Training"] * (8 + len(CASES)) + ["PublicTest", "PrivateTest"]
VOTES = [*CLEAR.values(), *(votes for _, votes, _, _ in CASES), CLEAR["fear"], CLEAR["contempt"]]
NAMES = [f"fer{i:07}.png" for i in range(len(VOTES))]
for at, case in enumerate(CASES):
    if case[0].startswith("unnamed"):
        NAMES[8 + at] = ""


def vote_lines():
    rows = zip(USAGES, NAMES, VOTES, strict=True)
    return [HEADER, *(f"{usage},{name}," + ",".join(map(str, votes)) for usage, name, votes in rows)]


@pytest.fixture(scope="module")
def base(write, tmp_path_factory):
    """A folder of the images, each of one grey level that is its row's number, and their votes."""
    folder = tmp_path_factory.mktemp("ferplus")
    rows = [write.row(i % 7, usage, np.full((48, 48), i, np.uint8)) for i, usage in enumerate(USAGES)]
    (folder / "fer2013.csv").write_bytes(write.csv(rows))
    (folder / "icml").write_bytes(write.csv(rows, write.columns.icml))
    (folder / "votes.csv").write_text("\n".join(vote_lines()) + "\n")
    (folder / "table").write_bytes(write.parquet(rows))
    write.folders(folder / "tree", rows)
    return folder


def by_row(split):
    """Each image's label and distribution by its row, counted from 0."""
    return {
        int(image[0, 0]): (CLASSES[label], None if split.votes is None else split.votes[i])
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True))
    }


@pytest.mark.parametrize("edition", ["fer2013.csv", "icml"])
def test_majority(edition, base):
    dataset = load(base / edition, labels=f"ferplus={base / 'votes.csv'}")
    assert (dataset.name, dataset.official) == ("ferplus-majority", False)
    assert dataset.classes == (*FER2013_CLASSES, "contempt")
    expected = dict(enumerate(("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")))
    expected |= {8 + i: label for i, (_, _, label, _) in enumerate(CASES) if label}
    assert {row: label for row, (label, _) in by_row(dataset.train).items()} == expected
    last = len(USAGES) - 1
    assert [label for label, _ in by_row(dataset.val).values()] == ["fear"]
    assert {row: label for row, (label, _) in by_row(dataset.test).items()} == {last: "contempt"}
    assert dataset.train.votes is None and dataset.test.votes is None
    # 8 + 15 + 2 rows, of which 8 + 4 + 2 stay
    assert dataset.notes == (
        "FER+ (ferplus): 14 of 25 rows kept; dropped: 2 no image name, 6 majority unknown or not a face, 3 tie",
    )


def test_soft(base):
    dataset = load(base / "fer2013.csv", labels=f"ferplus-soft={base / 'votes.csv'}")
    assert dataset.name == "ferplus-soft"
    found = by_row(dataset.train)
    expected = {8 + i: shares for i, (_, _, _, shares) in enumerate(CASES) if shares}
    assert set(found) == {*range(8), *expected}
    for row, shares in expected.items():
        label, votes = found[row]
        assert votes == pytest.approx([shares.get(c, 0.0) for c in CLASSES])
        assert shares[label] == max(shares.values())
    assert found[8 + 4][0] == "sad"
    for _, split in dataset.splits():
        assert split.votes.dtype == np.float32
        np.testing.assert_allclose(split.votes.sum(1), 1, rtol=1e-6)
    assert dataset.notes == (
        "FER+ (ferplus-soft): 17 of 25 rows kept; dropped: 2 no image name, 6 majority unknown or not a face",
    )


def test_images_keep_their_rows_under_other_labels(base):
    dataset = load(base / "fer2013.csv", labels=f"ferplus={base / 'votes.csv'}")
    for _, split in dataset.splits():
        assert [int(s.split()[-1]) - 1 for s in split.sources] == [int(i[0, 0]) for i in split.images]


def test_each_rule_and_each_vote_file_is_another_data_set(base, tmp_path):
    lines = vote_lines()
    # one vote less, and still the same majority
    lines[1] = lines[1].replace(",8,0,0,1,1,", ",7,0,0,1,1,")
    other = tmp_path / "votes.csv"
    other.write_text("\n".join(lines))
    file, rules = base / "fer2013.csv", ("ferplus", "ferplus-soft")
    majority, soft = (load(file, labels=f"{rule}={base / 'votes.csv'}").fingerprint for rule in rules)
    other_majority, other_soft = (load(file, labels=f"{rule}={other}").fingerprint for rule in rules)
    assert majority == other_majority
    assert len({majority, soft, other_soft, load(file).fingerprint}) == 4


# what is refused


def refused(call):
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("edition", "called"), [("tree", "folders"), ("table", "parquet")])
def test_only_the_csv_has_the_order_of_the_votes(edition, called, base):
    message = refused(lambda: load(base / edition, labels=f"ferplus={base / 'votes.csv'}"))
    assert f"FER+ joins by row to fer2013.csv; the {called} edition has another order" in message


def with_votes(base, folder, lines):
    path = folder / "votes.csv"
    path.write_bytes(lines if isinstance(lines, bytes) else "\n".join(lines).encode())
    return refused(lambda: load(base / "fer2013.csv", labels=f"ferplus={path}"))


@pytest.mark.parametrize(("keep", "n"), [(-1, 24), (3, 2)])
def test_another_number_of_rows(keep, n, base, tmp_path):
    message = with_votes(base, tmp_path, vote_lines()[:keep])
    assert message.endswith(f"votes.csv: {n} rows, the images have 25")


def test_another_usage(base, tmp_path):
    lines = vote_lines()
    lines[7] = lines[7].replace("Training", "PublicTest")
    assert with_votes(base, tmp_path, lines).endswith("votes.csv: row 7 is val, the image's row is train")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (",9,", ",x,", "happiness has 'x' votes, expected a whole number"),
        (",9,", ",,", "happiness has '' votes"),
        (",9,", ",0.9,", "happiness has '0.9' votes"),
        (",9,", ",-9,", "happiness has '-9' votes"),
        ("Training,", "Train,", "unknown Usage 'Train'"),
        (",0,0,0,0,0,0,0,0", "", "fewer fields than columns"),
        (",9,", ",9,0,", "more or fewer fields than columns"),
    ],
)
def test_fault_in_a_row_is_named(old, new, reason, base, tmp_path):
    lines = vote_lines()
    assert old in lines[2]
    lines[2] = lines[2].replace(old, new, 1)
    message = with_votes(base, tmp_path, lines)
    assert "votes.csv: row 2 (line 3): " in message
    assert reason in message


@pytest.mark.parametrize("column", ["Usage", "Image name", "contempt", "NF"])
def test_missing_column(column, base, tmp_path):
    message = with_votes(base, tmp_path, [vote_lines()[0].replace(column, "other"), *vote_lines()[1:]])
    assert f"votes.csv: no column {column!r}: not FER+'s fer2013new.csv" in message


@pytest.mark.parametrize("content", [b"", b"PAR1\xff\xfe\x00", b"\x1f\x8b\x08" + b"\xff" * 99, b'"' + b"a" * 200_000])
def test_file_that_is_no_table(content, base, tmp_path):
    assert "votes.csv: " in with_votes(base, tmp_path, content)


@pytest.mark.parametrize("labels", ["ferplus", "ferplus=", "=votes.csv", "fer+=votes.csv", "soft=votes.csv", ""])
def test_labels_option_of_another_form(labels, base):
    assert "expected ferplus=FILE or ferplus-soft=FILE" in refused(lambda: load(base / "fer2013.csv", labels=labels))


@pytest.mark.parametrize("name", ["nowhere.csv", ""])
def test_no_file_of_votes(name, base, tmp_path):
    message = refused(lambda: load(base / "fer2013.csv", labels=f"ferplus={tmp_path / name}"))
    assert f"no file '{tmp_path / name}'" in message


def test_drawn_faces_have_no_votes(base):
    message = refused(lambda: load("synthetic", labels=f"ferplus={base / 'votes.csv'}"))
    assert "the synthetic faces have no FER+ votes" in message


# the real votes


@pytest.fixture(scope="module")
def real_votes():
    path = Path(os.environ.get("FERBENCH_TEST_FERPLUS", ""))
    if not path.is_file():
        pytest.skip("FERBENCH_TEST_FERPLUS does not name FER+'s fer2013new.csv")
    return path


def majority(row):
    """The label of a row, or why it has none, told apart one by one."""
    votes = {c: int(row[c]) for c in COLUMNS}
    best = [c for c, n in votes.items() if n == max(votes.values())]
    if not row["Image name"]:
        return "unnamed"
    if set(best) <= {"unknown", "NF"}:
        return "rejected"
    return best[0] if len(best) == 1 else "tie"


def test_the_real_votes(real_votes):
    with real_votes.open(newline="") as file:
        rows = list(csv.DictReader(file))
    splits = np.array([["Training", "PublicTest", "PrivateTest"].index(row["Usage"]) for row in rows], np.uint8)
    n = len(rows)
    # the images do not matter here, so they have one pixel
    found = Images(
        "fer2013", "competition-csv", FER2013_CLASSES, np.zeros((n, 1, 1), np.uint8), np.zeros(n, np.uint8), splits,
        [str(i) for i in range(n)],
    )  # fmt: skip
    result = relabel(found, f"ferplus={real_votes}")
    expected = [majority(row) for row in rows]
    counts = Counter(expected)
    assert (n, counts["unnamed"]) == (35887, 173)
    assert sum(int(row["NF"]) == 10 for row in rows) == 176
    kept = [i for i, label in enumerate(expected) if label not in ("unnamed", "rejected", "tie")]
    assert [int(s) for s in result.sources] == kept
    names = {"anger": "angry", "happiness": "happy", "sadness": "sad"}
    assert [CLASSES[label] for label in result.labels] == [names.get(expected[i], expected[i]) for i in kept]
    assert result.notes == (
        f"FER+ (ferplus): {len(kept)} of 35887 rows kept; dropped: 173 no image name, "
        f"{counts['rejected']} majority unknown or not a face, {counts['tie']} tie",
    )
