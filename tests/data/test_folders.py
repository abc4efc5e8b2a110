from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest

from ferbench.data import FER2013_CLASSES, folders, load
from ferbench.data.checks import describe
from ferbench.errors import InputError

NO_SPLITS = "the folders have no splits: 80/10/10 % of each class, images with equal pixels kept together"
ONLY_TRAIN = "the folders have only train: 80/10/10 % of each class, images with equal pixels kept together"
NO_VAL = "no val folder: 12.5 % of each class of train, images with equal pixels kept together"


SMALL = {"train/a": range(2), "train/b": range(2, 4), "val/a": [4], "test/b": [5]}


def pictures(split):
    return {image.tobytes() for image in split.images}


# which class an image is of


def test_fer2013s_classes_are_read_by_name(plant, read, noise):
    # sorted, neutral comes before sad and surprise; in the competition's codes it is the last
    tree = {
        f"{split}/{c}": [10 * n + i]
        for n, split in enumerate(("train", "val", "test"))
        for i, c in enumerate(FER2013_CLASSES)
    }
    dataset = read(plant("faces", tree))
    assert dataset.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    for n, (_, split) in enumerate(dataset.splits()):
        found = {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
        assert found == {noise(10 * n + i).tobytes(): i for i in range(7)}


def test_other_names_of_fer2013s_classes(plant, read, noise):
    names = ("Anger", "disgust", "FEARFUL", "happiness", "Sadness", "surprised", "Neutral")
    tree = {f"{split}/{c}": [10 * n + i] for n, split in enumerate(("train", "val")) for i, c in enumerate(names)}
    dataset = read(plant("faces", tree))
    assert dataset.classes == FER2013_CLASSES
    assert {
        i: label
        for i in range(7)
        for image, label in zip(dataset.train.images, dataset.train.labels, strict=True)
        if image.tobytes() == noise(i).tobytes()
    } == {i: i for i in range(7)}


def test_other_classes_keep_their_names_in_order(plant, read):
    dataset = read(plant("faces", {"train/zeal": [0], "train/Awe": [1], "val/Awe": [2]}))
    assert dataset.classes == ("Awe", "zeal")
    assert dataset.val.labels.tolist() == [0]


def test_some_of_fer2013s_classes_are_a_set_of_their_own(plant, read):
    dataset = read(plant("faces", {"train/sad": [0], "train/neutral": [1], "val/sad": [2]}))
    assert dataset.classes == ("neutral", "sad")
    assert (dataset.name, dataset.official) == ("faces", False)


# which split an image is in


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "valid", "Testing"),
        ("TRAIN", "PublicTest", "PrivateTest"),
        ("x/train", "x/validation", "x/test"),
    ],
)
def test_splits_are_read_from_the_folders(train, val, test, plant, read, noise):
    tree = {f"{train}/a": [0, 1, 2], f"{train}/b": [3], f"{val}/a": [4, 5], f"{test}/b": [6]}
    dataset = read(plant("faces", tree))
    assert [pictures(s) for _, s in dataset.splits()] == [
        {noise(i).tobytes() for i in numbers} for numbers in ((0, 1, 2, 3), (4, 5), (6,))
    ]
    assert (dataset.name, dataset.edition, dataset.official, dataset.notes) == ("faces", "folders", False, ())


def test_without_test_folder_there_is_no_test(plant, read):
    dataset = read(plant("faces", {"train/a": [0], "train/b": [1], "val/a": [2]}))
    assert dataset.test is None
    assert dataset.notes == ()


def test_file_names_of_fer2013_decide_only_where_all_have_them(write, read, tmp_path, noise):
    usages = ["Training"] * 8 + ["PublicTest", "PrivateTest"]
    rows = [write.row(c, usage, noise(100 * c + i)) for c in range(7) for i, usage in enumerate(usages)]
    root = write.folders(tmp_path / "mixed", rows)
    assert [len(s) for _, s in read(root).splits()] == [56, 7, 7]
    renamed = next((root / "train" / "happy").iterdir())
    renamed.rename(renamed.with_name("im0.png"))
    dataset = read(root)
    # both held-out usages stay in test, and train gives one in eight to val
    assert [len(s) for _, s in dataset.splits()] == [49, 7, 14]
    assert (dataset.name, dataset.notes) == ("mixed", (NO_VAL,))


