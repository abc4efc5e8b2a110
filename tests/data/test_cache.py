from __future__ import annotations

import json
import os
import shutil
from collections import Counter

import numpy as np
import pytest

from ferbench.data import cache, formats, load
from ferbench.data.assemble import assemble
from ferbench.errors import InputError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FERBENCH_CACHE", str(folder))
    return folder


def counted(monkeypatch, module, name):
    """How often a function of a path is called from now on, by file name."""
    counts: Counter[str] = Counter()
    original = getattr(module, name)

    def counting(path):
        counts[path.name] += 1
        return original(path)

    monkeypatch.setattr(module, name, counting)
    return counts


@pytest.fixture
def parsed(monkeypatch):
    """How often files of each name were parsed."""
    return counted(monkeypatch, formats, "read_images")


@pytest.fixture
def hashed(monkeypatch):
    """How often the content of files was read to know it."""
    return counted(monkeypatch, cache, "content_hash")


def assert_same(a, b):
    facts = ("name", "edition", "classes", "fingerprint", "official", "notes")
    assert [getattr(a, f) for f in facts] == [getattr(b, f) for f in facts]
    for (name, one), (other_name, other) in zip(a.splits(), b.splits(), strict=True):
        assert name == other_name
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.sources == other.sources
        assert (one.votes is None) == (other.votes is None)


@pytest.mark.parametrize("form", ["table", "tree"])
def test_second_load_neither_parses_nor_hashes(form, parsed, hashed, read, request):
    path = request.getfixturevalue(form)
    plain = read(path)
    first, second = load(path), load(path)
    assert parsed == hashed == {path.name: 1}
    assert_same(first, plain)
    assert_same(second, plain)


def test_images_are_memory_mapped_bytes(table):
    for dataset in (load(table), load(table)):
        for _, split in dataset.splits():
            assert isinstance(split.images, np.memmap)
            assert split.images.dtype == np.uint8
            assert not split.images.flags.writeable


def test_notes_votes_and_a_missing_test_come_back(few, write, tmp_path, parsed):
    path, votes = tmp_path / "faces.csv", tmp_path / "votes.csv"
    rows = [r for r in few if r.usage != "PrivateTest"] + [few[0]]
    path.write_bytes(write.csv(rows))
    columns = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    lines = [f"Usage,Image name,{columns}"]
    lines += [f"{r.usage},x.png," + ",".join("8" if i % 8 == n else "0" for n in range(10)) for i, r in enumerate(rows)]
    # the val row is the eighth, so the ninth brings contempt to train
    lines[9] = "Training,x.png,1,0,0,0,0,0,0,3,0,0"
    votes.write_text("\n".join(lines))
    first, second = (load(path, labels=f"ferplus-soft={votes}") for _ in range(2))
    assert parsed == {"faces.csv": 1}
    assert_same(second, first)
    assert second.test is None
    assert second.notes[0].startswith("FER+ (ferplus-soft): 9 of 9 rows kept")
    np.testing.assert_array_equal(second.train.votes, first.train.votes)
    assert sorted(second.train.votes.max(1).tolist()) == [0.75] + [1] * 7


def test_any_file_name_comes_back(tree, parsed):
    for picture in list(tree.rglob("*.png")):
        picture.rename(picture.with_name(f"{picture.stem}\nb.png"))
    first, second = load(tree), load(tree)
    assert parsed == {tree.name: 1}
    assert all("\n" in source for source in first.train.sources)
    assert_same(second, first)


def test_changed_content_is_noticed(table, parsed, few, write):
    before = load(table)
    table.write_bytes(write.csv(few[::-1] + few[:1]))
    after = load(table)
    assert parsed["faces.csv"] == 2
    assert (len(before.train), len(after.train)) == (7, 8)
    assert after.fingerprint != before.fingerprint


def test_change_of_equal_size_is_noticed(table, parsed):
    before = load(table)
    content = bytearray(table.read_bytes())
    at = content.index(b",", content.index(b"\n")) + 1
    content[at] = ord("9") if content[at] != ord("9") else ord("8")
    time = table.stat().st_mtime_ns + 1_000_000
    table.write_bytes(content)
    os.utime(table, ns=(time, time))
    assert load(table).fingerprint != before.fingerprint
    assert parsed["faces.csv"] == 2


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "empty class"])
def test_changes_in_a_folder_are_noticed(change, tree, parsed, write):
    before = load(tree)
    file = sorted((tree / "train" / "happy").iterdir())[0]
    if change == "added":
        file.with_name("Training_77.png").write_bytes(write.picture(np.zeros((48, 48), np.uint8)))
        assert len(load(tree).train) == len(before.train) + 1
    elif change == "removed":
        file.unlink()
        with pytest.raises(InputError, match="happy: the folder is empty"):
            load(tree)
    elif change == "renamed":
        file.rename(file.with_name("PublicTest_77.png"))
        with pytest.raises(InputError, match="class 'happy' has no training image"):
            load(tree)
    else:
        (tree / "train" / "bored").mkdir()
        with pytest.raises(InputError, match="bored: the folder is empty"):
            load(tree)
    assert parsed["tree"] == 2


