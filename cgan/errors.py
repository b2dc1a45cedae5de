"""The error family, and the nearest known name for an unknown one.

CganError
├── ConfigError        a description of a run that cannot be
│   └── UnknownName    a name that no table holds
├── DataError          pictures that cannot be had or cannot be read
├── FileError          a file that is torn, foreign, newer, or cannot be written
├── DeviceError        a device that is not there
├── MeasureError       a generator that cannot be measured as asked
└── RunError           a run that cannot start, go on or end
    └── Diverged       losses that are no longer numbers
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class CganError(Exception):
    """Base of all errors meant for the user: one sentence, what is wrong and what to do."""


class ConfigError(CganError):
    """The description of the run is not valid."""


class UnknownName(ConfigError):
    """A name that is not in the table it was looked up in.

    Args:
        kind: what was looked up, like ``"class"``.
        name: what the user wrote.
        known: the names that would have been right.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        known = list(known)
        super().__init__(f"no {kind} {str(name)!r}{nearest(str(name), known)}")


class DataError(CganError):
    """The pictures are missing, broken or not what was asked for."""


class FileError(CganError):
    """A file cannot be read as what it should be, or cannot be written."""


class DeviceError(CganError):
    """The device that was asked for is not there."""


class MeasureError(CganError):
    """A generator cannot be measured, or not with these features."""


class RunError(CganError):
    """A run cannot start, go on or end as asked."""


class Diverged(RunError):
    """A loss has stopped being a finite number."""


def nearest(name: str, known: list[str]) -> str:
    """The rest of a sentence about an unknown name: the nearest known one, or all of them."""
    lower = {item.lower(): item for item in known}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {lower[close[0]]!r}?"
    if len(known) > 20:
        return f"; there are {len(known)}, from {known[0]!r} to {known[-1]!r}"
    return f"; choose from {', '.join(known)}"
