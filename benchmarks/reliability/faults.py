"""Make the n-th change below a folder fail: every write, fsync, rename, mkdir, chmod, unlink.

All changes of a process pass through the functions of ``os`` that are replaced here, and through
``io.open``, whose files then count each ``write`` of the operating system. (C++ code would not pass
here; safetensors, PNG, npz and ONNX files are all encoded in memory and written by Python.)
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = ("mkdir", "rename", "replace", "chmod", "unlink", "rmdir", "fsync", "open", "truncate")
REMOVALS = {"unlink", "rmdir"}


@dataclass(frozen=True)
class Kind:
    """How a change fails: with which error, and whether all later ones fail too."""

    code: int
    lasting: bool = False

    @property
    def name(self) -> str:
        """Like ``ENOSPC from then on``."""
        return errno.errorcode[self.code] + (" from then on" if self.lasting else " once")


READ_ONLY = Kind(errno.EROFS, lasting=True)
KINDS = (
    Kind(errno.ENOSPC), Kind(errno.EACCES), Kind(errno.EIO), Kind(errno.ENOSPC, lasting=True),
    READ_ONLY,
)  # fmt: skip


class Faults:
    """Counts the changes below ``root``, and fails one.

    Args:
        root: the folder to watch.
        at: the number of the change that fails, from 0; None only counts.
        kind: how it fails.
    """

    def __init__(self, root: Path, at: int | None = None, kind: Kind = KINDS[0]) -> None:
        self.root, self.at, self.kind = str(root.resolve()), at, kind
        self.calls: list[str] = []
        self.real_open = io.open

    def install(self) -> None:
        """Replace the functions of this process, for good."""
        for name in CHANGES:
            setattr(os, name, self._wrap(name, getattr(os, name)))
        io.open = builtins.open = self._open  # type: ignore[assignment]

    def hit(self, call: str, path: str) -> None:
        """Count a change of a path; raises OSError if it is the one to fail."""
        if not path.startswith(self.root):
            return
        number = len(self.calls)
        self.calls.append(f"{call} {path.removeprefix(self.root).lstrip('/')}")
        if self.at is None or number < self.at or (number > self.at and not self.kind.lasting):
            return
        if call in REMOVALS and self.kind.lasting and self.kind.code == errno.ENOSPC:
            return  # a full disk can be emptied
        raise OSError(self.kind.code, os.strerror(self.kind.code), path)

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *rest: Any, **named: Any) -> Any:
            reads = name == "open" and not rest[0] & (os.O_WRONLY | os.O_RDWR)
            if not reads:
                self.hit(name, _path_of(target, named.get("dir_fd")))
            return real(target, *rest, **named)

        return call

    def _open(self, file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        """``io.open``; a file that is opened for writing counts its writes."""
        path = _path_of(file, None)
        if not set(mode) & set("wax+") or not path.startswith(self.root):
            return self.real_open(file, mode, *rest, **named)
        if not isinstance(file, int):
            self.hit("open", path)
        raw = _CountedFile(file, mode.replace("b", "").replace("t", ""))
        raw.faults, raw.counted = self, path
        buffered = io.BufferedWriter(raw) if "+" not in mode else io.BufferedRandom(raw)
        if "b" in mode:
            return buffered
        encoding = named.get("encoding") or "utf-8"
        return io.TextIOWrapper(buffered, encoding=encoding, write_through=False)


class _CountedFile(io.FileIO):
    """A file that counts each write. A disk that gets full takes the first half."""

    faults: Faults
    counted: str

    def write(self, content: Any) -> int:
        try:
            self.faults.hit("write", self.counted)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                super().write(memoryview(content)[: len(content) // 2])
            raise
        return super().write(content)


def _path_of(target: Any, folder: int | None) -> str:
    """The absolute path of a path, or of an open file."""
    if isinstance(target, int):
        return os.readlink(f"/proc/self/fd/{target}")
    path = os.fsdecode(target)
    return os.path.join(_path_of(folder, None) if folder is not None else os.getcwd(), path)
