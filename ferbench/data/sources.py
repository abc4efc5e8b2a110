"""Where bytes come from: one file, a folder or an archive, all read the same way and recognised by content."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ferbench.errors import InputError

# zipfile lets a damaged name's UnicodeDecodeError through
_READ_ERRORS = (
    EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError, OSError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


class Source(ABC):
    """Named members of a file, folder or archive, in sorted order."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def members(self) -> list[str]:
        """Names of the files, "/" between folders."""

    def folders(self) -> list[str]:
        """Names of the folders, as far as they are known."""
        return sorted({str(p) for m in self.members() for p in PurePosixPath(m).parents if str(p) != "."})

    @abstractmethod
    def _open(self, member: str) -> BinaryIO:
        """A member's bytes from the start."""

    @contextmanager
    def open(self, member: str) -> Iterator[BinaryIO]:
        """A member's bytes from the start.

        Raises:
            InputError: they cannot be read to their end.
        """
        try:
            with self._open(member) as file:
                yield file
        except InputError:
            raise
        except _READ_ERRORS as error:
            raise InputError(
                f"{self.describe(member)}: cannot be read, cut off or damaged ({one_line(error)})"
            ) from None

    def read(self, member: str) -> bytes:
        """All of a member's bytes."""
        with self.open(member) as file:
            return file.read()

    def head(self, member: str, size: int = 512) -> bytes:
        """A member's first bytes."""
        with self.open(member) as file:
            return file.read(size)

    def describe(self, member: str) -> str:
        """How messages call a member."""
        return f"{self.path.name}/{member}"


class _File(Source):
    def members(self) -> list[str]:
        return [self.path.name]

    def _open(self, member: str) -> BinaryIO:
        # Python's own 8 kB are less than a line of FER2013's, and such lines are slow to read
        return self.path.open("rb", buffering=1 << 18)

    def describe(self, member: str) -> str:
        return self.path.name


class _GzipFile(_File):
    def _open(self, member: str) -> BinaryIO:
        return io.BufferedReader(gzip.open(self.path, "rb"), 1 << 20)


class _Folder(Source):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: list[str] = []
        self._folders: list[str] = []
        # class folders may be links to where they are
        for root, folders, files in os.walk(path, followlinks=True):
            folders[:] = sorted(f for f in folders if not ignorable(f))
            at = Path(root).relative_to(path)
            self._folders += [(at / f).as_posix() for f in folders]
            self._members += [(at / f).as_posix() for f in files if not ignorable(f)]
        self._members.sort()

    def members(self) -> list[str]:
        return self._members

    def folders(self) -> list[str]:
        return self._folders

    def _open(self, member: str) -> BinaryIO:
        return (self.path / member).open("rb")


class _Zip(Source):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._zip = zipfile.ZipFile(path)
        self._names = sorted({n for n in self._zip.namelist() if not _ignorable_path(n)})

    def members(self) -> list[str]:
        return [n for n in self._names if not n.endswith("/")]

    def folders(self) -> list[str]:
        return sorted({*super().folders(), *(n.rstrip("/") for n in self._names if n.endswith("/"))})

    def _open(self, member: str) -> BinaryIO:
        return self._zip.open(member)  # type: ignore[return-value]


class _Tar(Source):
    """A tar is read into memory: it has no index, and a compressed one cannot be searched."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._files: dict[str, bytes] = {}
        self._directories: list[str] = []
        with tarfile.open(path) as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                if _ignorable_path(name):
                    continue
                if entry.isdir():
                    self._directories.append(name.rstrip("/"))
                else:
                    self._files[name] = _tar_content(tar, entry)
            _check_end(tar)

    def members(self) -> list[str]:
        return sorted(self._files)

    def folders(self) -> list[str]:
        return sorted({*super().folders(), *(d for d in self._directories if d not in ("", "."))})

    def _open(self, member: str) -> BinaryIO:
        return io.BytesIO(self._files[member])


def _tar_content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    """The bytes of a file, or of the file that a link in the archive points to."""
    try:
        content = tar.extractfile(entry)
    except KeyError:
        content = None
    if content is None:
        raise tarfile.ReadError(f"{entry.name} is no file and no link to one in the archive")
    return content.read()


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise where a tar does not end as it must: tarfile takes a cut or a damaged header for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError(f"no end of the archive after {len(tar.getmembers())} files")
    # gzip compares its checksum where its data end, which is behind the tar's end
    while tar.fileobj.read(1 << 20):
        pass


def one_line(error: Exception) -> str:
    """An error's own text without line breaks, which tarfile's and Arrow's have."""
    return " ".join(str(error).split())[:200]


def ignorable(name: str) -> bool:
    """Whether a file or folder is a system's own litter."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def _ignorable_path(name: str) -> bool:
    return any(ignorable(part) for part in PurePosixPath(name).parts)


def open_source(path: Path) -> Source:
    """The source at a path, recognised by its first bytes.

    Raises:
        InputError: it is empty, cut off or damaged.
    """
    if path.is_dir():
        return _Folder(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if not head:
            raise InputError(f"{path}: the file is empty")
        if head[:4] == b"PK\x03\x04":
            return _Zip(path)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path, "rb") as inner:
                return _Tar(path) if _is_tar(inner.read(512)) else _GzipFile(path)
        return _Tar(path) if _is_tar(head) else _File(path)
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise InputError(f"{path}: cut off, damaged or no archive ({one_line(error)})") from None


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def to_bytes(names: str) -> bytes:
    """UTF-8, where what is not Unicode in a file's name stays the bytes it was."""
    return names.encode(errors="surrogateescape")


def signature(path: Path) -> str:
    """What tells, without reading it, that a file or folder has not changed."""
    entries = [(".", path.stat())]
    if path.is_dir():
        stack = [path]
        while stack:
            with os.scandir(stack.pop()) as inside:
                for entry in inside:
                    if ignorable(entry.name):
                        continue
                    if entry.is_dir():
                        stack.append(Path(entry.path))
                    entries.append((entry.path, entry.stat()))
    lines = sorted(f"{name} {s.st_size} {s.st_mtime_ns} {s.st_ino}" for name, s in entries)
    return hashlib.blake2b(to_bytes("\n".join([str(path), *lines])), digest_size=16).hexdigest()


def content_hash(path: Path) -> str:
    """A hash over the bytes of a file, or over names and bytes of a folder's files."""
    digest = hashlib.blake2b(digest_size=16)
    if path.is_dir():
        folder = _Folder(path)
        # folders count too: an empty class is an error, which a cache must not hide
        digest.update(to_bytes("\n".join(sorted(folder.folders()))))
        for member in folder.members():
            digest.update(to_bytes(f"\n{member}\n"))
            digest.update(folder.read(member))
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
