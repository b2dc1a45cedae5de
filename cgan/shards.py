"""Shards of a data set on disk: tar, npz or PNGs in folders, each with its index.

Worker processes encode the PNGs. They import this file and what is below it: nothing of torch.
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

from cgan.errors import FileError, RunError
from cgan.files import explain, stream_atomically, write_atomically
from cgan.png import encode_png

AHEAD = 32
"""Batches drawn but not yet written, at most: memory does not grow with the data set."""

TAR_END = bytes(2 * tarfile.BLOCKSIZE)
"""What closes a tar after its last member."""

PLAIN_FOLDER = "pictures"
"""Where a plain GAN's pictures lie: it has no class to name a folder by."""

SUFFIXES = {"webdataset": ".tar", "npz": ".npz", "folder": ""}

Pixels: TypeAlias = NDArray[np.uint8]
Batches: TypeAlias = Iterator[Pixels]
"""Pictures (B, H, W, C) in the order of their keys."""
T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Pictures that are written together.

    Attributes:
        out: the folder of the data set.
        number: which shard it is.
        start: the key of its first picture; the next has the next.
        labels: the class of each picture, or None where the GAN is plain.
        seeds: the seed of each picture.
    """

    out: Path
    number: int
    start: int
    labels: tuple[int, ...] | None
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """What its files begin with."""
        return f"shard-{self.number:05d}"

    @property
    def index(self) -> Path:
        """Its table of key, class, name and seed, which is written last."""
        return self.out / f"{self.name}.csv"

    def done(self, format: str) -> bool:
        """Whether it is there with all its pictures: the last shard of a data set may grow."""
        data = self.out / f"{self.name}{SUFFIXES[format]}"
        if not self.index.exists() or (SUFFIXES[format] and not data.exists()):
            return False
        last = self.index.read_bytes().splitlines()[-1]
        return last.startswith(_key(self.start + len(self.seeds) - 1).encode())

    def write(
        self, format: str, batches: Batches, classes: Sequence[str], folders: Sequence[str],
        pool: Executor,
    ) -> None:  # fmt: skip
        """Write the pictures, then the index. Where ``batches`` raises, nothing is left.

        Raises:
            FileError: the folder cannot be written to, or the disk is full.
            RunError: a worker died.
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
        for members in _in_order(pool, _tar_members, jobs()):
            file.write(members)
        file.write(TAR_END)


def _tar_members(first: int, pixels: Pixels, labels: Sequence[int] | None) -> bytes:
    """In a worker: ``KEY.png`` and, where there are classes, ``KEY.cls`` for each picture."""
    parts = []
    for at, picture in enumerate(pixels):
        parts.append(_member(f"{_key(first + at)}.png", encode_png(np.moveaxis(picture, 2, 0))))
        if labels is not None:
            parts.append(_member(f"{_key(first + at)}.cls", str(labels[at]).encode()))
    return b"".join(parts)


def _member(name: str, content: bytes) -> bytes:
    """A file in a tar; TarInfo's defaults are time 0, user 0 and group 0, so bytes repeat."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + padding


def _write_folder(shard: Shard, batches: Batches, folders: Sequence[str], pool: Executor) -> None:
    """Into a hidden folder, and from there each picture to its place: it is whole or not there."""
    hidden = shard.out / f".{shard.name}"
    if shard.labels is None:
        places = [PLAIN_FOLDER] * len(shard.seeds)
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
        for _ in _in_order(pool, _write_pngs, jobs()):
            pass
        if hasattr(os, "sync"):
            os.sync()  # once for all of them: an fsync for each would take minutes
        for place in set(places):
            (shard.out / place).mkdir(exist_ok=True)
            for picture in (hidden / place).iterdir():
                picture.replace(shard.out / place / picture.name)
    except OSError as error:
        raise FileError(explain(error, shard.out / shard.name)) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _write_pngs(root: Path, places: Sequence[str], first: int, pixels: Pixels) -> None:
    """In a worker: ``PLACE/KEY.png`` for each picture."""
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
        name = "" if shard.labels is None else classes[shard.labels[at]]
        table.writerow([_key(shard.start + at), label, name, seed])
    write_atomically(shard.index, text.getvalue().encode())


def _key(number: int) -> str:
    return f"{number:09d}"


def start_workers() -> Executor:
    """Who encodes: a process a core, but one; a thread where there are two cores or fewer.

    Measured on two: what a process costs to feed is more than it gives while torch draws beside it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's neighbours
    if count <= 2:
        return ThreadPoolExecutor(1)
    # Not forked: a copy of torch's threads, or of CUDA, may stand still for ever.
    return ProcessPoolExecutor(count - 1, get_context("spawn"), _begin)


def _begin() -> None:
    """A worker leaves Ctrl-C to its parent, and goes when that goes, even where it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _in_order(
    pool: Executor, work: Callable[..., T], jobs: Iterator[tuple[Any, ...]]
) -> Iterator[T]:
    """What workers make of each job, in order, with no more than AHEAD of them on the way."""
    waiting: deque[Future[T]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, *job))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor as error:
        raise RunError(
            "a worker process died: where memory was short, free some and run it again; in a "
            'script, call this below `if __name__ == "__main__":`'
        ) from error
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)
