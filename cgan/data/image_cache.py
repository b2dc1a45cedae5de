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
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageChops

from cgan.data.archive import AnyPath
from cgan.data.image_file import (
    USUAL,
    Conversion,
    decode,
    deepest_colour,
    deepest_value,
    image_digest,
    reading_threads,
    to_8_bits,
)
from cgan.errors import DataError, FileError
from cgan.runtime.cpu import free_memory
from cgan.runtime.progress import CountProgress, is_asked_for
from cgan.storage.atomic import remove_old_temporary_files
from cgan.storage.paths import cache_folder, safe_file_name
from cgan.storage.tensor_cache import read_tensors, write_tensors

MIN_IMAGES = 1_000
"""Smaller folders are decoded in a second."""
SAMPLE_SIDE = 64
GREY_ROUNDING = 4
"""Difference of the channels of a grey image, of 255, that the rounding of JPEG explains."""
SPAN_EVERY = 4
FORMATS_WITH_FRAMES = {"GIF", "PNG", "WEBP", "TIFF", "AVIF"}
MAX_BYTES = 4 * 2**30
"""Larger sets of decoded images are not kept."""
VERSION = f"4, Pillow {PIL.__version__}"

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

    def read_facts(self) -> dict[bytes, Probe]:
        """The probes by SHA-256 of the files."""
        found = self._read("facts", VERSION)
        if found is None:
            return {}
        rows = zip(found["digest"], found["facts"].tolist(), strict=True)
        digests = ((digest.tobytes(), facts) for digest, facts in rows)
        return {digest: _probe_of(digest, row) for digest, row in digests}

    def write_facts(self, facts: Mapping[bytes, Probe]) -> None:
        """Replace the facts."""
        self._write(
            "facts",
            VERSION,
            {
                "digest": np.frombuffer(b"".join(facts), np.uint8).reshape(-1, 32),
                "facts": np.array([probe[1:] for probe in facts.values()], np.int64),
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
        path = self._path(what)
        remove_old_temporary_files(path.parent)  # a killed process leaves gigabytes
        try:
            write_tensors(path, key, tensors)
        except FileError as error:
            logger.info("the decoded images are not cached: %s", error)


class Probe(NamedTuple):
    """What a scan reads of an image."""

    digest: bytes
    """SHA-256 of the file."""
    is_grey: bool
    """Whether it has one channel, or three that are equal up to the rounding of JPEG."""
    width: int
    height: int
    maximum: int
    """The largest value of a file of 16 bits; 0 for others."""
    span: int
    """Largest minus smallest value of 8 bits, on a white background, of a sample of pixels; -1 if
    it was not measured."""
    black_span: int
    """The same on a black background; -1 if nothing is transparent."""
    has_frames: bool
    """Whether the file holds more images than the first one."""
    colour_maximum: int
    """The largest value of 8 bits of a file with 16 bits a colour; 0 for others."""

    @property
    def side(self) -> int:
        """The shorter side in pixels."""
        return min(self.width, self.height)


def _probe_of(digest: bytes, row: list[int]) -> Probe:
    """A row of the cache."""
    grey, width, height, maximum, span, on_black, frames, colour = row
    return Probe(digest, bool(grey), width, height, maximum, span, on_black, bool(frames), colour)


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
        probe = partial(_probe, not large)
        probes_of_missing = pool.map(probe, [paths[index] for index in missing])
        with CountProgress(len(missing), is_asked_for() and len(missing) >= MIN_IMAGES) as shown:
            for index, one in zip(missing, probes_of_missing, strict=True):
                found[index] = one
                shown.add(1)
    probes = [probe for probe in found if probe is not None]
    facts = {probe.digest: probe for probe in probes if isinstance(probe, Probe)}
    if large and facts.keys() != known.keys():
        cache.write_facts(facts)
    return probes


def _look_up(known: Mapping[bytes, Probe], path: AnyPath) -> Probe | None:
    """The probe of a file that was decoded before."""
    return known.get(image_digest(path)) if known else None


def _probe(every: bool, path: AnyPath) -> Probe | str:
    """An exception would keep the decoded pixels in memory.

    With ``every`` false, the span of one file in ``SPAN_EVERY`` is measured, chosen by its digest.
    """
    try:
        with decode(path) as (image, file):
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            maximum = deepest_value(image)
            scale = Conversion(maximum=maximum) if maximum else USUAL  # as bright as it can be
            usual, span, black_span = to_8_bits(image, scale), -1, -1
            if image.has_transparency_data and not _is_opaque(image):
                black_span = _span(to_8_bits(image, scale._replace(background="black")))
            if every or black_span >= 0 or digest[0] % SPAN_EVERY == 0:
                span = _span(usual)
            frames = False
            if image.format in FORMATS_WITH_FRAMES:
                with suppress(Exception):  # the next frame may be damaged
                    frames = bool(getattr(image, "is_animated", False))
            return Probe(
                digest, is_grey(usual), *usual.size, maximum, span, black_span, frames,
                deepest_colour(image),
            )  # fmt: skip
    except DataError as error:
        return str(error)


def _is_opaque(image: Image.Image) -> bool:
    """Whether a channel of transparency says that nothing is transparent."""
    if "A" not in image.getbands():
        return False
    lowest: Any = image.getchannel("A").getextrema()
    return bool(lowest[0] == 255)


def _sample(image: Image.Image) -> Image.Image:
    """At most ``SAMPLE_SIDE`` pixels a side, so that a large image takes no longer."""
    width, height = (min(side, SAMPLE_SIDE) for side in image.size)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.NEAREST)


def _span(image: Image.Image) -> int:
    """The largest value of a sample minus the smallest."""
    found: Any = _sample(image).getextrema()
    channels = [found] if image.mode == "L" else found
    return int(max(high for _, high in channels) - min(low for low, _ in channels))


def is_grey(image: Image.Image) -> bool:
    """Whether the channels are equal. Most images show in a few pixels that they are not."""
    if image.mode == "L":
        return True
    width, height = image.size
    places = (width // 2, height // 2), (0, 0), (width - 1, height - 1), (width // 3, height // 4)
    for x, y in places:
        pixel: Any = image.getpixel((x, y))
        if max(pixel) - min(pixel) > GREY_ROUNDING:
            return False
    for some in (_sample(image), image):
        red, green, blue = some.split()
        for other in (green, blue):
            difference: Any = ImageChops.difference(red, other).getextrema()
            if difference[1] > GREY_ROUNDING:
                return False
    return True
