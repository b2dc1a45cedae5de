"""Shards of a data set on disk: tar, npz or PNGs in folders, each with an index.

Worker processes import this module, so it must not import torch.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from cgan.console import printable
from cgan.errors import FileError, RunError
from cgan.runtime.cpu import count_cores
from cgan.runtime.process import local_world_size
from cgan.storage.atomic import (
    explain_write_error,
    stream_atomically,
    sync_files,
    sync_folder,
    write_atomically,
)
from cgan.storage.images import encode_png

MAX_PENDING = 32
"""Maximum number of queued batches. It bounds memory for data sets of any size."""

T = TypeVar("T")
TAR_END = bytes(2 * tarfile.BLOCKSIZE)
"""The end marker of a tar file."""
UNCONDITIONAL_FOLDER = "pictures"
"""The folder of an unconditional GAN's images."""
INDEX_TAIL = 4_096
"""Bytes at the end of an index that hold its last line, whose class name has a limited length."""
SUFFIXES = {"webdataset": ".tar", "npz": ".npz", "folder": ""}
Pixels: TypeAlias = NDArray[np.uint8]
Batches: TypeAlias = Iterator[Pixels]
"""Images (B, H, W, C) in the order of their keys."""


def start_workers() -> Executor:
    """One process per core, minus one; a single thread on two cores or fewer.

    On two cores, sending images to a process was measured to cost more than it saves.
    """
    count = count_cores() // local_world_size()
    if count <= 2:
        return ThreadPoolExecutor(1)
    # spawn, not fork: forked copies of torch's threads or of CUDA can deadlock.
    return ProcessPoolExecutor(count - 1, get_context("spawn"), _initialise)


def map_in_order(
    pool: Executor, work: Callable[..., T], jobs: Iterator[tuple[Any, ...]]
) -> Iterator[T]:
    """Results of all jobs, in order, with at most ``MAX_PENDING`` jobs pending.

    Raises:
        RunError: a worker process died.
    """
    pending: deque[Future[T]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(work, *job))
            if len(pending) > MAX_PENDING:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenExecutor as error:
        raise RunError(
            "a worker process died: if memory ran out, free some and run it again; in a "
            'script, call this below `if __name__ == "__main__":`'
        ) from error
    finally:
        for future in pending:
            future.cancel()
        wait(pending)


def _initialise() -> None:
    """Leave Ctrl-C to the parent process, and exit when it exits, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True)
class Shard:
    """Images that are written together.

    Attributes:
        out: the folder of the data set.
        number: the number of the shard.
        start: the key of its first image; keys are consecutive.
        labels: the class of each image, or None if unconditional.
        seeds: the seed of each image.
    """

    out: Path
    number: int
    start: int
    labels: tuple[int, ...] | None
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The stem of its files."""
        return f"shard-{self.number:05d}"

    @property
    def index(self) -> Path:
        """Its index: key, class, name and seed of each image. It is written last.

        Each image is one line: control characters in a name are escaped, as in ``a\\nb``.
        """
        return self.out / f"{self.name}.csv"

    def is_complete(self, format: str) -> bool:
        """Whether it exists with all its images. (A larger ``count`` extends the last shard.)"""
        data = self.out / f"{self.name}{SUFFIXES[format]}"
        if not self.index.is_file() or (SUFFIXES[format] and not data.exists()):
            return False
        last = f"\n{_key(self.start + len(self.seeds) - 1)},".encode()
        try:
            with self.index.open("rb") as file:
                file.seek(max(self.index.stat().st_size - INDEX_TAIL, 0))
                return last in file.read(INDEX_TAIL)
        except OSError as error:
            raise FileError(f"{self.index} cannot be read: {error.strerror}") from error

    def write(
        self, format: str, batches: Batches, classes: Sequence[str], folders: Sequence[str],
        pool: Executor,
    ) -> None:  # fmt: skip
        """Write the images, then the index. If ``batches`` raises, no file remains.

        Raises:
            FileError: the folder is not writable, or the disk is full.
            RunError: a worker process died.
        """
        for leftover in self.out.glob(f".{self.name}.*"):
            leftover.unlink()
        if format == "webdataset":
            _write_tar(self, batches, pool)
        elif format == "npz":
            _write_npz(self, batches)
        else:
            _write_folder(self, batches, folders, pool)
        _write_index(self, classes)


