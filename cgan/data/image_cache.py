"""What a scan needs to know of every image file, and a cache of it and of decoded images.

A large folder opens quickly the second time. Everything in the cache is found by the SHA-256 of a
file's content: an image that has changed is decoded again. It is only ever a shortcut, so a file of
the cache that is missing, damaged (by its checksum) or of another version of Pillow is ignored and
written anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from cgan.data.archive import AnyPath
from cgan.data.image_file import image_digest, open_image, reading_threads
from cgan.errors import DataError, FileError
from cgan.runtime.cpu import free_memory
from cgan.runtime.progress import CountProgress, is_asked_for
from cgan.storage.paths import cache_folder, safe_file_name
from cgan.storage.tensor_cache import read_tensors, write_tensors

MIN_IMAGES = 1_000
"""Smaller folders are decoded in a second."""
MAX_BYTES = 4 * 2**30
"""Larger sets of decoded images are not kept."""
VERSION = f"2, Pillow {PIL.__version__}"

logger = logging.getLogger("cgan")


class ImageCache:
    """The cached facts and pixels of one folder of images.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        root = root.resolve()
        name = f"{safe_file_name(root.name)}-{hashlib.sha256(bytes(root)).hexdigest()[:16]}"
        self.prefix = str(Path("images", name))

    def read_facts(self) -> dict[bytes, tuple[bool, int]]:
        """By SHA-256 of a file: whether the image is grey, and its shorter side."""
        found = self._read("facts", VERSION)
        if found is None:
            return {}
        rows = zip(found["digest"], found["grey"], found["side"], strict=True)
        return {digest.tobytes(): (bool(grey), int(side)) for digest, grey, side in rows}

    def write_facts(self, facts: Mapping[bytes, tuple[bool, int]]) -> None:
        """Replace the facts."""
        self._write(
            "facts",
            VERSION,
            {
                "digest": np.frombuffer(b"".join(facts), np.uint8).reshape(-1, 32),
                "grey": np.array([grey for grey, _ in facts.values()], np.uint8),
                "side": np.array([side for _, side in facts.values()], np.int64),
            },
        )

    def read_pixels(self, split: str, digest: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The images of a split, uint8 of this shape, if it has this digest; None if unknown."""
        found = self._read(split, f"{VERSION}, {digest}")
        pixels = None if found is None else found["pixels"]
        return pixels if pixels is not None and pixels.shape == shape else None

    def write_pixels(self, split: str, digest: str, pixels: np.ndarray) -> None:
        """Replace the images of a split."""
        free = free_memory()  # writing takes two copies
        if pixels.nbytes <= MAX_BYTES and (free is None or 2 * pixels.nbytes < free):
            self._write(split, f"{VERSION}, {digest}", {"pixels": pixels})

    def _path(self, what: str) -> Path:
        return cache_folder() / f"{self.prefix}-{what}.safetensors"

    def _read(self, what: str, key: str) -> dict[str, np.ndarray] | None:
        with suppress(FileError):
            return read_tensors(self._path(what), key)
        return None

    def _write(self, what: str, key: str, tensors: dict[str, np.ndarray]) -> None:
        try:
            write_tensors(self._path(what), key, tensors)
        except FileError as error:
            logger.info("the decoded images are not cached: %s", error)


class Probe(NamedTuple):
    """What a scan reads of an image."""

    is_grey: bool
    side: int
    """The shorter side in pixels."""
    digest: bytes
    """SHA-256 of the file."""


def probe_files(root: Path, paths: Sequence[AnyPath]) -> list[Probe | str]:
    """Decode every file of a folder: a probe, or a sentence if the file is broken.

    Of a large folder, files that an earlier scan has decoded are only hashed, and there is a
    progress line for the others.
    """
    large, cache = len(paths) >= MIN_IMAGES, ImageCache(root)
    known = cache.read_facts() if large else {}
    with reading_threads() as pool:
        found: list[Probe | str | None] = list(pool.map(partial(_look_up, known), paths))
        missing = [index for index, probe in enumerate(found) if probe is None]
        probes_of_missing = pool.map(_probe, [paths[index] for index in missing])
        with CountProgress(len(missing), is_asked_for() and len(missing) >= MIN_IMAGES) as shown:
            for index, probe in zip(missing, probes_of_missing, strict=True):
                found[index] = probe
                shown.add(1)
    probes = [probe for probe in found if probe is not None]
    facts = {
        probe.digest: (probe.is_grey, probe.side) for probe in probes if isinstance(probe, Probe)
    }
    if large and facts.keys() != known.keys():
        cache.write_facts(facts)
    return probes


def _look_up(known: Mapping[bytes, tuple[bool, int]], path: AnyPath) -> Probe | None:
    """The probe of a file that was decoded before."""
    if known and (digest := image_digest(path)) in known:
        return Probe(*known[digest], digest)
    return None


def _probe(path: AnyPath) -> Probe | str:
    """An exception would keep the decoded pixels in memory."""
    try:
        with open_image(path) as (image, file):
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            return Probe(image.mode == "L", min(image.size), digest)
    except DataError as error:
        return str(error)