@pytest.mark.parametrize("packing", ["plain", "zip", "tar"])
@pytest.mark.parametrize(
    ("top", "note", "sizes"),
    [
        # by class: 40 and 80 images, 10 % of each is 4 and 8, and 12.5 % is 5 and 10
        ("", NO_SPLITS, {"train": (32, 64), "val": (4, 8), "test": (4, 8)}),
        ("train/", ONLY_TRAIN, {"train": (32, 64), "val": (4, 8), "test": (4, 8)}),
    ],
)
def test_held_out_splits_have_each_class_in_its_share(top, note, sizes, packing, plant, write, read, tmp_path):
    root = plant("faces", {f"{top}a": range(40), f"{top}b": range(100, 180)})
    path = root if packing == "plain" else write.pack(packing, root, tmp_path / f"faces.v2.{packing}")
    dataset = read(path)
    assert {name: tuple(split.counts(2)) for name, split in dataset.splits()} == sizes
    assert (dataset.name, dataset.official, dataset.notes) == ("faces", False, (note,))
    assert describe(dataset).distinct == 120


def test_val_is_held_out_from_train_alone_where_test_is_there(plant, read, noise):
    tree = {"train/a": range(40), "train/b": range(100, 180), "test/a": range(200, 203), "test/b": range(300, 310)}
    dataset = read(plant("faces", tree))
    assert {name: tuple(split.counts(2)) for name, split in dataset.splits()} == {
        "train": (35, 70), "val": (5, 10), "test": (3, 10),
    }  # fmt: skip
    assert pictures(dataset.test) == {noise(i).tobytes() for i in (*range(200, 203), *range(300, 310))}
    assert dataset.notes == (NO_VAL,)


def test_held_out_images_are_the_same_every_time(plant, read, noise):
    first = read(plant("one", {"a": range(40), "b": range(100, 140)}))
    # other file names and another order of the files
    again = read(plant("two", {"a": range(39, -1, -1), "b": range(139, 99, -1)}))
    assert again.fingerprint == first.fingerprint
    assert (first.name, again.name) == ("one", "two")
    # the files' order is not simply cut into pieces
    held = pictures(first.val) | pictures(first.test)
    assert held != {noise(i).tobytes() for i in (*range(8), *range(100, 108))}
    assert held != {noise(i).tobytes() for i in (*range(32, 40), *range(132, 140))}


def test_twins_stay_in_one_split(plant, read):
    # each picture of a three times, each of b twice, and one of a also among b
    tree = {"a": [i for i in range(30) for _ in range(3)], "b": [i for i in range(50, 80) for _ in range(2)]}
    facts = describe(read(plant("faces", tree)))
    assert (facts.distinct, facts.groups) == (60, 60)
    assert (facts.groups_across, facts.val_in_train, facts.test_in_either) == (0, 0, 0)
    # 30 pictures of each class, 3 of them for val and 3 for test
    assert facts.counts == {"train": (72, 48), "val": (9, 6), "test": (9, 6)}


def test_twins_with_different_labels_stay_in_one_split(plant, read):
    facts = describe(read(plant("faces", {"a": range(20), "b": range(10, 30)})))
    assert (facts.images, facts.groups, facts.groups_with_labels, facts.groups_across) == (40, 10, 10, 0)
    assert facts.val_in_train == facts.test_in_either == 0
    assert min(map(sum, facts.counts.values())) > 0


# FER2013 with other file names


@pytest.fixture
def small_fer2013(monkeypatch):
    """FER2013 as if it had 8 training images of each class and 1 + 1 others, so that a few files are all of it."""
    counts = {"train": (8,) * 7, "val": (1,) * 7, "test": (1,) * 7}
    monkeypatch.setattr(folders, "FER2013_COUNTS", counts)
    monkeypatch.setattr("ferbench.data.assemble.FER2013_COUNTS", counts)


