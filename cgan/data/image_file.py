"""One image file: its limits, decoding it, and its conversion to 8 bits and one shape.

Files may come from anyone. Every file is opened here, so that all obey the same limits.
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BufferedReader, BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from cgan.data.archive import AnyPath
from cgan.errors import DataError, one_line
from cgan.runtime.cpu import count_cores, free_memory
from cgan.runtime.process import local_world_size

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm",
     ".pgm", ".tga"}
    | ({".jp2"} if features.check("jpg_2000") else set())
    | ({".avif"} if features.check("avif") else set())
)  # fmt: skip
FORMATS = (
    "PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM",
    *(["JPEG2000"] if ".jp2" in SUFFIXES else []), *(["AVIF"] if ".avif" in SUFFIXES else []),
)  # fmt: skip
"""The formats of these suffixes. Pillow tries no other: a file in EPS would start Ghostscript. TGA
has no mark of its own, so it is tried for files of that suffix alone."""
MAX_PIXELS = 89_478_485
"""An image with more pixels is not decoded, because a small file can decode to any size. It is the
number above which Pillow warns: 1 GiB / 12."""
BYTES_PER_PIXEL = 16
"""Memory for reading an image, with all copies (measured): 1.3 GiB for ``MAX_PIXELS``."""
MAX_FILE_BYTES = 4 * MAX_PIXELS
"""A larger file is not read: no image needs more, uncompressed, with four bytes per pixel."""
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of TIFF
GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I"})
DEEP = 65_535
"""The largest value of 16 bits."""
DEEP_COLOUR = "cgan: 16 bits a colour"
"""Key in the ``info`` of a decoded image."""


class Conversion(NamedTuple):
    """How files become images of 8 bits and one shape; the same for all files of a data set.

    Attributes:
        maximum: the value of files of 16 bits that becomes white. Those of cameras and scanners
            often use 10, 12 or 14 bits.
        background: what shows through transparent parts: ``white``, ``black`` or ``#rrggbb``.
        fit: ``crop`` keeps the centre, ``pad`` adds the background, ``stretch`` changes the aspect.
    """

    maximum: int = DEEP
    background: str = "white"
    fit: str = "crop"


USUAL = Conversion()


class EncodedImage:
    """A file in memory, with the methods of ``pathlib.Path`` that reading an image needs.

    Args:
        name: what messages call it.
        content: the file.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.content = name, content
        self.suffix = os.path.splitext(name)[1]

    def __str__(self) -> str:
        return self.name

    def stat(self) -> os.stat_result:
        """Its size."""
        return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, len(self.content), 0, 0, 0))

    def open(self, mode: str = "rb") -> BytesIO:
        """The content."""
        return BytesIO(self.content)


ImageSource = AnyPath | EncodedImage


@contextmanager
def open_image(
    path: ImageSource, conversion: Conversion = USUAL
) -> Iterator[tuple[Image.Image, BufferedReader | BytesIO]]:
    """Decode a file's first image: upright, mode ``L`` if the file is grey, otherwise ``RGB``.

    Yields the image and the open file.

    Raises:
        DataError: as for ``decode``.
    """
    with decode(path) as (image, file):
        yield to_8_bits(image, conversion), file


@contextmanager
def decode(path: ImageSource) -> Iterator[tuple[Image.Image, BufferedReader | BytesIO]]:
    """Decode a file's first image, upright, in the file's own mode; yields it and the open file.

    Raises:
        DataError: the file is broken or exceeds a limit, or the ``with`` block raises an exception.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait forever
            raise ValueError("it is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(
                f"it has {status.st_size:,} bytes, and the limit is {MAX_FILE_BYTES:,}"
            )
        # Pillow maps a path into memory: a file that shrinks meanwhile would end the process, and
        # Pillow 13 garbles an uncompressed TIFF that is rotated.
        formats = ("TGA", *FORMATS) if path.suffix.lower() == ".tga" else FORMATS
        with path.open("rb") as file, Image.open(file, formats=formats) as image:
            _check_size(image)
            image.info[DEEP_COLOUR] = any(";16" in str(tile[3]) for tile in image.tile)
            image.load()
            with suppress(Exception):  # a damaged EXIF block says nothing about the orientation
                ImageOps.exif_transpose(image, in_place=True)
            yield image, file
    except Exception as error:  # Pillow's readers raise exceptions of any type
        raise DataError(f"{path} cannot be read as an image ({_reason(error)})") from error


def image_digest(path: ImageSource) -> bytes:
    """SHA-256 of a file; of one that ``open_image`` would not read, that of nothing."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        pass
    return hashlib.sha256().digest()


