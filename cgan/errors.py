"""Exceptions, and helpers for their messages.

CganError
├── ConfigError             an invalid config or argument
│   └── UnknownNameError    a name that is not in its table
├── DataError               images are missing or cannot be read
├── FileError               a file cannot be read in this format, or cannot be written
├── DeviceError             the device is not available
├── MeasureError            a generator cannot be evaluated as requested
├── UnconditionalError      a class was requested from an unconditional GAN
└── RunError                a run cannot start, continue or finish
    └── DivergedError       a loss or a weight is no longer finite
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

MAX_QUOTE = 80
"""Longest value in a message, in characters."""


class CganError(Exception):
    """Base class. The message is one sentence: what is wrong, and what to do."""


class ConfigError(CganError):
    """A config or an argument is invalid."""


class UnknownNameError(ConfigError):
    """A name is not in the table it was looked up in.

    Args:
        kind: what was looked up, for example ``"class"``.
        name: the name that was not found.
        known: the names in the table.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        known = list(known)
        super().__init__(f"no {kind} {quote(str(name))}{suggest(str(name), known)}")


class DataError(CganError):
    """The images are missing, damaged or unusable."""


class FileError(CganError):
    """A file cannot be read as the expected format, or cannot be written."""


class DeviceError(CganError):
    """The requested device is not available."""


class MeasureError(CganError):
    """A generator cannot be evaluated, or the requested features are not available."""


class UnconditionalError(CganError):
    """A class was requested from an unconditional GAN."""


class RunError(CganError):
    """A run cannot start, continue or finish as requested."""


class DivergedError(RunError):
    """A loss or a weight is no longer a finite number."""


def suggest(name: str, known: list[str]) -> str:
    """A hint after an unknown name: the closest known name, or all of them (a range if > 20)."""
    lower = {item.lower(): item for item in known}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {lower[close[0]]!r}?"
    if len(known) > 20:
        return f"; there are {len(known)}, from {known[0]!r} to {known[-1]!r}"
    return f"; choose from {', '.join(known)}"


def quote(value: object) -> str:
    """``repr(value)`` for a message, shortened to ``MAX_QUOTE`` characters."""
    short = reprlib.Repr()  # does not walk through a long or deeply nested value
    short.maxstring = short.maxother = short.maxlong = MAX_QUOTE
    try:
        text = short.repr(value)
    except ValueError:  # Python writes no int of more than 4,300 digits
        text = "a very long number"
    return text if len(text) <= MAX_QUOTE else f"{text[: MAX_QUOTE - 1]}…"


def one_line(error: BaseException, limit: int = 120) -> str:
    """The first line of an exception's message, or the name of its type if the message is empty."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()[:limit].rstrip(". ")


def first_few(items: Sequence[object], few: int = 3) -> str:
    """``a, b, c, 4 more``."""
    more = [f"{len(items) - few:,} more"] if len(items) > few else []
    return ", ".join([*map(str, items[:few]), *more])
