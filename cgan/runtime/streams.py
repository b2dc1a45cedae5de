"""Two streams of work on a CPU, each with half of its cores.

A step of a small network hardly gains from a second core if each operation is split over both: the
threads meet hundreds of times a step, and where another program delays one of them, the other one
waits. Two streams meet a few times a step. What they compute does not depend on whether they run at
the same time or in turn, so the result is the same, bit for bit, on a busy machine and with one
core or two.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice
from typing import TypeVar

import torch

from cgan.runtime.cpu import count_cores

A = TypeVar("A")
B = TypeVar("B")


class _Stream(threading.local):
    """What a thread knows of its stream."""

    threads: int | None = None
    """Threads of this stream; None outside of ``split_cores``."""
    alone: bool = True
    """Whether this stream must do the work of both."""
    generator: torch.Generator | None = None


_stream = _Stream()
_cores = cache(count_cores)


@cache
def _second_thread(process: int) -> ThreadPoolExecutor:
    """The thread of the second stream; a forked process does not inherit it."""
    return ThreadPoolExecutor(1, thread_name_prefix="cgan-stream")


@contextmanager
def split_cores() -> Iterator[None]:
    """Split the threads that torch may use between two streams.

    These are ``torch.get_num_threads()``, but no more than the cores, unless ``OMP_NUM_THREADS`` is
    set. At the end the setting is what it was. Inside another one it changes nothing.
    """
    if _stream.threads is not None:
        yield
        return
    before = torch.get_num_threads()
    threads = before if "OMP_NUM_THREADS" in os.environ else min(before, _cores())
    _stream.threads, _stream.alone = max(threads // 2, 1), threads < 2
    torch.set_num_threads(_stream.threads)
    try:
        yield
    finally:
        _stream.threads, _stream.alone = None, True
        torch.set_num_threads(before)


def run_both(
    first: Callable[[], A], second: Callable[[], B], seed: int | None = None, in_turn: bool = False
) -> tuple[A, B]:
    """The results of two functions that do not depend on each other.

    Inside ``split_cores`` they run at the same time if there are two cores, else in turn.

    Args:
        first: runs in this thread.
        second: runs in the thread of the second stream.
        seed: for ``random_generator`` inside ``second``: both draw the same random numbers whether
            they run at the same time or in turn. Without it ``second`` must not draw any.
    """
    grad, threads = torch.is_grad_enabled(), _stream.threads
    if _stream.alone or in_turn:
        result = first()
        return result, _run_second(second, seed, grad, threads)
    job = _second_thread(os.getpid()).submit(_run_second, second, seed, grad, threads)
    try:
        result = first()
    finally:
        job.exception()  # waits, after an error too: then nothing changes the networks any more
    return result, job.result()


def _run_second(second: Callable[[], B], seed: int | None, grad: bool, threads: int | None) -> B:
    """Run a function as the second stream, in whichever thread."""
    before = _stream.threads, _stream.alone, _stream.generator
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)  # it holds for this thread
    _stream.threads, _stream.alone = threads, True
    _stream.generator = None if seed is None else torch.Generator().manual_seed(seed)
    try:
        with torch.set_grad_enabled(grad):
            return second()
    finally:
        _stream.threads, _stream.alone, _stream.generator = before


def map_streams(
    function: Callable[[A], B], items: Iterable[A], device: torch.device
) -> Iterator[B]:
    """``function`` of each item, in order; on a CPU two of them run at the same time.

    It must not draw random numbers.
    """
    if device.type != "cpu":
        yield from map(function, items)
        return
    rest = iter(items)
    while pair := list(islice(rest, 2)):
        if len(pair) == 1:
            yield function(pair[0])
            return
        with split_cores():
            results = run_both(partial(function, pair[0]), partial(function, pair[1]))
        yield from results


def random_generator() -> torch.Generator | None:
    """The source of this stream's random numbers on a CPU; None is torch's global one."""
    return _stream.generator
