"""Atomic writes and folder locks: a reader sees the old or the new file, never a partial one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cgan.errors import FileError, RunError
from cgan.storage.paths import SAMPLES_FOLDER

LOCK_FILE = ".lock"


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file in the same folder, fsync it and rename it to ``path``.

    Raises:
        FileError: the folder is not writable or the disk is full; ``path`` is unchanged.
    """
    with stream_atomically(path) as file:
        file.write(content)


@contextmanager
def stream_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Like ``write_atomically``, for content too large to hold in memory.

    Yields a file to write to. The file is renamed to ``path`` when the block ends; if the block
    raises, ``path`` is unchanged.

    Raises:
        FileError: as for ``write_atomically``, and for any OSError inside the block.
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
        raise FileError(explain_write_error(error, path)) from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # it is gone after the rename; a read-only disk keeps it
                temporary.unlink()


def rename(path: Path, new: Path) -> None:
    """Rename a file, replacing ``new``.

    Raises:
        FileError: it cannot be renamed; both files are unchanged.
    """
    try:
        path.replace(new)
    except OSError as error:
        raise FileError(explain_write_error(error, new)) from error


@contextmanager
def lock(folder: Path, name: str = LOCK_FILE) -> Iterator[None]:
    """Hold an exclusive lock on a folder, or on a named part of it.

    The operating system releases the lock of a killed process. Temporary files that a killed
    process left in the folder of a run are removed.

    Raises:
        RunError: another process holds the lock.
        FileError: the folder is not writable.
    """
    from filelock import FileLock, Timeout  # it imports asyncio, which is slow

    held = FileLock(folder / name)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{folder} is in use by another process: wait, or give another --out"
        ) from None
    except OSError as error:
        raise FileError(explain_write_error(error, folder)) from error
    try:
        remove_temporary_files(folder)
        yield
    finally:
        held.release()


def remove_temporary_files(folder: Path) -> None:
    """Remove temporary files of a run. The caller must be its only writer."""
    for place in (folder, folder / SAMPLES_FOLDER):
        for kind in ("safetensors", "onnx", "yaml", "jsonl", "png"):
            for path in place.glob(f".*.{kind}.*"):
                with suppress(OSError):
                    path.unlink()


def explain_write_error(error: OSError, path: Path) -> str:
    """The error message for a failed write to ``path``."""
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
    """Make a rename survive a power cut. Only POSIX can open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
