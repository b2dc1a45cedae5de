"""Write generated data sets: labelled, balanced, streamed to disk, resumable, multi-process.

Image i has the class ``chosen[i % k]`` of k chosen classes and the seed ``seed + i``, so any part
can be generated alone, and no two images share a z. A data set is stored in shards; a shard with an
index is complete. The processes do not communicate: shard s belongs to the process with
RANK s % WORLD_SIZE, and running the same command again writes the missing shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgan import __version__
from cgan.console import printable
from cgan.errors import ConfigError, FileError, UnknownNameError
from cgan.runtime.process import catch_signals, rank_and_world_size
from cgan.runtime.progress import CountProgress
from cgan.sampling.request import Labels, Request
from cgan.sampling.sampler import ImageClassifier, RejectionSampler, Sampler
from cgan.sampling.shards import SUFFIXES, Pixels, Shard, start_workers
from cgan.storage.atomic import lock, write_atomically
from cgan.storage.images import to_pixels
from cgan.storage.paths import safe_file_names
from cgan.storage.safe_reading import MAX_MANIFEST_BYTES, parse_json_object, read_bytes
from cgan.storage.schema import is_count, is_share

DATASET_FILE, CARD_FILE, CLASSES_FILE = "dataset.json", "README.md", "classes.txt"
CARD_PATTERNS = {"webdataset": "*.tar", "folder": "*/*.png", "npz": "*.csv"}
"""What ``datasets`` reads; it cannot read npz files, but their index."""
FORMAT_VERSION = 2

MUTABLE_KEYS = frozenset({"count", "model", "cgan", "control_accuracy"})
"""Keys of dataset.json that may change when a data set is continued."""
SHARD_SIZE = 10_000
"""Images per shard. A stopped process repeats at most this many."""
MAX_COUNT = 10**9
"""The largest number of images: keys have nine digits."""


def describe_dataset(
    sampler: Sampler,
    chosen: tuple[int, ...] | None,
    format: str,
    count: int,
    shard_size: int,
    seed: int,
    verify: RejectionSampler | None,
) -> dict[str, Any]:
    """The content of ``dataset.json``: how to reproduce the data set, and its label accuracy."""
    return {
        "format": "cgan-dataset",
        "format_version": FORMAT_VERSION,
        "files": format,
        "count": count,
        "pictures_per_shard": shard_size,
        "image_shape": list(sampler.image_shape),
        "classes": list(sampler.classes) if chosen is not None else None,
        "folders": safe_file_names(sampler.classes) if chosen is not None else None,
        "chosen": None if chosen is None else list(chosen),
        "seed": seed,
        "rule": "picture i is of class chosen[i % k], k of them, and has the seed seed + i",
        "model": sampler.path.name,
        "model_sha256": sampler.digest,
        "control_accuracy": None if verify else _control_of(sampler, chosen),
        "verified_by": None if verify is None else _judge_digest(verify.judge),
        "cgan": __version__,
    }


def _control_of(sampler: Sampler, chosen: tuple[int, ...] | None) -> float | None:
    """The measured control accuracy of the chosen classes; None if it is not known."""
    measured = sampler.header["measured"]
    if chosen is None or not measured:
        return None
    if sorted(chosen) == list(range(len(sampler.classes))):
        return float(measured["control_accuracy"])
    per_class = measured.get("per_class")
    if not isinstance(per_class, dict):
        return None
    shares: list[Any] = [per_class.get(sampler.classes[index]) for index in chosen]
    return sum(shares) / len(shares) if all(map(is_share, shares)) else None


def _judge_digest(judge: ImageClassifier) -> str:
    """SHA-256 of a judge's weights; the type of any other classifier."""
    digest = getattr(judge, "weights_digest", None)
    return str(digest) if digest is not None else type(judge).__name__