def renamed_tree(train=8, test=2):
    trees = {f"train/{c}": range(100 * i, 100 * i + train) for i, c in enumerate(FER2013_CLASSES)}
    return {**trees, **{f"test/{c}": range(100 * i + 50, 100 * i + 50 + test) for i, c in enumerate(FER2013_CLASSES)}}


@pytest.mark.parametrize("name", ["fer2013", "download"])
def test_renamed_fer2013_says_that_the_official_protocol_is_impossible(name, small_fer2013, plant, read):
    dataset = read(plant(name, renamed_tree()))
    assert (dataset.name, dataset.official) == ("fer2013-folder", False)
    assert dataset.notes[0] == NO_VAL
    assert "PublicTest and PrivateTest cannot be told apart" in dataset.notes[1]
    assert "the official protocol is impossible" in dataset.notes[1]
    # 12.5 % of 8 is 1
    assert {n: tuple(s.counts(7)) for n, s in dataset.splits()} == {
        "train": (7,) * 7,
        "val": (1,) * 7,
        "test": (2,) * 7,
    }


def test_fer2013_under_its_own_file_names_is_official(small_fer2013, write, read, tmp_path, noise):
    usages = ["Training"] * 8 + ["PublicTest", "PrivateTest"]
    rows = [write.row(c, usage, noise(100 * c + i)) for c in range(7) for i, usage in enumerate(usages)]
    dataset = read(write.folders(tmp_path / "whatever", rows))
    assert (dataset.name, dataset.official, dataset.notes) == ("fer2013", True, ())


@pytest.mark.parametrize("name", ["fer2013", "fer2013-folder", "synthetic", "ferplus-majority"])
def test_a_folders_name_does_not_make_it_a_known_data_set(name, plant, read):
    # the leaderboard goes by the name, and a folder may be called anything
    dataset = read(plant(name, SMALL))
    assert (dataset.name, dataset.official) == (f"other-{name}", False)


def test_seven_classes_in_a_folder_called_fer2013_are_not_the_official_set(small_fer2013, plant, read):
    tree = {
        f"{split}/{c}": range(1000 * n + 100 * i, 1000 * n + 100 * i + size)
        for n, (split, size) in enumerate((("train", 8), ("val", 1), ("test", 1)))
        for i, c in enumerate(FER2013_CLASSES)
    }
    assert not read(plant("fer2013", tree)).official


# what is refused


def test_picture_of_another_size_in_fer2013_is_refused(few, write, refusal, tmp_path):
    root = write.folders(tmp_path / "fer", few)
    (root / "train" / "sad" / "Training_99.png").write_bytes(write.picture(np.zeros((50, 48), np.uint8)))
    assert refusal(root) == "fer/train/sad/Training_99.png: 48x50 pixels, expected 48x48"


@pytest.mark.parametrize("content", [b"", b"dear diary", b"emotion,happy", b"<svg/>"])
@pytest.mark.parametrize("many", [False, True])
def test_file_that_is_no_picture_is_refused(content, many, plant, refusal):
    # in a folder of few files tables are looked for, in one of many they are not
    tree = {**SMALL, "train/a": range(100, 160)} if many else SMALL
    root = plant("faces", tree)
    (root / "train" / "b" / "x.png").write_bytes(content)
    message = refusal(root)
    assert "faces/train/b/x.png" in message
    if many or not content.startswith(b"emotion"):
        assert "neither an image nor a FER2013 table" in message


@pytest.mark.parametrize("name", ["x.png", "train/x.png"])
def test_picture_outside_of_the_class_folders_is_refused(name, plant, write, refusal, noise):
    root = plant("faces", SMALL)
    (root / name).write_bytes(write.picture(noise(99)))
    message = refusal(root)
    assert message.startswith(f"faces/{name}: not ")


