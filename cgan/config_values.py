"""How single values of a config are parsed and checked."""

from __future__ import annotations

import re
from decimal import Decimal

MAX_SIZE = 512
"""Largest side of a folder's images in pixels."""
MAX_NAME_BYTES = 200
"""File names have at most 255 bytes, and a run folder's number is added to the name."""

NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and surrogates, which stand for bytes that are not UTF-8."""
NAME = re.compile(r"\w([\w.-]*[\w-])?")
RESERVED_NAME = re.compile(r"(con|prn|aux|nul|(com|lpt)[\d¹²³])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows. They are invalid everywhere, so that runs can be copied."""


def parse_count(value: object) -> object:
    """Convert ``"600k"`` and ``"2M"`` to whole numbers; leave values other than text to pydantic.

    Raises:
        ValueError: the text is no number.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kM]?)", value.strip())
        if match:
            count = Decimal(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]
            return int(count) if count == int(count) else float(count)
        if not re.fullmatch(r"\s*[+-]?\d+\s*", value):
            raise ValueError("a count is a number such as 600000, 600k or 2M")
    return value


def parse_names(value: object) -> object:
    """A sequence of names without repetition, sorted; ``"a,b"`` is one too, and null is empty.

    Anything else is left to pydantic.
    """
    if value is None or value is False or value == "none":
        return ()
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(sorted(set(value)))
    return value


def parse_size(value: object) -> int | str | None:
    """A side, or ``WIDTHxHEIGHT`` for a rectangle; None stays None.

    Raises:
        ValueError: it is neither, or a side is out of range.
    """
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,4})(?:[x×](\d{1,4}))?", str(value).strip())
    sides = [int(side) for side in match.groups() if side] if match else []
    if isinstance(value, bool) or not sides or any(s % 4 or not 8 <= s <= MAX_SIZE for s in sides):
        raise ValueError(
            f"a size is a side, or two like 64x48, each a multiple of 4 from 8 to {MAX_SIZE}"
        )
    return sides[0] if len(set(sides)) == 1 else f"{sides[0]}x{sides[1]}"


def height_and_width(size: int | str) -> tuple[int, int]:
    """The height and width that a parsed size means."""
    width, _, height = str(size).partition("x")
    return int(height or width), int(width)


def size_of(image_shape: tuple[int, ...]) -> int | str:
    """The size of images (C, H, W), as a config has it."""
    _, height, width = image_shape
    return width if width == height else f"{width}x{height}"


def check_name(name: str) -> str:
    """Return a name that every file system accepts as a folder.

    Raises:
        ValueError: the message says why it is not one.
    """
    if not NAME.fullmatch(name):
        raise ValueError("a name has letters, digits, _, - and, inside, dots")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"a name has at most {MAX_NAME_BYTES} bytes")
    if RESERVED_NAME.fullmatch(name):
        raise ValueError("a name must not be one that Windows reserves")
    return name


def check_device(name: str) -> str:
    """Return the name of a device that may exist.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d{1,4})?", name):
        raise ValueError("a device is auto, cpu, cuda, cuda:1, mps or xpu")
    return name


def check_path(path: str) -> str:
    """Return a path that can be written into a config and a message.

    Raises:
        ValueError: it contains control characters, or is not UTF-8.
    """
    if NOT_IN_PATHS.search(path):
        raise ValueError("a path is UTF-8 text without line breaks or other control characters")
    return path
