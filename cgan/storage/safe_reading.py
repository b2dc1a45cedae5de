"""Read files, above all JSON, that may come from anyone: size limits and one-sentence errors.

A file beyond a limit is refused with a ``FileError`` before memory is allocated for its content.
``cgan.config_io`` holds the limits on configs, and ``cgan.data.image_file`` those on images.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from cgan.errors import FileError

MAX_HEADER_BYTES = 8 * 2**20
"""JSON header of a safetensors file or an export. The 21,841 classes of ImageNet-21k take 3 MB."""

MAX_JSON_DEPTH = 16
"""Objects and lists inside each other. A model card has 5 levels."""

MAX_INTEGER = 2**63 - 1
"""Absolute value of a whole number in JSON; the largest seed."""

MAX_CLASSES = 2**16
"""Classes of a data set. ImageNet-21k has 21,841."""

MAX_CLASS_NAME = 255
"""Characters of a class name. No file system that cgan runs on has longer folder names."""

MAX_SIDE = 1_024
"""Height and width of an image in pixels. A config allows 512."""

MAX_LATENT_DIM = 4_096
"""Length of z, as in a config."""

MAX_CONFUSION_CLASSES = 1_000
"""With more classes, a header leaves out the confusion matrix: it would exceed its limit."""

MAX_EXPORT_EXTRA = 4 * 2**20
"""Bytes by which an ONNX export may be larger than its generator file. The graph takes 20 kB."""

MAX_METRICS_BYTES = 256 * 2**20
"""``metrics.jsonl``. A line has about 300 bytes."""

MAX_MANIFEST_BYTES = 32 * 2**20
"""``dataset.json``. It repeats the class names of a header twice."""


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes.

    Raises:
        FileError: it is not a file, is larger, or cannot be read.
    """
    try:
        if not path.is_file():  # reading a pipe would wait forever
            raise FileError(f"{path} is not a file")
        if path.stat().st_size > limit:
            raise FileError(f"{path} is larger than {limit:,} bytes, the limit for such a file")
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        FileError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error


def parse_json_object(text: str | bytes, *, allow_nan: bool = False) -> dict[str, Any]:
    """Parse one JSON object in UTF-8.

    Args:
        text: the JSON.
        allow_nan: accept NaN and Infinity, which standard JSON does not have.

    Raises:
        ValueError: it is not valid, has a key twice, is nested more than ``MAX_JSON_DEPTH`` deep,
            holds a number that is out of range, or a text that is not valid Unicode.
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    reject = None if allow_nan else _reject_constant
    try:
        value = json.loads(
            text, object_pairs_hook=_unique_keys, parse_int=_integer, parse_constant=reject,
            parse_float=None if allow_nan else _finite,
        )  # fmt: skip
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    if _is_deeper(value, MAX_JSON_DEPTH):
        raise ValueError("it is nested too deeply")
    if "\\u" in text:  # only an escape can be half of a surrogate pair
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds a text that is not valid Unicode") from None
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a key twice")
    return found


def _integer(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) > MAX_INTEGER:
        raise ValueError("it holds a number of more than 64 bits")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it holds a number that is not finite")
    return value


def _reject_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not a number")


def _is_deeper(value: Any, limit: int) -> bool:
    """Whether containers are nested more than ``limit`` deep; level by level, not recursive."""
    level = [value]
    for _ in range(limit):
        containers = [one for one in level if isinstance(one, dict | list)]
        level = [
            inner
            for one in containers
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)
