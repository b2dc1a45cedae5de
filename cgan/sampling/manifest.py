"""``dataset.json``: how a generated data set was made, so that it can be continued."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cgan import __version__
from cgan.errors import FileError
from cgan.sampling.rejection import ImageClassifier, RejectionSampler
from cgan.sampling.sampler import Sampler
from cgan.storage.atomic import write_atomically
from cgan.storage.paths import safe_file_names

DATASET_FILE = "dataset.json"
FORMAT_VERSION = 1

MUTABLE_KEYS = frozenset({"count", "model", "cgan", "control_accuracy"})
"""Keys of dataset.json that may change when a data set is continued."""


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
        "pictures_per_shard": shard_size,
        "image_shape": list(sampler.image_shape),
        "classes": list(sampler.classes) if chosen is not None else None,
        "folders": safe_file_names(sampler.classes) if chosen is not None else None,
        "chosen": None if chosen is None else list(chosen),
        "seed": seed,
        "rule": "picture i is of class chosen[i % k], k of them, and has the seed seed + i // k",
        "model": sampler.path.name,
        "model_sha256": model,
        "control_accuracy": measured["control_accuracy"] if measured else None,
        "verified_by": None if verify is None else _judge_digest(verify.judge),
        "licence": "pictures drawn by a generator",
        "cgan": __version__,
    }


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
        begun = json.loads(path.read_text("utf-8")) if path.exists() else None
    except OSError as error:
        raise FileError(f"{out} cannot be read as a folder: {error.strerror}") from error
    except ValueError as error:
        raise FileError(f"{path} was not written by cgan generate: give another --out") from error
    if begun is None and others:
        raise FileError(f"{out} contains other files, like {others[0]}: give a new or empty --out")
    if begun is not None:
        differing = [
            f"{key} {begun.get(key)!r}, not {value!r}"
            for key, value in description.items()
            if key not in MUTABLE_KEYS and begun.get(key) != value
        ]
        if begun.get("count", 0) > description["count"]:
            differing.append(f"count {begun['count']}, not {description['count']}")
        if differing:
            raise FileError(
                f"{out} holds another data set ({'; '.join(differing)}): give another --out"
            )
    if begun is None or begun["count"] < description["count"]:
        content = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        write_atomically(path, content.encode())