def read_image(
    path: ImageSource, image_shape: tuple[int, int, int], conversion: Conversion = USUAL
) -> Tensor:
    """Read one file as uint8 of the given (C, H, W).

    Raises:
        DataError: the file is broken or exceeds a limit.
    """
    channels, height, width = image_shape
    with open_image(path, conversion) as (image, _):
        mode = "L" if channels == 1 else "RGB"
        image = image if image.mode == mode else image.convert(mode)
        if image.size != (width, height):
            image = _resize(image, (width, height), conversion)
        pixels = np.array(image)
    return torch.from_numpy(pixels).view(height, width, channels).permute(2, 0, 1)


@contextmanager
def ignore_pillow_warnings() -> Iterator[None]:
    """Hide warnings about slightly damaged files: they do not name the file.

    Call it in the main thread: the filter holds for all threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def reading_threads() -> Iterator[ThreadPoolExecutor]:
    """One thread per core, but no more than fit in memory if each reads the largest image."""
    free, processes = free_memory(), local_world_size()
    threads = count_cores() // processes
    if free is not None:
        threads = min(threads, free // (processes * BYTES_PER_PIXEL * MAX_PIXELS))
    threads = max(threads, 1)
    with ignore_pillow_warnings(), ThreadPoolExecutor(threads) as pool:
        yield pool


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError
    tags = getattr(image, "tag_v2", {})  # of a TIFF file; its tiles may be larger than the image
    if int(tags.get(TILE_WIDTH, 1)) * int(tags.get(TILE_LENGTH, 1)) > MAX_PIXELS:
        raise Image.DecompressionBombError


def _resize(image: Image.Image, size: tuple[int, int], conversion: Conversion) -> Image.Image:
    if conversion.fit == "stretch":
        return image.resize(size, Image.Resampling.BICUBIC)
    if conversion.fit == "pad":
        colour = ImageColor.getcolor(conversion.background, image.mode)
        return ImageOps.pad(image, size, Image.Resampling.BICUBIC, color=colour)
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def to_8_bits(image: Image.Image, conversion: Conversion = USUAL) -> Image.Image:
    """Mode ``L`` if the image is grey, otherwise ``RGB``; on the background where transparent."""
    mode = "L" if image.mode in GREY_MODES else "RGB"
    if image.has_transparency_data and conversion.background not in ("white", "black"):
        mode = "RGB"
    if image.mode.startswith("I"):
        image = _scale_16_bits(image, conversion)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, conversion.background), image)
    return image if image.mode == mode else image.convert(mode)


def deepest_value(image: Image.Image) -> int:
    """The largest value of an image of 16 bits; 0 for others.

    Raises:
        ValueError: it has values that 16 bits cannot have.
    """
    if not image.mode.startswith("I"):
        return 0
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > DEEP:
        raise ValueError("its pixels are not in 0..65535: convert it to 8 or 16 bits")
    return int(pixels.max())


def deepest_colour(image: Image.Image) -> int:
    """The largest value, of 255, of a colour image of 16 bits, of which Pillow reads the upper 8; 0
    for others."""
    if not image.info.get(DEEP_COLOUR) or image.mode.startswith("I"):
        return 0
    bands = image.getbands()
    values: Any = image.getextrema()
    values = values if len(bands) > 1 else [values]
    return int(max(high for band, (_, high) in zip(bands, values, strict=True) if band != "A"))


def _scale_16_bits(image: Image.Image, conversion: Conversion) -> Image.Image:
    """Pillow's own conversion clips instead of scaling."""
    deepest_value(image)
    pixels = np.asarray(image)
    scaled = (pixels.astype(np.int64) * 255 // conversion.maximum).clip(0, 255).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        scaled[pixels == transparent] = ImageColor.getcolor(conversion.background, "L")
    return Image.fromarray(scaled)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has too many pixels, and the limit is {MAX_PIXELS:,}"
    if isinstance(error, UnidentifiedImageError):
        return f"it is damaged or in none of the formats {', '.join(FORMATS)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)