def _write_tar(shard: Shard, batches: Batches, pool: Executor) -> None:
    def jobs() -> Iterator[tuple[Any, ...]]:
        at = 0
        for pixels in batches:
            labels = shard.labels and shard.labels[at : at + len(pixels)]
            yield shard.start + at, pixels, labels
            at += len(pixels)

    with stream_atomically(shard.index.with_suffix(".tar")) as file:
        for members in map_in_order(pool, _tar_members, jobs()):
            file.write(members)
        file.write(TAR_END)


def _tar_members(first: int, pixels: Pixels, labels: Sequence[int] | None) -> bytes:
    """In a worker: ``KEY.png`` and, if conditional, ``KEY.cls`` for each image."""
    parts = []
    for at, picture in enumerate(pixels):
        parts.append(_member(f"{_key(first + at)}.png", encode_png(np.moveaxis(picture, 2, 0))))
        if labels is not None:
            parts.append(_member(f"{_key(first + at)}.cls", str(labels[at]).encode()))
    return b"".join(parts)


def _member(name: str, content: bytes) -> bytes:
    """A tar member. TarInfo defaults to time 0, user 0 and group 0, so bytes are reproducible."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + padding


def _write_folder(shard: Shard, batches: Batches, folders: Sequence[str], pool: Executor) -> None:
    """Write to a hidden folder first, then move each image, so no image is ever incomplete."""
    hidden = shard.out / f".{shard.name}"
    if shard.labels is None:
        places = [UNCONDITIONAL_FOLDER] * len(shard.seeds)
    else:
        places = [folders[label] for label in shard.labels]

    def jobs() -> Iterator[tuple[Any, ...]]:
        at = 0
        for pixels in batches:
            yield hidden, places[at : at + len(pixels)], shard.start + at, pixels
            at += len(pixels)

    try:
        shutil.rmtree(hidden, ignore_errors=True)
        for place in set(places):
            (hidden / place).mkdir(parents=True)
        for _ in map_in_order(pool, _write_pngs, jobs()):
            pass
        sync_files(hidden.glob("*/*"))
        for place in set(places):
            (shard.out / place).mkdir(exist_ok=True)
            for picture in (hidden / place).iterdir():
                picture.replace(shard.out / place / picture.name)
            sync_folder(shard.out / place)
        sync_folder(shard.out)
    except OSError as error:
        raise FileError(explain_write_error(error, shard.out / shard.name)) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _write_pngs(root: Path, places: Sequence[str], first: int, pixels: Pixels) -> None:
    """In a worker: ``PLACE/KEY.png`` for each image."""
    for at, (place, picture) in enumerate(zip(places, pixels, strict=True)):
        (root / place / f"{_key(first + at)}.png").write_bytes(
            encode_png(np.moveaxis(picture, 2, 0))
        )


def _write_npz(shard: Shard, batches: Batches) -> None:
    arrays: dict[str, Any] = {"images": np.concatenate(list(batches))}
    if shard.labels is not None:
        arrays["labels"] = np.array(shard.labels, np.int64)
    arrays["seeds"] = np.array(shard.seeds, np.int64)
    with stream_atomically(shard.index.with_suffix(".npz")) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _write_index(shard: Shard, classes: Sequence[str]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["key", "class", "name", "seed"])
    for at, seed in enumerate(shard.seeds):
        label = "" if shard.labels is None else shard.labels[at]
        name = "" if shard.labels is None else printable(classes[shard.labels[at]])
        table.writerow([_key(shard.start + at), label, name, seed])
    write_atomically(shard.index, text.getvalue().encode())


def _key(number: int) -> str:
    return f"{number:09d}"
