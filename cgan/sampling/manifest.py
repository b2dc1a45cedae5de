"""``dataset.json``: how a generated data set was made, so that it can be continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cgan import __version__
from cgan.errors import FileError
from cgan.sampling.rejection import ImageClassifier, RejectionSampler
from cgan.sampling.sampler import Sampler
from cgan.storage.atomic import write_atomically
from cgan.storage.headers import is_count, is_share
from cgan.storage.limits import MAX_MANIFEST_BYTES
from cgan.storage.paths import safe_file_names
from cgan.storage.safe_reading import file_digest, parse_json_object, read_bytes

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
        "model_sha256": file_digest(sampler.path),
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
    per_class = measured.get("per_class", {})
    shares = [per_class.get(sampler.classes[index]) for index in chosen]
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
