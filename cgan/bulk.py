"""Data sets of drawn pictures: labelled, balanced, streamed to disk, resumable, in many processes.

Picture i is of the class ``chosen[i % k]`` of k chosen ones and has the seed ``seed + i // k``, so
any part can be drawn without the rest. A data set is cut in shards, and a shard whose index is
there is done. Nobody has to know of anybody else: shard s is drawn by the process whose RANK is
s % WORLD_SIZE, and drawing the same data set again draws what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgan.asking import Labels, Request
from cgan.distributed import place
from cgan.errors import ConfigError, FileError, UnknownName
from cgan.files import write_atomically
from cgan.interrupts import signals
from cgan.learner import package_version
from cgan.metrics.classifier import Judge
from cgan.png import to_pixels
from cgan.progress import PictureProgress
from cgan.runs import lock
from cgan.sampling import Sampler
from cgan.shards import SUFFIXES, Pixels, Shard, start_workers
from cgan.shell import file_names
from cgan.verify import Names, Verifier

DATASET_FILE = "dataset.json"
FORMAT_VERSION = 1
SHARD = 10_000
"""Pictures in a shard: as many are drawn again, at most, after a stop."""

MOST = 10**9
"""Pictures that keys of nine digits can tell apart."""

MAY_DIFFER = frozenset({"count", "model", "cgan", "control_accuracy"})
"""What a data set that goes on need not share with the one that was begun."""


@dataclass(frozen=True)
class Written:
    """What one process did of a data set.

    Attributes:
        folder: where it lies.
        drawn: pictures of the shards that were drawn now.
        kept: pictures of the shards that were done already.
        stopped_by: the signal that ended it early, or None.
    """

    folder: Path
    drawn: int
    kept: int
    stopped_by: int | None


class _Stopped(Exception):
    """A signal came while a shard was drawn."""


def write_dataset(
    sampler: Sampler,
    out: str | Path,
    count: int,
    *,
    labels: Labels = None,
    format: str = "webdataset",
    seed: int = 0,
    verify: Names | Verifier | None = None,
    progress: bool = False,
) -> Written:
    """Draw a data set into a folder, or what is missing of it.

    Where RANK and WORLD_SIZE are set, as torchrun does, each process draws its share of the shards.
    PNGs may be encoded in worker processes: a script calls this below
    ``if __name__ == "__main__":``.

    Args:
        sampler: draws, on its device.
        out: a new or empty folder, or one that holds this data set or a part of it. With a larger
            ``count`` than it was begun with, it goes on from there.
        count: pictures in all, 1 to 10^9; classes differ by at most one picture.
        labels: the classes, as :meth:`cgan.Sampler.sample` takes them, each once; None is all.
        format: ``webdataset``: tars of ``000000000.png`` and ``000000000.cls``, the class index as
            text; ``folder``: ``CLASS/000000000.png``, as ``cgan train --data`` reads it; ``npz``:
            arrays ``images`` uint8 (N, H, W, C), ``labels`` and ``seeds`` int64 (N,). A plain GAN
            has no ``.cls`` and no ``labels``, and its folder is ``pictures``.
        seed: of the first picture of each class.
        verify: as :meth:`cgan.Sampler.sample` takes it.
        progress: show it on stderr; only the process of rank 0 does.

    Raises:
        ConfigError: count, format, classes or seed cannot be.
        FileError: the folder holds something else or cannot be written to; finished shards stay.
        RunError: another process is drawing the same shard, or a worker died.
        MeasureError: the judge knows other classes, or never agreed.
    """
    out, (rank, world) = Path(out), place()
    if not 1 <= count <= MOST:
        raise ConfigError(f"a data set has from 1 to {MOST:,} pictures, not {count:,}")
    if format not in SUFFIXES:
        raise UnknownName("format", format, SUFFIXES)
    named = sampler.request(labels, 1, seed).labels
    chosen = None if named is None else tuple(dict.fromkeys(named))
    sampler.request(None, 1, seed + (count - 1) // len(chosen or "1"))  # the last seed can be too
    if verify is not None:
        verify = verify if isinstance(verify, Verifier) else Verifier(verify)
        nothing = Request(None if chosen is None else (), ())
        list(sampler.batches(nothing, verify))  # draws none, but looks whether the judge fits
    _prepare(out, _describe(sampler, chosen, format, count, seed, verify))

    shards = range(rank, -(-count // SHARD), world)
    total = sum(min(SHARD, count - number * SHARD) for number in shards)
    shown = PictureProgress(total, progress and rank == 0)
    folders = file_names(sampler.classes)
    drawn = kept = 0
    with signals() as caught, shown, start_workers() as pool:
        for number in shards:
            shard = _shard(out, number, min(SHARD, count - number * SHARD), chosen, seed)
            if shard.done(format):
                kept += len(shard.seeds)
                shown.skip(len(shard.seeds))
                continue
            try:
                with _alone(shard):
                    batches = _draw(sampler, shard, verify, shown, caught)
                    shard.write(format, batches, sampler.classes, folders, pool)
            except _Stopped:
                break
            drawn += len(shard.seeds)
    return Written(out, drawn, kept, caught[0] if caught and drawn + kept < total else None)


def _shard(out: Path, number: int, size: int, chosen: tuple[int, ...] | None, seed: int) -> Shard:
    start, k = number * SHARD, len(chosen or "1")
    keys = range(start, start + size)
    labels = None if chosen is None else tuple(chosen[key % k] for key in keys)
    return Shard(out, number, start, labels, tuple(seed + key // k for key in keys))


@contextmanager
def _alone(shard: Shard) -> Iterator[None]:
    """Inside, nobody else draws this shard: two of the same command must not write one file."""
    name = f".lock-{shard.name}"
    with lock(shard.out, name):
        try:
            yield
        finally:
            (shard.out / name).unlink(missing_ok=True)


def _draw(
    sampler: Sampler,
    shard: Shard,
    verify: Verifier | None,
    shown: PictureProgress,
    caught: list[int],
) -> Iterator[Pixels]:
    for pictures, _ in sampler.batches(Request(shard.labels, shard.seeds), verify):
        if caught:
            raise _Stopped
        yield to_pixels(pictures).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        shown.add(len(pictures))


def _describe(
    sampler: Sampler,
    chosen: tuple[int, ...] | None,
    format: str,
    count: int,
    seed: int,
    verify: Verifier | None,
) -> dict[str, Any]:
    """``dataset.json``: what is needed to draw the data set again, and how far to trust it."""
    try:
        model = hashlib.sha256(sampler.path.read_bytes()).hexdigest()
    except OSError as error:
        raise FileError(f"{sampler.path} cannot be read: {error.strerror}") from error
    measured = sampler.header["measured"] if chosen is not None else None
    return {
        "format": "cgan-dataset",
        "format_version": FORMAT_VERSION,
        "files": format,
        "count": count,
        "pictures_per_shard": SHARD,
        "image_shape": list(sampler.image_shape),
        "classes": list(sampler.classes) if chosen is not None else None,
        "folders": file_names(sampler.classes) if chosen is not None else None,
        "chosen": None if chosen is None else list(chosen),
        "seed": seed,
        "rule": "picture i is of class chosen[i % k], k of them, and has the seed seed + i // k",
        "model": sampler.path.name,
        "model_sha256": model,
        "control_accuracy": measured["control_accuracy"] if measured else None,
        "verified_by": None if verify is None else _digest(verify.judge),
        "licence": "pictures drawn by a generator",
        "cgan": package_version(),
    }


def _digest(judge: Names) -> str:
    """A name for a judge: the SHA-256 of its weights."""
    if not isinstance(judge, Judge):
        return type(judge).__name__
    digest = hashlib.sha256()
    for _, weight in sorted(judge.network.state_dict().items()):
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _prepare(out: Path, description: dict[str, Any]) -> None:
    """Make the folder one of this data set, or see that it is.

    Raises:
        FileError: it holds something else, or cannot be written to.
    """
    path = out / DATASET_FILE
    try:
        # Asked in this order: whatever another process writes, it writes the description before.
        others = sorted(p.name for p in out.iterdir() if p.name[0] != ".") if out.exists() else []
        begun = json.loads(path.read_text("utf-8")) if path.exists() else None
    except OSError as error:
        raise FileError(f"{out} cannot be read as a folder: {error.strerror}") from error
    except ValueError as error:
        raise FileError(f"{path} was not written by cgan generate: give another --out") from error
    if begun is None and others:
        raise FileError(f"{out} holds other files, like {others[0]}: give a new or empty --out")
    if begun is not None:
        differing = [
            f"{key} {begun.get(key)!r}, not {value!r}"
            for key, value in description.items()
            if key not in MAY_DIFFER and begun.get(key) != value
        ]
        if begun.get("count", 0) > description["count"]:
            differing.append(f"count {begun['count']}, not {description['count']}")
        if differing:
            raise FileError(
                f"{out} holds another data set ({'; '.join(differing)}): give another --out"
            )
    if begun is None or begun["count"] < description["count"]:
        write_atomically(
            path, (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode()
        )
