"""Processes of their own that start at once: forked from one that has imported ``cgan``.

A new interpreter imports torch for two seconds. Tests of what happens before or during that import
start a real one.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
CONTEXT: Any = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    CONTEXT.set_forkserver_preload(["tests.preload"])


class Process:
    """A function that runs in a process of its own, with a folder and variables of its own."""

    def __init__(
        self, function: Callable[..., None], *given: object, cwd: Path | None = None, **env: object
    ) -> None:
        self._said = Path(tempfile.mkdtemp(prefix="process-", dir=os.environ["CGAN_CACHE"]))
        environ = {**os.environ, **{name: str(value) for name, value in env.items()}}
        place = str(cwd or Path.cwd())
        words = (function, given, str(self._said), place, environ)
        self._process = CONTEXT.Process(target=_run, args=words)
        self._process.start()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        status: int | None = self._process.exitcode
        return status

    def wait(self, seconds: float = 120) -> int:
        """Wait for its end; the exit status."""
        self._process.join(seconds)
        status = self.poll()
        assert status is not None, f"it runs after {seconds} s: {self.stderr}"
        return status

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return _read(self._said / "stdout")

    @property
    def stderr(self) -> str:
        """What it has said."""
        return _read(self._said / "stderr")


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def start_cgan(*words: object, cwd: Path | None = None, **env: object) -> Process:
    """Start a command of the shell."""
    return Process(_cgan, *map(str, words), cwd=cwd, **env)


def run_cgan(*words: object, cwd: Path | None = None, **env: object) -> Process:
    """Run a command of the shell to its end."""
    process = start_cgan(*words, cwd=cwd, **env)
    process.wait()
    return process


def _run(
    function: Callable[..., None],
    given: tuple[object, ...],
    said: str,
    cwd: str,
    environ: dict[str, str],
) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(said) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    function(*given)


def _cgan(*words: str) -> None:
    from cgan.cli import main

    sys.argv = ["cgan", *words]
    main()
