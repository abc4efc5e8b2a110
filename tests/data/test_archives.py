from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from ferbench.data.sources import open_source


@pytest.fixture(scope="session")
def table(few, write, tmp_path_factory):
    """A CSV of the few rows, which every archive here may hold."""
    path = tmp_path_factory.mktemp("table") / "fer.csv"
    path.write_bytes(write.csv(few))
    return path


@pytest.fixture(scope="session")
def tree(few, write, tmp_path_factory):
    return write.folders(tmp_path_factory.mktemp("tree") / "fer", few)


def zip_of(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


# what stands beside the images


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_litter_and_texts_beside_a_table_are_passed_over(pack, table, read, tmp_path):
    members = {
        "fer/README": b"emotions of faces",
        "fer/fer.csv": table.read_bytes(),
        "fer/train.csv": b"emotion,pixels\n",
        "__MACOSX/fer/._fer.csv": b"emotion,pixels,Usage\n",
        "fer/.DS_Store": b"\0",
        "fer/Thumbs.db": b"\0",
    }
    dataset = read(pack(tmp_path / "archive", members))
    assert dataset.fingerprint == read(table).fingerprint
    assert all(s.startswith("archive/fer/fer.csv row ") for s in dataset.train.sources)


def test_litter_in_folders_is_passed_over(few, tree, read, tmp_path):
    root = tmp_path / "fer"
    shutil.copytree(tree, root)
    for name in (".DS_Store", "train/.DS_Store", "train/happy/Thumbs.db", "train/sad/desktop.ini", "__MACOSX/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\0")
    assert read(root).fingerprint == read(tree).fingerprint


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_more_than_one_table_is_refused(pack, table, refusal, tmp_path):
    content = table.read_bytes()
    message = refusal(pack(tmp_path / "archive", {"a.csv": content, "b.csv": content}))
    assert "more than one table (a.csv, b.csv)" in message


def test_more_than_one_table_in_a_folder_is_refused(table, few, write, refusal, tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "a.csv").write_bytes(table.read_bytes())
    (folder / "b").write_bytes(write.parquet(few))
    assert "more than one table (a.csv, b)" in refusal(folder)


def test_folder_with_one_table_is_read(table, read, tmp_path):
    folder = tmp_path / "download"
    (folder / "inner").mkdir(parents=True)
    shutil.copy(table, folder / "inner" / "data")
    dataset = read(folder)
    assert dataset.fingerprint == read(table).fingerprint
    assert dataset.train.sources[0].startswith("download/inner/data row ")


def test_linked_files_of_a_tar_are_read(tree, read, tmp_path):
    # tar stores files that share their bytes on disk as links to the first
    path = tmp_path / "linked.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(tree.rglob("*.png")):
            name = file.relative_to(tree).as_posix()
            archive.add(file, name)
            if name == "train/happy/" + file.name:
                for kind, target in ((tarfile.LNKTYPE, name), (tarfile.SYMTYPE, file.name)):
                    entry = tarfile.TarInfo(f"train/happy/Training_9{kind.decode()}.png")
                    entry.type, entry.linkname = kind, target
                    archive.addfile(entry)
    dataset = read(path)
    assert dataset.train.counts(7).tolist() == [1, 1, 1, 3, 1, 1, 1]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_link_to_nothing_in_a_tar_is_refused(kind, table, refusal, tmp_path):
    path = tmp_path / "linked.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(table, "a.csv")
        entry = tarfile.TarInfo("b.csv")
        entry.type, entry.linkname = kind, "nowhere.csv"
        archive.addfile(entry)
    assert "b.csv" in refusal(path)


# what is cut off or damaged


@pytest.fixture(scope="session")
def archives(table, tree, write, tmp_path_factory):
    base = tmp_path_factory.mktemp("archives")
    files = {
        f"table.{kind}": write.pack(kind, table, base / f"table.{kind}") for kind in ("gz", "zip", "tar", "tar.gz")
    }
    files |= {f"tree.{kind}": write.pack(kind, tree, base / f"tree.{kind}") for kind in ("zip", "tar", "tar.gz")}
    return {name: path.read_bytes() for name, path in files.items()}


NAMES = ["table.gz", "table.zip", "table.tar", "table.tar.gz", "tree.zip", "tree.tar", "tree.tar.gz"]


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
@pytest.mark.parametrize("name", NAMES)
def test_cut_archive_is_refused(name, share, archives, refusal, tmp_path):
    path = tmp_path / "cut"
    path.write_bytes(archives[name][: int(share * len(archives[name]))])
    message = refusal(path)
    assert "cut off" in message


@pytest.mark.parametrize("length", [4, 20, 600])
@pytest.mark.parametrize("name", NAMES)
def test_first_bytes_of_an_archive_are_refused(name, length, archives, refusal, tmp_path):
    path = tmp_path / "cut"
    path.write_bytes(archives[name][:length])
    assert refusal(path)


def test_tar_cut_between_two_files_is_refused(archives, refusal, tmp_path):
    # nothing but the missing end tells that files are missing
    with tarfile.open(fileobj=io.BytesIO(archives["tree.tar"])) as archive:
        offsets = [entry.offset for entry in archive]
    for offset in (offsets[-1], offsets[-1] + 100):
        path = tmp_path / f"cut-{offset}"
        path.write_bytes(archives["tree.tar"][:offset])
        assert "cut off, damaged" in refusal(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_tar_with_a_damaged_header_is_refused(compressed, archives, refusal, tmp_path):
    content = bytearray(archives["tree.tar"])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        offset = [entry.offset for entry in archive][-1]
    content[offset + 3] ^= 0xFF
    path = tmp_path / "damaged"
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert "cut off, damaged" in refusal(path)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        *((name, share) for name in NAMES if not name.endswith("tar") for share in (0.3, 0.6)),
        # the checksum, which stands behind the end of a tar
        ("table.gz", -6),
        ("table.tar.gz", -6),
        ("tree.tar.gz", -6),
    ],
)
def test_changed_byte_in_compressed_data_is_refused(name, at, archives, refusal, tmp_path):
    content = bytearray(archives[name])
    content[at if at < 0 else int(at * len(content))] ^= 0xFF
    path = tmp_path / "damaged"
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_changed_digit_in_a_compressed_tar_is_refused(table, refusal, tmp_path):
    # the tar is whole and so is the table; only gzip's checksum tells that a pixel is another one
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.add(table, "fer.csv")
    content = bytearray(gzip.compress(plain.getvalue(), 0))
    at = content.index(b" 1", len(content) // 2) + 1
    content[at] = ord("2")
    path = tmp_path / "damaged"
    path.write_bytes(content)
    assert "CRC check failed" in refusal(path)


@pytest.mark.parametrize("mark", [b"PK\x03\x04", b"PK\x01\x02"], ids=["file", "list"])
def test_damaged_name_in_a_zip_is_refused(mark, table, refusal, tmp_path):
    path = zip_of(tmp_path / "damaged.zip", {"gl\u00fccklich.csv": table.read_bytes()})
    content = bytearray(path.read_bytes())
    content[content.index(b"\xc3", content.index(mark))] = 0xFF
    path.write_bytes(content)
    assert "damaged" in refusal(path).removeprefix(str(path))


def test_encrypted_zip_is_refused(archives, refusal, tmp_path):
    content = bytearray(archives["table.zip"])
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + at] |= 1
    path = tmp_path / "locked.zip"
    path.write_bytes(content)
    assert "fer.csv: cannot be read" in refusal(path)


