"""Commands in odd surroundings: each works, or says one sentence with status 2."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.reliability.children import MEBIBYTE, Child, command, fault_of, must_work
from benchmarks.reliability.report import Budget, Row
from benchmarks.reliability.runs import temporary_files
from cgan.storage.paths import GENERATOR_FILE

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


def draw_pictures(folder: Path, classes: tuple[str, str], name: str) -> None:
    """Twelve small pictures of each class."""
    random = np.random.default_rng(0)
    for level, label in zip((50, 200), classes, strict=True):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            pixels = (level + random.integers(-40, 40, (8, 8))).clip(0, 255).astype(np.uint8)
            with open(folder / label / f"{name}{number}.png", "wb") as file:
                Image.fromarray(pixels).save(file, "PNG")


def list_commands(place: Path, out: Path, spare: Path, label: str) -> list[list[str]]:
    """Train, resume and use a run in a folder; without one, a spare generator is used."""
    run, model = str(out / "run"), out / "run"
    words = ("--model", "mlp", "--size", "8", "--device", "cpu", "--batch-size", "16")
    often = {
        "sample_every_images": 64, "eval_every_images": 64, "log_every_images": 64,
        "control_per_class": 2,
    }  # fmt: skip
    more = [word for key, value in often.items() for word in ("--set", f"{key}={value}")]
    if out == place and not (model / GENERATOR_FILE).exists():
        model, label = spare, "cat"
    return [
        ["train", "--data", str(place / "data"), "--out", run, "--images", "64", *words, *more],
        ["train", "--resume", "--out", run, "--images", "128"],
        ["info", str(model)],
        ["generate", str(model), "--class", label, "-n", "2", "--out", str(out / "grid.png")],
        ["generate", str(model), "--count", "6", "--format", "folder", "--out", str(out / "set")],
        ["evaluate", str(model), "--data", str(place / "data"), "--per-class", "5", "--html",
         str(out / "report.html")],
        ["export", str(model), "--out", str(out / "model.onnx")],
    ]  # fmt: skip


def try_all(one: Surroundings, work: Path, spare: Path) -> Row:
    """Run all commands in these surroundings."""
    row, worked = Row(one.what), 0
    try:
        with one.place(work) as place:
            draw_pictures(place / "data", one.classes, one.picture)
            (place / "closed").mkdir(0o000)
            if IS_ROOT:
                os.chown(place, NOBODY, NOBODY)
            for index in range(7):
                words = list_commands(place, place / one.inside, spare, one.classes[0])[index]
                ended = Child(_action(one, words, place), work / "said.txt").wait(120)
                row.add(ended.seconds, 0 if one.wrapper is not None else ended.peak_mib)
                worked += ended.status == 0
                if fault := fault_of(ended):
                    row.fail(f"{words[0]} {fault}")
            for name in temporary_files(place):
                row.fail(f"{name} remains")
            for name in {path.name for path in place.iterdir()} & {"~", ".cache"}:
                row.fail(f"a folder {name} is made in the current one")
    except OSError as error:
        row.figures = {"left out": f"this machine cannot make it ({error.strerror})"}
    else:
        row.figures = {"worked": worked, "refused": row.count - worked}
    return row


def _action(one: Surroundings, words: list[str], place: Path) -> Callable[[], None]:
    def run() -> None:
        os.chdir(place)
        one.prepare()
        if one.wrapper is None:
            from cgan.evaluation import judge_training

            judge_training.train_judge = partial(judge_training.train_judge, images=640)
            command(*words)()
        program = [*one.wrapper, sys.executable, "-m", "cgan", *words]
        os.execvp(program[0], program)

    return run


def measure(budget: Budget, work: Path, seed: int) -> list[Row]:
    """One row for each surroundings."""
    os.environ["CGAN_CACHE"] = str(work / "cache")
    (work / "empty").mkdir()
    work.chmod(0o755)  # for commands that another user runs
    warm, spare = work / "warm", work / "warm" / "run"
    draw_pictures(warm / "data", ("cat", "dog"), "picture")
    for words in list_commands(warm, warm, spare, "cat"):
        must_work(*words)
    (spare / "generator.onnx").unlink(missing_ok=True)
    found, rows = surroundings(can_mount(work / "empty")), []
    for number, one in enumerate(found):
        if budget.allows(number, len(found), least=2):
            folder = work / str(number)
            folder.mkdir()
            rows.append(try_all(one, folder, spare))
            shutil.rmtree(os.fsencode(folder), ignore_errors=True)
    return rows