def test_same_content_elsewhere_is_not_parsed_again(table, parsed, hashed, tmp_path):
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / table.name
    shutil.copy(table, copy)
    assert load(table).fingerprint == load(copy).fingerprint
    assert parsed["faces.csv"] == 1
    assert hashed["faces.csv"] == 2
    # sources call a file by its name, so another name is another entry
    renamed = copy.rename(copy.with_name("renamed.csv"))
    assert load(renamed).train.sources[0].startswith("renamed.csv row ")


def test_another_version_of_the_readers_parses_again(table, parsed, monkeypatch):
    load(table)
    monkeypatch.setattr(cache, "READER_VERSION", cache.READER_VERSION + 1)
    load(table)
    assert parsed["faces.csv"] == 2


def entry(place):
    (folder,) = (p for p in place.iterdir() if p.name != "index")
    return folder


def replace(path, content):
    # never in place: pages of a memory map that are no longer in its file end the process
    path.unlink()
    path.write_bytes(content)


def cut(path):
    replace(path, path.read_bytes()[:-1])


def emptied(path):
    replace(path, b"")


def filled(path):
    replace(path, b"nonsense" * 40)


@pytest.mark.parametrize(
    "damage", [cut, emptied, filled, lambda path: path.unlink()], ids=["cut", "empty", "nonsense", "gone"]
)
@pytest.mark.parametrize(
    "file", ["train-images.npy", "val-labels.npy", "test-sources", "test-labels.npy", "dataset.json"]
)
def test_damaged_entry_is_rebuilt(file, damage, table, place, parsed):
    plain = load(table)
    damage(entry(place) / file)
    assert_same(load(table), plain)
    assert parsed["faces.csv"] == 2
    assert_same(load(table), plain)
    assert parsed["faces.csv"] == 2
    assert len(list(place.iterdir())) == 2


@pytest.mark.parametrize("facts", ["[]", "null", '{"name": "x"}', '"dataset"'])
def test_other_json_is_rebuilt(facts, table, place, parsed):
    load(table)
    (entry(place) / "dataset.json").write_text(facts)
    assert load(table).name == "fer2013-subset"
    assert parsed["faces.csv"] == 2


def test_parts_of_different_lengths_are_rebuilt(table, place, parsed):
    plain = load(table)
    np.save(entry(place) / "val-labels.npy", np.zeros(5, np.uint8))
    assert_same(load(table), plain)
    assert parsed["faces.csv"] == 2


@pytest.mark.parametrize("content", [b"", b".", b"..", b"\xff\xfe", b"0" * 31, b"0" * 33])
def test_damaged_index_is_rebuilt_and_removes_nothing(content, table, place, parsed):
    # an empty key would name the cache folder itself, which is then taken for a damaged entry
    plain = load(table)
    other = place / "mine.txt"
    other.write_text("not yours")
    (index,) = (place / "index").iterdir()
    index.write_bytes(content)
    assert_same(load(table), plain)
    assert other.read_text() == "not yours"
    assert index.read_text() == entry_name(place)
    assert parsed["faces.csv"] == 1


def entry_name(place):
    (name,) = (p.name for p in place.iterdir() if p.name not in ("index", "mine.txt"))
    return name


def test_removed_entry_is_rebuilt(table, place, parsed):
    plain = load(table)
    shutil.rmtree(entry(place))
    assert_same(load(table), plain)
    assert parsed["faces.csv"] == 2


@pytest.mark.parametrize("where", ["file", "below a file"])
def test_unwritable_cache_costs_only_time(where, table, tmp_path, monkeypatch, parsed, read):
    # a file where the folder should be, as root may write into any folder
    blocked = tmp_path / "blocked"
    blocked.write_text("x")
    monkeypatch.setenv("FERBENCH_CACHE", str(blocked if where == "file" else blocked / "inner"))
    plain = read(table)
    for _ in range(2):
        assert_same(load(table), plain)
    assert blocked.read_text() == "x"
    assert parsed["faces.csv"] == 2


def test_full_disk_costs_only_time(table, place, monkeypatch, parsed):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", no_space)
    assert len(load(table).train) == 7
    # nothing half written is left
    assert [p.name for p in place.iterdir()] == ["index"]
    monkeypatch.undo()


def test_another_process_may_be_first(table, place, read):
    plain = read(table)

    def parse():
        # while we parse, another writes the same entry
        cache.cached_by_key("some-key", lambda: plain)
        return plain

    assert_same(cache.cached_by_key("some-key", parse), plain)
    assert [p.name for p in place.iterdir()] == ["some-key"]


def test_failed_parse_leaves_nothing(tmp_path, place):
    path = tmp_path / "bad.csv"
    path.write_text("emotion,pixels,Usage\n0,1 2 3,Training\n")
    for _ in range(2):
        with pytest.raises(InputError, match="3 pixels, expected 2304"):
            load(path)
    assert not place.exists() or not list(place.iterdir())


def test_facts_are_json(table, place):
    load(table)
    facts = json.loads((entry(place) / "dataset.json").read_text())
    assert (facts["name"], facts["official"], facts["classes"][6]) == ("fer2013-subset", False, "neutral")


def test_cache_folder_is_the_users_where_none_is_named(monkeypatch):
    monkeypatch.delenv("FERBENCH_CACHE")
    assert cache.cache_folder().name == "ferbench"
    assert cache.cache_folder().is_absolute()


def test_assembled_and_loaded_are_the_same(table):
    assert_same(load(table), assemble(formats.read_images(table)))
