"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cgan.errors import FileError


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: temporary file beside it, fsync, rename.

    Raises:
        FileError: the folder cannot be written to or the disk is full; ``path`` is as it was.
    """
    with stream_atomically(path) as file:
        file.write(content)


@contextmanager
def stream_atomically(path: Path) -> Iterator[IO[bytes]]:
    """The same for what is too large to hold: a file to write to, renamed when the block ends.

    Where the block raises, ``path`` is as it was.

    Raises:
        FileError: as :func:`write_atomically`, for any OSError of the block too.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide a run from its group
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise FileError(explain(error, path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer left behind; only for who alone writes in the folder."""
    for kind in ("safetensors", "onnx"):
        for path in folder.glob(f".*.{kind}.*"):
            path.unlink(missing_ok=True)


def explain(error: OSError, path: Path) -> str:
    """One sentence for a failed write to ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full: {path} was not written; free some space and run it again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write {path}; choose another place"
    return f"cannot write {path} ({error.strerror or error}); choose another place"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; only POSIX lets one open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