def test_split_folders_are_no_classes(plant, refusal):
    message = refusal(plant("faces", {"train": range(20), "test": range(20, 40)}))
    assert "faces/test/000.png: not in a class folder (split/class/image or class/image)" in message


def test_single_picture_is_refused(write, refusal, tmp_path, noise):
    path = tmp_path / "me.png"
    path.write_bytes(write.picture(noise(1)))
    assert "not in a class folder" in refusal(path)


@pytest.mark.parametrize("folder", ["other/a", "a"])
def test_picture_beside_the_splits_is_refused(folder, plant, refusal):
    message = refusal(plant("faces", {**SMALL, folder: [50]}))
    assert f"faces/{folder}/000.png: not below train, val or test" in message


@pytest.mark.parametrize("packing", ["plain", "zip", "tar", "tar.gz"])
def test_empty_class_folder_is_refused(packing, plant, refusal, tmp_path):
    root = plant("faces", SMALL)
    (root / "train" / "bored").mkdir()
    path = tmp_path / "packed"
    if packing == "plain":
        path = root
    elif packing == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for inside in sorted(root.rglob("*")):
                archive.write(inside, inside.relative_to(root))
    else:
        with tarfile.open(path, "w:gz" if packing == "tar.gz" else "w") as archive:
            archive.add(root, ".")
    assert refusal(path).endswith("/train/bored: the folder is empty")


def test_class_with_nothing_but_litter_is_empty(plant, refusal):
    root = plant("faces", SMALL)
    (root / "train" / "bored").mkdir()
    (root / "train" / "bored" / ".DS_Store").write_bytes(b"\0")
    assert refusal(root) == "faces/train/bored: the folder is empty"


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({**SMALL, "test/c": [50]}, "class 'c' has no training image"),
        ({"val/a": [0], "test/a": [1]}, "no train image"),
        # two images cannot stand in three splits
        ({"a": range(2), "b": range(10, 12)}, "no val image"),
    ],
)
def test_split_or_class_without_images_is_refused(tree, reason, plant, refusal):
    assert refusal(plant("faces", tree)) == f"faces (folders): {reason}"


def test_more_classes_than_codes_are_refused(plant, refusal):
    message = refusal(plant("people", {f"person{i}": [0] for i in range(257)}))
    assert "257 class folders" in message
    assert "256" in message


# names as file systems have them


def test_names_that_are_not_unicode_are_read(plant, write, noise):
    root = plant("faces", SMALL)
    odd = os.fsencode(root) + b"/train/b/gl\xfccklich.png"
    try:
        with open(odd, "wb") as file:  # noqa: PTH123
            file.write(write.picture(noise(99)))
    except OSError:
        pytest.skip("this file system holds names in Unicode only")
    first, again = load(root), load(root)
    assert os.fsdecode(b"train/b/gl\xfccklich.png") in first.train.sources
    assert again.train.sources == first.train.sources
    shutil.move(os.fsencode(root / "train" / "b"), os.fsencode(root) + b"/train/\xe9")
    with pytest.raises(InputError, match=r"class folder '\\udce9' is not UTF-8: rename it"):
        load(root)


def test_class_folders_may_be_links(plant, tmp_path):
    root, elsewhere = plant("faces", SMALL), tmp_path / "elsewhere"
    as_it_was = load(root)
    shutil.move(root / "train" / "a", elsewhere)
    (root / "train" / "a").symlink_to(elsewhere)
    assert load(root).fingerprint == as_it_was.fingerprint
    (elsewhere / "again").symlink_to(root / "train")
    with pytest.raises(InputError, match=r"cannot be read .*levels of symbolic links"):
        load(root)


def test_link_to_nothing_is_refused(plant):
    root = plant("faces", SMALL)
    (root / "train" / "a" / "x.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"cannot be read \(.*x\.png"):
        load(root)


def test_linked_picture_is_read(plant):
    root = plant("faces", SMALL)
    (root / "train" / "a" / "x.png").symlink_to(root / "val" / "a" / "000.png")
    assert Counter(load(root).train.labels.tolist()) == {0: 3, 1: 2}
