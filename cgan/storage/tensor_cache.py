"""Tensors in a cache: read again only if their key is the same and no byte differs.

A key says what the tensors were made from, so nothing in a cache is ever out of date.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cgan.storage.atomic import write_atomically


def read_tensors(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The tensors by name; None if there are none of this key, or the file is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors if metadata.get("crc32") == checksum(tensors) else None
    except (SafetensorError, OSError):
        return None


def write_tensors(path: Path, key: str, tensors: dict[str, np.ndarray]) -> None:
    """Replace the file; raises ``FileError`` if it cannot be written."""
    write_atomically(path, save(tensors, {"key": key, "crc32": checksum(tensors)}))


def checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """CRC-32 of all tensors, in the order of their names."""
    crc = 0
    for _, tensor in sorted(tensors.items()):
        crc = zlib.crc32(np.ascontiguousarray(tensor).data, crc)
    return f"{crc:08x}"