def open_dataset(out: Path, description: dict[str, Any]) -> None:
    """Write ``dataset.json``, or check that the folder holds this data set.

    Raises:
        FileError: it contains something else, or is not writable.
    """
    path = out / DATASET_FILE
    try:
        # The order matters: another process writes dataset.json before any other file.
        others = sorted(p.name for p in out.iterdir() if p.name[0] != ".") if out.exists() else []
    except OSError as error:
        raise FileError(f"{out} cannot be read as a folder: {error.strerror}") from error
    begun = _read_manifest(path) if path.exists() else None
    if begun is None and others:
        raise FileError(f"{out} contains other files, like {others[0]}: give a new or empty --out")
    if begun is not None:
        differing = [
            f"{key} {begun.get(key)!r:.200}, not {value!r:.200}"
            for key, value in description.items()
            if key not in MUTABLE_KEYS and begun.get(key) != value
        ]
        if begun["count"] > description["count"]:
            differing.append(f"count {begun['count']}, not {description['count']}")
        if differing:
            raise FileError(
                f"{out} holds another data set ({'; '.join(differing)}): give another --out"
            )
    if begun is None or begun["count"] < description["count"]:
        content = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        write_atomically(path, content.encode())
    names = ""  # of folders the names are the classes
    if description["files"] != "folder":
        names = "".join(f"{printable(name)}\n" for name in description["classes"] or ())
    for name, text in ((CARD_FILE, dataset_card(description)), (CLASSES_FILE, names)):
        if text and not (out / name).exists():  # a data set of any count has the same ones
            write_atomically(out / name, text.encode())


