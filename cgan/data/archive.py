"""ZIP and TAR archives, read without unpacking them.

An ``ArchivePath`` has the methods of ``pathlib.Path`` that finding and reading images needs, so
that the same code reads folders and archives. Archives may come from anyone: nothing is written to
disk, and the size of a member is checked before it is read.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import total_ordering
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cgan.data.facts import warn
from cgan.data.splits import UNLABELLED_FOLDERS
from cgan.errors import DataError, one_line, quote

SUFFIXES = (".zip", ".tar", ".npz", ".npy")
HUB_PREFIX = "hf-datasets:"
"""Begins the name of a data set of the Hugging Face Hub: see ``cgan.data.hub``."""
IGNORED = "__MACOSX"
"""A folder that macOS adds to ZIP files."""
ROOT = PurePosixPath()
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Python decompresses others without a limit."""
MAX_DEPTH = 64
"""Most folders above a file."""


@dataclass(frozen=True)
class Member:
    """A regular file in an archive."""

    name: str
    size: int
    offset: int = 0
    """Where its content begins in a TAR file."""
    key: str = ""
    """Its name as ``zipfile`` knows it."""


class FileTree(ABC):
    """Files by path, and the folders that they make; a subclass reads their content.

    Args:
        path: where the files are; messages name it.

    Attributes:
        kind: what their layout is called, if it is not that of folders.
    """

    kind = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folders: dict[PurePosixPath, set[PurePosixPath]] = {ROOT: set()}
        self.files: dict[PurePosixPath, Member] = {}

    def __reduce__(self) -> tuple[type[FileTree], tuple[Path]]:
        return type(self), (self.path,)  # for worker processes: locks and open files stay here

    @abstractmethod
    def read(self, member: Member) -> bytes:
        """The content of a file.

        Raises:
            OSError: it cannot be read.
        """

    def _add(self, member: Member) -> None:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise DataError(
                f"{self.path} contains {quote(member.name)}, a path that leaves the archive: "
                "make it again from inside the folder"
            )
        if len(path.parts) > MAX_DEPTH:
            raise DataError(f"{self.path} has folders that are more than {MAX_DEPTH} levels deep")
        if IGNORED in path.parts:
            return
        self.files[path] = member
        while path != ROOT:
            known = path.parent in self.folders
            self.folders.setdefault(path.parent, set()).add(path)
            path = ROOT if known else path.parent


def folder_name(label: str) -> str:
    """What the folder of a class is called. A slash would be a folder of its own."""
    return label.replace("/", "-").replace("\\", "-")


def class_folders(path: Path, labels: Iterable[str | None]) -> dict[str, str]:
    """The name of each class's folder in a tree.

    Raises:
        DataError: a class cannot be a folder, or two classes would be the same one.
    """
    names = {name for name in labels if name is not None}
    folders = {name: folder_name(name) for name in sorted(names)}
    taken: dict[str, str] = {}
    for name, folder in folders.items():
        if not folder.strip() or folder[0] == "." or folder in UNLABELLED_FOLDERS:
            raise DataError(f"{path} has a class {quote(name)}, and no folder can have that name")
        if taken.setdefault(folder, name) != name:
            raise DataError(
                f"{path} has the classes {quote(taken[folder])} and {quote(name)}, and the folders "
                "of both would have the same name"
            )
    return folders


