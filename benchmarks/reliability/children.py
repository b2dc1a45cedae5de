"""Child processes: forked, so that torch is imported once, each with its end, time and memory."""

from __future__ import annotations

import io
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status; the negative number of the signal that killed it.
        seconds: wall-clock time from its start to its end.
        peak_mib: its largest resident memory, in MiB.
        said: all that it wrote to stdout and stderr.
        timed_out: whether it was killed because its time was up.
    """

    status: int
    seconds: float
    peak_mib: float
    said: str
    timed_out: bool = False


class Child:
    """A forked process that runs one action, with its output in a file.

    Args:
        action: runs in the child. Its exception becomes status 1 and a traceback.
        said: the file for stdout and stderr.
        address_space: limit of its address space in bytes (RLIMIT_AS).
    """

    def __init__(
        self, action: Callable[[], None], said: Path, address_space: int | None = None
    ) -> None:
        self.said, self.began = said, time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(action, said, address_space)

    def kill(self) -> None:
        """SIGKILL: it cannot be caught."""
        os.kill(self.pid, signal.SIGKILL)

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it ends within this time."""
        descriptor = os.pidfd_open(self.pid)
        try:
            return bool(select.select([descriptor], [], [], max(seconds, 0))[0])
        finally:
            os.close(descriptor)

    def wait(self, seconds: float = 300.0) -> Ended:
        """Wait for its end; it is killed after this time."""
        timed_out = not self.has_ended(seconds)
        if timed_out:
            self.kill()
        _, status, used = os.wait4(self.pid, 0)
        return Ended(
            os.waitstatus_to_exitcode(status),
            time.monotonic() - self.began,
            used.ru_maxrss / 1024,
            self.said.read_text(errors="backslashreplace") if self.said.exists() else "",
            timed_out,
        )


def _run(action: Callable[[], None], said: Path, address_space: int | None) -> None:
    """In the child: run the action, then exit without returning."""
    status = 1
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if address_space is not None:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        action()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def command(*words: object) -> Callable[[], None]:
    """The action of ``cgan WORDS``."""

    def run() -> None:
        from cgan.cli import main

        sys.argv = ["cgan", *map(str, words)]
        main()

    return run


def program(*words: object) -> Callable[[], None]:
    """The action of ``python -m cgan WORDS`` as a new program, which imports everything itself."""

    def run() -> None:
        os.execv(sys.executable, [sys.executable, "-m", "cgan", *map(str, words)])

    return run


def must_work(*words: object) -> None:
    """Run ``cgan WORDS`` in this process, so that its children have imported all that it needs.

    torch starts no thread for this with OMP_NUM_THREADS=1, so that forking stays safe.

    Raises:
        RuntimeError: it fails, so the campaign cannot go on.
    """
    from cgan.cli import app

    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            app([str(word) for word in words], prog_name="cgan")
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(f"cgan {words[0]} fails: {said.getvalue()}") from None


def fault_of(ended: Ended, allowed: tuple[int, ...] = (0, 2)) -> str | None:
    """What is wrong with the end of a command: it must work, or say one sentence with status 2."""
    lines = ended.said.strip().splitlines() or [""]
    if ended.timed_out:
        return f"did not end within {ended.seconds:.0f} s"
    if "Traceback" in ended.said or "Exception ignored" in ended.said:
        return f"printed a traceback: {lines[-1]}"
    if ended.status not in allowed:
        return f"ended with status {ended.status}: {lines[-1]}"
    if ended.status == 2 and not any(line.startswith("cgan") for line in lines):
        return f"ended with status 2 but without a sentence: {lines[-1]}"
    return None