def dataset_card(description: dict[str, Any]) -> str:
    """The data set's card, which tells ``datasets.load_dataset`` which files to read.

    Without it that library reads ``dataset.json`` as the data, and takes a class that is called
    ``train`` or ``test`` for a split.
    """
    pattern = CARD_PATTERNS[description["files"]]
    has_numbers = description["classes"] and description["files"] != "folder"
    order = f" Line i + 1 of `{CLASSES_FILE}` is class i." if has_numbers else ""
    return (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        f'    path: "{pattern}"\n---\n\n'
        f"Images that cgan {__version__} generated. `{DATASET_FILE}` says how to generate them "
        f"again.{order}\n"
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    """The content of ``dataset.json``.

    Raises:
        FileError: it cannot be read, or was not written by cgan.
    """
    try:
        content = parse_json_object(read_bytes(path, MAX_MANIFEST_BYTES))
        if not is_count(content.get("count")):
            raise ValueError("count is not a whole number from 0")
    except ValueError as error:
        raise FileError(f"{path} was not written by cgan generate: give another --out") from error
    return content


@dataclass(frozen=True)
class WriteResult:
    """What one process wrote.

    Attributes:
        folder: the folder of the data set.
        drawn: number of images in shards that were written now.
        kept: number of images in shards that were already complete.
        stopped_by: the signal that stopped it early, or None.
    """

    folder: Path
    drawn: int
    kept: int
    stopped_by: int | None


class _Stopped(Exception):
    """A signal arrived while a shard was being written."""


def write_dataset(
    sampler: Sampler,
    out: str | Path,
    count: int,
    *,
    labels: Labels = None,
    format: str = "webdataset",
    seed: int = 0,
    verify: ImageClassifier | RejectionSampler | None = None,
    progress: bool = False,
) -> WriteResult:
    """Write a data set, or its missing part, into a folder.

    If RANK and WORLD_SIZE are set, as by torchrun, each process writes its own shards. PNGs may be
    encoded in worker processes, so a script must call this below ``if __name__ == "__main__":``.

    Args:
        sampler: generates the images, on its device.
        out: a new or empty folder, or one that holds this data set or a part of it. A larger
            ``count`` than before extends it.
        count: total images, 1 to 10^9; class sizes differ by at most one image.
        labels: the classes, as for ``cgan.Sampler.sample``, without duplicates; None means all.
        format: ``webdataset``: tar files of ``000000000.png`` and ``000000000.cls`` (the class
            index as text); ``folder``: ``CLASS/000000000.png``, which ``cgan train --data`` reads;
            ``npz``: arrays ``images`` uint8 (N, H, W, C), ``labels`` and ``seeds`` int64 (N,). An
            unconditional GAN has no ``.cls`` and no ``labels``, and its folder is ``pictures``.
        seed: seed of the first image.
        verify: as for ``cgan.Sampler.sample``.
        progress: show progress on stderr (rank 0 only).

    Raises:
        ConfigError: count, format, classes or seed are invalid.
        FileError: the folder holds something else or is not writable; complete shards are kept.
        RunError: another process is writing the same shard, or a worker process died.
        MeasureError: the judge has other classes, or rejected every draw of an image.
    """
    out, (rank, world_size) = Path(out), rank_and_world_size()
    chosen = _check_arguments(sampler, count, labels, format, seed)
    if verify is not None:
        verify = verify if isinstance(verify, RejectionSampler) else RejectionSampler(verify)
        verify.check(sampler, Request(None if chosen is None else (), ()))
    open_dataset(out, describe_dataset(sampler, chosen, format, count, SHARD_SIZE, seed, verify))

    numbers = range(rank, -(-count // SHARD_SIZE), world_size)
    total = sum(min(SHARD_SIZE, count - number * SHARD_SIZE) for number in numbers)
    folders = safe_file_names(sampler.classes)
    drawn = kept = 0
    with (
        catch_signals() as caught,
        CountProgress(total, progress and rank == 0) as shown,
        start_workers() as pool,
    ):
        for number in numbers:
            shard = _shard(out, number, count, chosen, seed)
            if shard.is_complete(format):
                kept += len(shard.seeds)
                shown.skip(len(shard.seeds))
                continue
            try:
                with _locked(shard):
                    batches = _draw(sampler, shard, verify, shown, caught)
                    shard.write(format, batches, sampler.classes, folders, pool)
            except _Stopped:
                break
            drawn += len(shard.seeds)
    return WriteResult(out, drawn, kept, caught[0] if caught and drawn + kept < total else None)


def _check_arguments(
    sampler: Sampler, count: int, labels: Labels, format: str, seed: int
) -> tuple[int, ...] | None:
    """The chosen classes, each once; None if unconditional."""
    if not 1 <= count <= MAX_COUNT:
        raise ConfigError(f"a data set has from 1 to {MAX_COUNT:,} images, not {count:,}")
    if format not in SUFFIXES:
        raise UnknownNameError("format", format, SUFFIXES)
    found = sampler.request(labels, 1, seed).labels
    chosen = None if found is None else tuple(dict.fromkeys(found))
    sampler.request(None, 1, seed + count - 1)  # check the last seed too
    return chosen


def _shard(out: Path, number: int, count: int, chosen: tuple[int, ...] | None, seed: int) -> Shard:
    start, k = number * SHARD_SIZE, len(chosen or "1")
    keys = range(start, min(start + SHARD_SIZE, count))
    labels = None if chosen is None else tuple(chosen[key % k] for key in keys)
    return Shard(out, number, start, labels, tuple(seed + key for key in keys))


@contextmanager
def _locked(shard: Shard) -> Iterator[None]:
    """Lock one shard, so that two processes never write the same file."""
    name = f".lock-{shard.name}"
    with lock(shard.out, name):
        try:
            yield
        finally:
            with suppress(OSError):  # all images are written, or another error is on its way
                (shard.out / name).unlink()


def _draw(
    sampler: Sampler,
    shard: Shard,
    verify: RejectionSampler | None,
    shown: CountProgress,
    caught: list[int],
) -> Iterator[Pixels]:
    for images, _ in sampler.batches(Request(shard.labels, shard.seeds), verify):
        if caught:
            raise _Stopped
        yield to_pixels(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        shown.add(len(images))