class Archive(FileTree):
    """The files of an archive.

    Args:
        path: a file that ends in one of ``SUFFIXES``.

    Raises:
        DataError: it is missing, damaged or compressed as a whole, or a name in it leaves it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock, self._process = threading.Lock(), -1
        self._opened: zipfile.ZipFile | None = None
        try:
            members = (
                _members_of_zip(path) if path.suffix.lower() == ".zip" else _members_of_tar(path)
            )
            for member in members:
                self._add(member)
        except tarfile.ReadError as error:
            advice = "unpack it, or make a ZIP file of it"
            if str(error) in ("unexpected end of data", "empty header"):
                advice = "it is cut off: copy or download it again"
            raise DataError(
                f"{path} cannot be read as a TAR file without compression ({one_line(error)}): "
                f"{advice}"
            ) from error
        except (OSError, zipfile.BadZipFile, tarfile.TarError, ValueError, RuntimeError) as error:
            raise DataError(f"{path} cannot be read as an archive ({one_line(error)})") from error

    def read(self, member: Member) -> bytes:
        """The content of a file.

        Raises:
            OSError: it is damaged, encrypted or compressed in an unknown way.
        """
        if self.path.suffix.lower() != ".zip":
            with self.path.open("rb") as file:
                file.seek(member.offset)
                return file.read(member.size)
        try:
            archive = self._zip()
            if archive.getinfo(member.key).compress_type not in COMPRESSIONS:
                raise ValueError("it is compressed in another way than ZIP's usual one")
            with archive.open(member.key) as content:
                return content.read(member.size)  # decompresses no more than that
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            where = str(self.path / member.name)
            raise OSError(errno.EIO, one_line(error), where) from error

    def _zip(self) -> zipfile.ZipFile:
        """The open file of this process: a forked one must not share its position."""
        with self._lock:
            if self._opened is None or self._process != os.getpid():
                self._opened, self._process = zipfile.ZipFile(self.path), os.getpid()
            return self._opened


@total_ordering
class ArchivePath:
    """A file or folder in an archive. The root's name is that of the archive, without suffix."""

    def __init__(self, archive: FileTree, inner: PurePosixPath = ROOT) -> None:
        self.archive, self.inner = archive, inner

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.inner.name or self.archive.path.stem

    @property
    def parent(self) -> ArchivePath:
        """The folder that contains it."""
        return ArchivePath(self.archive, self.inner.parent)

    @property
    def suffix(self) -> str:
        """The suffix of its name, with the dot."""
        return self.inner.suffix

    def __truediv__(self, name: str) -> ArchivePath:
        return ArchivePath(self.archive, self.inner / name)

    def __str__(self) -> str:
        return str(self.archive.path / self.inner)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchivePath) and self.inner == other.inner

    def __lt__(self, other: ArchivePath) -> bool:
        return self.inner < other.inner

    def __hash__(self) -> int:
        return hash(self.inner)

    def iterdir(self) -> Iterator[ArchivePath]:
        """What is directly in this folder."""
        for path in self.archive.folders[self.inner]:
            yield ArchivePath(self.archive, path)

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.inner in self.archive.folders

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.inner in self.archive.files

    def stat(self) -> os.stat_result:
        """The size of a file; raises ``FileNotFoundError``."""
        member = self._member()
        return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, member.size, 0, 0, 0))

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The content of a file, in memory.

        Raises:
            DataError: it cannot be read.
        """
        return io.BytesIO(self.archive.read(self._member()))

    def _member(self) -> Member:
        if (member := self.archive.files.get(self.inner)) is None:
            raise FileNotFoundError(2, os.strerror(2), str(self))
        return member


AnyPath = Path | ArchivePath


def is_archive(path: str | Path) -> bool:
    """Whether a path is a file that ends like one of ``SUFFIXES``, or a data set of the Hub."""
    if str(path).startswith(HUB_PREFIX):
        return True
    return str(path).lower().endswith(SUFFIXES) and os.path.isfile(path)


def _members_of_zip(path: Path) -> list[Member]:
    with zipfile.ZipFile(path) as file:
        return [
            Member(_utf8_name(one), one.file_size, key=one.filename)
            for one in file.infolist()
            if not one.is_dir()
        ]


def _utf8_name(member: zipfile.ZipInfo) -> str:
    """The name of a file. The Finder of macOS writes UTF-8 without the flag that says so."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename


def is_end_of_tar(raw: BinaryIO, offset: int) -> bool:
    """Whether a TAR file ends at this offset: tarfile takes a damaged header for the end, too."""
    raw.seek(offset)
    return not raw.read(tarfile.BLOCKSIZE).strip(b"\0")


def _members_of_tar(path: Path) -> list[Member]:
    found: dict[str, Member] = {}
    left_out = 0
    with tarfile.open(path, "r:") as file:
        while (one := file.next()) is not None:
            if one.size < 0:  # tarfile would go back and loop
                raise ValueError("a size in it is negative")
            if one.isreg() and not one.issparse():
                found[one.name] = Member(one.name, one.size, one.offset_data)
            elif one.islnk() and (first := found.get(one.linkname)):  # another name of a file
                found[one.name] = replace(first, name=one.name)
            else:
                left_out += not one.isdir()
        with path.open("rb") as raw:
            if not is_end_of_tar(raw, file.offset):
                raise ValueError(f"it is damaged after {len(found):,} files")
    if left_out:
        warn("links and special files in %s that are not read: %d", path, left_out)
    return list(found.values())
