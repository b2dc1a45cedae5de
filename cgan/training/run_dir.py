"""Run folders: create one, find the one to resume, check that its config matches."""

from __future__ import annotations

import re
from pathlib import Path

from cgan.config import RESUMABLE_CHANGES, Config
from cgan.config_io import flatten
from cgan.errors import FileError, RunError
from cgan.storage.atomic import explain_write_error
from cgan.storage.paths import RUNS, STATE_FILES, has_state, require_utf8, runs_by_age


def new_run(config: Config, out: str | Path | None = None) -> Path:
    """Create the folder of a new run: ``out`` or ``runs/<name>``, with a number if it exists.

    Raises:
        FileError: it cannot be created, or its path is not UTF-8.
    """
    base = Path(out) if out is not None else RUNS / config.name
    require_utf8(base)
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
        raise FileError(explain_write_error(error, base)) from error


def run_to_resume(config: Config, out: str | Path | None = None, *, numbered: bool = False) -> Path:
    """The run to resume: ``out``, or the newest run in ``runs/`` with the config's name.

    With ``numbered``, ``out`` also matches the numbered folders that ``new_run`` creates.

    Raises:
        RunError: there is none.
    """
    if out is not None and not numbered:
        return check_state(Path(out))
    base = RUNS / config.name if out is None else Path(out)
    pattern = re.compile(re.escape(base.name) + r"(-\d+)?")
    runs = [run for run in runs_by_age(STATE_FILES, base.parent) if pattern.fullmatch(run.name)]
    if not runs:
        raise RunError(f"there is no run {base} to resume: leave out --resume")
    return runs[-1]


def check_state(folder: Path) -> Path:
    """The folder; raises ``RunError`` if it holds no run that can be resumed."""
    if not has_state(folder):
        raise RunError(f"{folder} contains no state of a run: leave out --resume to start one")
    return folder


def newest_state() -> Path:
    """The run in ``runs/`` with the newest state.

    Raises:
        RunError: there is none.
    """
    runs = runs_by_age(STATE_FILES)
    if not runs:
        raise RunError("there is no run in runs/ to resume: leave out --resume")
    return runs[-1]


def check_same_config(requested: Config, trained: Config, folder: Path) -> None:
    """Check that a run is resumed with the same config.

    Raises:
        RunError: names every key that differs.
    """
    old = flatten(trained)
    differing = [
        f"{key} {old[key]!r}, not {value!r}"
        for key, value in flatten(requested).items()
        if key not in RESUMABLE_CHANGES and old[key] != value
    ]
    if differing:
        raise RunError(
            f"{folder} was trained with {'; '.join(differing)}: resume it with the same values, "
            "or leave out --resume to start a new run"
        )
