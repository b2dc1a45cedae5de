"""What files are called and where they lie: in a run, under ``runs/``, in the package."""

from __future__ import annotations

from pathlib import Path

from cgan.errors import FileError

GENERATOR_FILE = "generator.safetensors"
CONFIG_FILE = "config.yaml"
BEST_FILE = "best.safetensors"
JUDGE_FILE = "judge.safetensors"
STATE_FILES = ("state.safetensors", "state-before.safetensors")
"""The last state, and the one before it."""

RUNS = Path("runs")
PACKAGED = Path(__file__).parent / "packaged"
"""Generators that come with the package, each with its judge in a folder of its name."""


def packaged_names() -> list[str]:
    """The generators that come with the package."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{GENERATOR_FILE}"))


def find_generator(path_or_run: str | Path) -> Path:
    """The generator file that is meant by a file, the folder of a run, or a name in the package.

    Raises:
        FileError: there is none.
    """
    path = Path(path_or_run)
    if not path.exists() and str(path) in packaged_names():
        path = PACKAGED / path.name
    if path.is_dir():
        path = path / GENERATOR_FILE
        if not path.exists():
            raise FileError(f"{path.parent} holds no {GENERATOR_FILE}: is it the folder of a run?")
    elif not path.exists():
        raise FileError(f"there is no run or generator file {path}")
    return path


def newest_model() -> Path:
    """The run under ``runs/`` whose generator was written last, or the generator in the package."""
    runs = runs_by_age((GENERATOR_FILE,))
    return runs[-1] if runs else PACKAGED / "mnist"


def runs_by_age(files: tuple[str, ...], base: Path | None = None) -> list[Path]:
    """Folders under ``base`` (``runs/``) that hold one of these files, the newest at the end."""
    ages: dict[Path, int] = {}
    base = RUNS if base is None else base
    for folder in base.iterdir() if base.is_dir() else ():
        times = [path.stat().st_mtime_ns for name in files if (path := folder / name).exists()]
        if times:
            ages[folder] = max(times)
    return sorted(ages, key=lambda folder: ages[folder])
