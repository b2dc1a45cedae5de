"""Odd surroundings for commands: clocks, disks, users, locales, and names of folders."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.reliability.children import MEBIBYTE

NOBODY = 54_321
"""A user id without an entry in the password file."""
LATIN = os.fsdecode(b"caf\xe9")
"""A name of one Latin-1 byte more than ASCII, which is no valid UTF-8."""
IS_ROOT = os.geteuid() == 0


def nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Surroundings:
    """Where and how the commands run.

    Attributes:
        what: their row in the table.
        prepare: runs in the child before the command.
        name: of the folder that everything is in.
        inside: the folder in it that the commands write into.
        classes: names of the two class folders.
        picture: name of a picture, before its number.
        disk: makes the folder, and takes it away.
        wrapper: words before ``python -m cgan``; None runs the command in a forked child.
    """

    what: str
    prepare: Callable[[], None] = nothing
    name: str = "place"
    inside: str = ""
    classes: tuple[str, str] = ("cat", "dog")
    picture: str = "picture"
    disk: Callable[[Path], Iterator[None]] | None = None
    wrapper: tuple[str, ...] | None = None

    @contextmanager
    def place(self, work: Path) -> Iterator[Path]:
        """The folder of everything, with pictures in it."""
        folder = work / self.name
        if self.disk is None:
            folder.mkdir(parents=True)
            yield folder
        else:
            folder.mkdir()
            with contextmanager(self.disk)(folder):
                yield folder


def clock_runs_backwards() -> None:
    """Each call of ``time.time`` is an hour before the last one."""
    calls = itertools.count()
    real = time.time
    time.time = lambda: real() - 3_600 * next(calls)


def no_home() -> None:
    """Nobody's process, without HOME."""
    for name in ("HOME", "XDG_CACHE_HOME", "CGAN_CACHE"):
        os.environ.pop(name, None)
    if IS_ROOT:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def read_only_home() -> None:
    """A home that its owner may not write."""
    home = Path.cwd() / "home"
    if not home.exists():
        home.mkdir()
        home.chmod(0o555)
    no_home()
    os.environ["HOME"] = str(home)


def limit_file_size() -> None:
    """No file of more than 100 KiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEBIBYTE // 10, MEBIBYTE // 10))


def plain_locale(encoding: str) -> None:
    """The C locale, without Python's ways around it."""
    os.environ |= {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if encoding:
        os.environ["PYTHONIOENCODING"] = encoding


def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 1 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount(work: Path) -> bool:
    """Whether this process may mount a file system."""
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(work)]
    return shutil.which("unshare") is not None and not subprocess.run(words).returncode


def surroundings(mounts: bool) -> list[Surroundings]:
    """All of them, the fast ones first."""
    without_proc = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs tmpfs /proc && exec "$@"',
        "-",
    )
    found = [
        Surroundings("a clock that runs backwards", clock_runs_backwards),
        Surroundings("files of at most 100 KiB (RLIMIT_FSIZE)", limit_file_size),
        Surroundings("names with spaces, quotes and a newline", name="a b\n'c\" $(d)\\"),
        Surroundings("names that begin with a hyphen", name="--out", picture="-"),
        Surroundings("names in Latin-1: all folders", name=LATIN),
        Surroundings("names in Latin-1: classes", classes=(LATIN, "dog")),
        Surroundings("names in Latin-1: pictures", picture=LATIN),
        Surroundings("names of 250 characters", name="n" * 250, classes=("c" * 250, "dog")),
        Surroundings("a path of 3,900 characters", name="/".join(["n" * 194] * 20)),
        Surroundings("a path too long for the system", inside="/".join(["n" * 130] * 32)),
        Surroundings("a name too long for the system", inside="n" * 300),
        Surroundings("a folder that may not be entered", no_home, inside="closed/within"),
        Surroundings("HOME is read-only", read_only_home),
        Surroundings("no HOME and no entry in the password file", no_home),
        Surroundings("LC_ALL=C, PYTHONUTF8=0", partial(plain_locale, ""), wrapper=()),
        Surroundings("LC_ALL=C, output in ASCII", partial(plain_locale, "ascii"), wrapper=()),
    ]
    if mounts:
        found.insert(1, Surroundings("a disk of 1 MiB (tmpfs)", disk=small_disk))
        found.append(Surroundings("no /proc", wrapper=without_proc))
    return found
