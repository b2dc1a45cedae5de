"""Names and locations of files: in a run folder, in ``runs/``, in the cache, in the package."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from cgan.errors import FileError
from cgan.storage.hub import download, is_hub_name

GENERATOR_FILE = "generator.safetensors"
CONFIG_FILE = "config.yaml"
BEST_FILE = "best.safetensors"
JUDGE_FILE = "judge.safetensors"
METRICS_FILE = "metrics.jsonl"
ENCODER_FILE = "encoder.safetensors"
SHARED_FILES = (GENERATOR_FILE, JUDGE_FILE, ENCODER_FILE)
"""The files of a repository of the Hub that are downloaded."""
SAMPLES_FOLDER = "samples"
STATE_FILES = ("state.safetensors", "state-before.safetensors")
"""The latest state, and the one before it."""

RUNS = Path("runs")
PACKAGED = Path(__file__).parent.parent / "packaged"
"""Files shipped with the package: one folder per data set, with a judge, some with a generator
and its encoder."""

MAX_NAME_BYTES = 120
"""UTF-8 bytes of a safe file name, before a number. Encrypted folders allow only 143 bytes."""

RESERVED_NAME = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\..*)?|dataset\.json|shard-\d+\.csv")
"""Devices of Windows, with or without a suffix, and the files beside a data set's class folders."""


def packaged_names() -> list[str]:
    """Names of the packaged generators."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{GENERATOR_FILE}"))


def find_generator(path_or_run: str | Path) -> Path:
    """The generator file for a file path, a run folder, or the name of a generator.

    Names are those of packaged generators, also if there is a folder of that name without a
    generator, and ``hf-hub:owner/name@revision``, which is downloaded
    into the cache of the Hub.

    Raises:
        FileError: there is none, its folder cannot be read, or its path is not UTF-8.
        ConfigError: the Hub has no such names, or its library is not installed.
    """
    if is_hub_name(str(path_or_run)):
        path = download(str(path_or_run), SHARED_FILES) / GENERATOR_FILE
        if not path.exists():
            raise FileError(f"{path_or_run} holds no {GENERATOR_FILE}: was it made by cgan push?")
        return path
    path = Path(path_or_run)
    require_utf8(path)
    try:
        if str(path) in packaged_names() and not (
            path.is_file() or (path / GENERATOR_FILE).exists()
        ):
            path = PACKAGED / path.name
        is_folder = path.is_dir()
        path = path / GENERATOR_FILE if is_folder else path
        found = path.exists()
    except OSError as error:  # no permission, or a name that is too long
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    if not found and is_folder:
        raise FileError(f"{path.parent} holds no {GENERATOR_FILE}: is it the folder of a run?")
    if not found:
        name = str(path_or_run)
        similar = get_close_matches(name, packaged_names(), n=1)
        hint = f"; did you mean {similar[0]!r}?" if similar else ""
        raise FileError(f"there is no run or generator file {path}{hint}")
    return path


def require_utf8(path: Path) -> None:
    """Raise ``FileError`` for a path that is not text: headers and safetensors need UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise FileError(f"{path} is not valid UTF-8: rename it") from None


def newest_model() -> Path:
    """The run in ``runs/`` with the newest generator; without runs, the packaged generator.

    A run that was stopped before its first step has no metrics, and counts last.
    """
    runs = runs_by_age((GENERATOR_FILE,))
    logs = {run: run / METRICS_FILE for run in runs}
    trained = [run for run, log in logs.items() if log.exists() and log.stat().st_size]
    return (trained or runs or [PACKAGED / "mnist"])[-1]


def runs_by_age(files: tuple[str, ...], base: Path | None = None) -> list[Path]:
    """Folders in ``base`` (default ``runs/``) that contain one of these files, newest last.

    Raises:
        FileError: ``base`` or a folder in it cannot be read.
    """
    ages: dict[Path, int] = {}
    base = RUNS if base is None else base
    try:
        for folder in base.iterdir() if base.is_dir() else ():
            times = [path.stat().st_mtime_ns for name in files if (path := folder / name).exists()]
            if times:
                ages[folder] = max(times)
    except OSError as error:
        raise FileError(f"{error.filename} cannot be read: {error.strerror}") from error
    return sorted(ages, key=lambda folder: ages[folder])


def has_state(folder: Path) -> bool:
    """Whether a run folder holds a state, readable or not."""
    return any(os.path.exists(folder / name) for name in STATE_FILES)  # never raises


def cache_folder() -> Path:
    """The cache of this package: ``$CGAN_CACHE``, or the user's cache folder.

    Raises:
        FileError: the user has no home folder.
    """
    if custom := os.environ.get("CGAN_CACHE"):
        return Path(custom)
    from platformdirs import user_cache_path  # takes 20 ms, so not at the top

    try:
        return user_cache_path("cgan")
    except RuntimeError as error:
        raise FileError(
            "there is no home folder for the cache: set CGAN_CACHE to a folder"
        ) from error


def default_data_dir() -> Path:
    """``$CGAN_DATA``, or a folder in the cache."""
    return Path(os.environ.get("CGAN_DATA") or cache_folder() / "data")


def safe_file_name(text: str) -> str:
    """Any text as one file name that every system accepts.

    All but letters and their marks, digits, spaces and ``-_.`` become _. The same holds for a dot
    at the start, and a dot or space at the end. The name is cut to ``MAX_NAME_BYTES``, and a name
    that Windows or a data set reserves gets _ in front.
    """
    name = "".join(
        # \w has no combining marks, which vowels of many scripts are
        one if re.match(r"[\w. -]", one) or unicodedata.category(one)[0] == "M" else "_"
        for one in unicodedata.normalize("NFC", text)
    )
    name = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    name = re.sub(r"^\.|[. ]$|^$", "_", name)
    return f"_{name}" if RESERVED_NAME.fullmatch(_fold(name)) else name


def safe_file_names(names: Sequence[str]) -> list[str]:
    """A different safe file name for each class, even for "c#" and "c+", or "Cat" and "cat"."""
    found = [safe_file_name(name) for name in names]
    folded = [_fold(name) for name in found]
    counts = Counter(folded)
    taken = {name for name, count in counts.items() if count == 1}
    for index, name in enumerate(folded):
        if counts[name] > 1:
            found[index] += f"-{index}"
            while (numbered := _fold(found[index])) in taken:
                found[index] += "_"
            taken.add(numbered)
    return found


def _fold(name: str) -> str:
    """Equal for names that some disk may take for the same (compatibility caseless matching)."""
    name = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
