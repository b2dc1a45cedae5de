"""Workers (processes or a thread) that encode PNGs. Worker processes do not import torch."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from cgan.errors import RunError
from cgan.runtime.cpu import count_cores
from cgan.runtime.rank import local_world_size

MAX_PENDING = 32
"""Maximum number of queued batches. It bounds memory for data sets of any size."""

T = TypeVar("T")


def start_workers() -> Executor:
    """One process per core, minus one; a single thread on two cores or fewer.

    On two cores, sending images to a process was measured to cost more than it saves.
    """
    count = count_cores() // local_world_size()
    if count <= 2:
        return ThreadPoolExecutor(1)
    # spawn, not fork: forked copies of torch's threads or of CUDA can deadlock.
    return ProcessPoolExecutor(count - 1, get_context("spawn"), _initialise)


def map_in_order(
    pool: Executor, work: Callable[..., T], jobs: Iterator[tuple[Any, ...]]
) -> Iterator[T]:
    """Results of all jobs, in order, with at most ``MAX_PENDING`` jobs pending.

    Raises:
        RunError: a worker process died.
    """
    pending: deque[Future[T]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(work, *job))
            if len(pending) > MAX_PENDING:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenExecutor as error:
        raise RunError(
            "a worker process died: if memory ran out, free some and run it again; in a "
            'script, call this below `if __name__ == "__main__":`'
        ) from error
    finally:
        for future in pending:
            future.cancel()
        wait(pending)


def _initialise() -> None:
    """Leave Ctrl-C to the parent process, and exit when it exits, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
