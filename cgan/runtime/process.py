"""What this process is told from outside: its rank among several, and signals to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cgan.errors import ConfigError


def rank_and_world_size() -> tuple[int, int]:
    """``RANK`` and ``WORLD_SIZE``; 0 and 1 if they are not set.

    Raises:
        ConfigError: their values are invalid.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ConfigError(
            f"RANK is {rank} and WORLD_SIZE is {size}: RANK must be a whole number from 0 "
            "to WORLD_SIZE − 1; unset both to run a single process"
        )
    return int(rank), int(size)


def local_rank() -> int | None:
    """``LOCAL_RANK``, which selects the GPU of each of several processes; None for one process."""
    return int(os.environ.get("LOCAL_RANK", "0")) if rank_and_world_size()[1] > 1 else None


def local_world_size() -> int:
    """``LOCAL_WORLD_SIZE``: processes that share this machine's cores; 1 for one process.

    Raises:
        ConfigError: its value is invalid.
    """
    size = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if rank_and_world_size()[1] == 1:
        return 1
    if not size.isdecimal() or int(size) < 1:
        raise ConfigError(f"LOCAL_WORLD_SIZE is {size}: it must be a whole number of at least 1")
    return int(size)


def is_restart() -> bool:
    """Whether torchrun has restarted this process after another one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Append the first SIGINT or SIGTERM to the yielded list; the second has its usual effect."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # Python delivers signals to the main thread only
        return

    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) is not None  # else C code handles it: leave it
    }

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        restore()

    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        restore()