# what is no data at all


@pytest.mark.parametrize(
    "content",
    [
        b"%PDF-1.7\n",
        b"once upon a time\n" * 9,
        b"\0" * 600,
        b"PK",
        gzip.compress(b"a diary"),
        b"Usage,Image name,neutral\n",
    ],
    ids=["pdf", "text", "zeros", "two bytes", "gzipped text", "votes"],
)
def test_what_is_no_data_is_refused_with_what_is_accepted(content, refusal, tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_bytes(content)
    message = refusal(path)
    assert "unknown format" in message
    assert "icml_face_data.csv" in message and ".tar(.gz)" in message


def test_empty_file_is_refused(refusal, tmp_path):
    path = tmp_path / "fer2013.csv"
    path.touch()
    assert refusal(path) == f"{path}: the file is empty"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_empty_archive_is_refused(name, refusal, tmp_path):
    path = tmp_path / name
    zip_of(path, {}) if name == "a.zip" else tar_of(path, {}, "w:gz" if name.endswith("gz") else "w")
    assert "accepted: " in refusal(path)


@pytest.mark.parametrize("inside", ["", ".hidden", "a/b/c"])
def test_folder_without_files_is_refused(inside, refusal, tmp_path):
    folder = tmp_path / "nothing"
    (folder / inside).mkdir(parents=True)
    assert "no files in it" in refusal(folder)


def test_folder_of_texts_is_refused(refusal, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("dear diary")
    assert "unknown format" in refusal(tmp_path / "notes")


def test_path_to_nothing_is_refused(refusal, tmp_path):
    assert "No such file" in refusal(tmp_path / "nowhere")


def test_members_are_sorted_whatever_the_archives_order(tmp_path):
    members = {"b/2": b"x", "b/10": b"y", "a/1": b"z"}
    for path in (zip_of(tmp_path / "z", members), tar_of(tmp_path / "t", members)):
        source = open_source(path)
        assert source.members() == ["a/1", "b/10", "b/2"]
        assert source.folders() == ["a", "b"]
        assert np.array_equal([source.read(m) for m in source.members()], [b"z", b"y", b"x"])
        assert source.head("b/2", 5) == b"x"


def test_member_that_a_zip_names_twice_counts_once(tree, read, tmp_path):
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for file in sorted(tree.rglob("*.png")) * 2:
            archive.write(file, file.relative_to(tree).as_posix())
    assert read(path).fingerprint == read(tree).fingerprint
