"""Run folders: which one to use, which one is the newest, and that nobody else is writing in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cgan.checkpoint import has_state
from cgan.config import RESUMABLE_CHANGES, Config, flatten
from cgan.errors import FileError, RunError
from cgan.files import explain, remove_leftovers
from cgan.places import RUNS, STATE_FILES, runs_by_age

LOCK_FILE = ".lock"


def new_run(config: Config, out: str | Path | None = None) -> Path:
    """Make the folder of a new run: ``out`` or ``runs/<name>``, with a number if that is taken.

    Raises:
        FileError: it cannot be made.
    """
    base = Path(out) if out is not None else RUNS / config.name
    if not base.name:
        base = base.resolve()  # "." has no name that a number could be added to
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        if base.is_dir() and not any(base.iterdir()):
            return base
        number = 1
        while True:
            folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise FileError(explain(error, base)) from error


def run_to_resume(config: Config, out: str | Path | None = None, *, numbered: bool = False) -> Path:
    """The run to go on with: ``out``, or the newest of ``runs/<name>``.

    With ``numbered``, ``out`` too is looked for under the numbers that :func:`new_run` adds.

    Raises:
        RunError: there is none.
    """
    if out is not None and not numbered:
        if not has_state(Path(out)):
            raise RunError(f"{out} holds no state of a run: leave out --resume to start one")
        return Path(out)
    base = RUNS / config.name if out is None else Path(out)
    pattern = re.compile(re.escape(base.name) + r"(-\d+)?")
    runs = [run for run in runs_by_age(STATE_FILES, base.parent) if pattern.fullmatch(run.name)]
    if not runs:
        raise RunError(f"there is no run {base} to resume: leave out --resume")
    return runs[-1]


def newest_state() -> Path:
    """The run under ``runs/`` whose state was written last.

    Raises:
        RunError: there is none.
    """
    runs = runs_by_age(STATE_FILES)
    if not runs:
        raise RunError("there is no run in runs/ to resume: leave out --resume")
    return runs[-1]


def check_same_run(asked: Config, trained: Config, folder: Path) -> None:
    """Refuse to go on with a run under a config that would have made another one.

    Raises:
        RunError: naming every key that differs.
    """
    old = flatten(trained)
    differing = [
        f"{key} {old[key]!r}, not {value!r}"
        for key, value in flatten(asked).items()
        if key not in RESUMABLE_CHANGES and old[key] != value
    ]
    if differing:
        raise RunError(
            f"{folder} was trained with {'; '.join(differing)}: resume it with the same, "
            "or leave out --resume to start a new run"
        )


@contextmanager
def lock(folder: Path, name: str = LOCK_FILE) -> Iterator[None]:
    """Inside, this process alone writes in the folder; a killed process leaves no lock behind.

    Another name locks a part of the folder only.

    Raises:
        RunError: another process does.
    """
    held = FileLock(folder / name)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{folder} is in use by another process: wait, or give another --out"
        ) from None
    except OSError as error:
        raise FileError(explain(error, folder)) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        held.release()
