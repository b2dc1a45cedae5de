"""Names and locations of files: in a run folder, in ``runs/``, in the cache, in the package, on
the Hugging Face Hub.

``hf-hub:owner/name@revision`` names a repository of the Hub. The library ``huggingface_hub``
downloads its files into its cache, and works offline from there. Only safetensors files are
downloaded, and their digests are checked.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from hashlib import sha1, sha256
from pathlib import Path

from cgan.errors import ConfigError, FileError, one_line

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

RESERVED_FOLDER = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d) *(\..*)?|dataset\.json|readme\.md|shard-\d+\.csv"
)
"""Devices of Windows, with or without a suffix, and the files beside a data set's class folders."""
PREFIX = "hf-hub:"
PART = r"[A-Za-z0-9][\w.-]*"
NAME = re.compile(rf"(?P<repo>{PART}/{PART})(@(?P<revision>{PART}(/{PART})*))?", re.ASCII)
SNAPSHOT = re.compile(
    r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})"
)
"""A folder in the cache of ``huggingface_hub``."""
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
StrPath = str | os.PathLike[str]
"""A path; a ``Run`` stands for its folder, and a ``Sampler`` for its file."""


def packaged_names() -> list[str]:
    """Names of the packaged generators."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{GENERATOR_FILE}"))


def find_generator(path_or_run: StrPath, onnx: bool = False) -> Path:
    """The generator file for a file path, a run folder, or the name of a generator.

    Names are those of packaged generators, also if there is a folder of that name without a
    generator, and ``hf-hub:owner/name@revision``, which is downloaded
    into the cache of the Hub.

    Args:
        path_or_run: the path or the name.
        onnx: whether an ONNX file is a generator too, as it is for ``cgan steer``.

    Raises:
        FileError: there is none, its folder cannot be read, its path is not UTF-8, or it is an ONNX
            file.
        ConfigError: the Hub has no such names, or its library is not installed.
    """
    name = os.fspath(path_or_run)
    if is_hub_name(name):
        path = download(name, SHARED_FILES) / GENERATOR_FILE
        if not path.exists():
            raise FileError(f"{name} holds no {GENERATOR_FILE}: was it made by cgan push?")
        return path
    path = Path(name)
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
        similar = get_close_matches(name, packaged_names(), n=1)
        hint = f"; did you mean {similar[0]!r}?" if similar else ""
        raise FileError(f"there is no run or generator file {path}{hint}")
    if path.suffix == ".onnx" and not onnx:
        raise FileError(_instead_of_onnx(path))
    return path


def _instead_of_onnx(path: Path) -> str:
    """What to give in place of an ONNX file, as a sentence."""
    source = path.with_suffix(".safetensors")
    if not source.is_file():
        return (
            f"{path} is an ONNX network, which is for other programs: give a generator file or a "
            "run folder, or draw from the network with onnxruntime (docs/python.md)"
        )
    folder = f", or its folder {path.parent}" if source.name == GENERATOR_FILE else ""
    return f"{path} is an export for other programs: give {source}, which is beside it{folder}"


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
    return f"_{name}" if RESERVED_FOLDER.fullmatch(_fold(name)) else name


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


def is_hub_name(name: str) -> bool:
    """Whether a name is that of a repository on the Hub."""
    return name.startswith(PREFIX)


def hub_name(path: Path) -> str | None:
    """``hf-hub:owner/name@commit`` of a file in the Hub's cache; None for other files."""
    found = SNAPSHOT.search(path.parent.as_posix())
    return found and f"{PREFIX}{found['owner']}/{found['name']}@{found['commit']}"


def hub_title(path: Path) -> str | None:
    """The ``name`` in ``hf-hub:owner/name`` of a file in the Hub's cache; None for other files."""
    found = SNAPSHOT.search(path.parent.as_posix())
    return found and found["name"]


def check_repository(name: str) -> str:
    """``owner/name``; raises ``ConfigError`` if it is something else."""
    found = NAME.fullmatch(name)
    if found is None or found["revision"] is not None:
        raise ConfigError(f"a repository of the Hub is named owner/name, not {name!r}")
    return name


def download(name: str, files: Sequence[str]) -> Path:
    """Download files of a repository, those that exist, unless they are in the cache.

    Without a connection, or with ``HF_HUB_OFFLINE=1``, the cache is used alone.

    Args:
        name: ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision``, where the revision is a
            branch, a tag or a commit.
        files: names of files.

    Returns:
        the folder of the files in the cache.

    Raises:
        ConfigError: the name is invalid, or ``huggingface_hub`` is not installed.
        FileError: the files cannot be downloaded, or differ from their digests.
    """
    found = NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise ConfigError(
            f"{name!r} is not the name of a repository on the Hub: write {PREFIX}owner/name or "
            f"{PREFIX}owner/name@revision"
        )
    require_library()
    from huggingface_hub import snapshot_download

    with explain_errors(name):
        folder = Path(
            snapshot_download(found["repo"], revision=found["revision"], allow_patterns=[*files])
        )
        damaged = [path for file in files if not _has_its_digest(path := folder / file)]
    for path in damaged:
        for broken in (path.resolve(), path):
            with suppress(OSError):
                broken.unlink()
        raise FileError(f"{path.name} of {name} is damaged (its digest differs): try again")
    return folder


def require_library() -> None:
    """Raise ``ConfigError`` unless ``huggingface_hub`` is installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "the Hub needs the library huggingface_hub: pip install 'cgan[hub]'"
        ) from error


@contextmanager
def explain_errors(name: str) -> Iterator[None]:
    """Turn the exceptions of ``huggingface_hub`` into a ``FileError`` of one sentence.

    Args:
        name: the repository, for the sentence.
    """
    try:
        yield
    except FileError:
        raise
    except Exception as error:  # of the network, of files, of the library
        raise FileError(_explain(error, name)) from error


def _explain(error: Exception, name: str) -> str:
    from huggingface_hub import errors

    causes = [error]  # the library wraps the answer of the Hub
    while (cause := causes[-1].__cause__) and cause not in causes and isinstance(cause, Exception):
        causes.append(cause)
    answers = (getattr(one, "response", None) for one in causes)
    status = next((one.status_code for one in answers if one is not None), None)
    log_in = "log in with hf auth login, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"{name} asks for consent to its terms: give it on its page, and {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} does not exist: the repository has no such revision"
    if status == 401:  # also RepositoryNotFoundError: the Hub does not tell private from missing
        return f"{name} does not exist, is private, or needs an account: {log_in}"
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return f"{name} does not exist on the Hub, or is private: check the name, and {log_in}"
    if status == 403:
        return f"the Hub refuses access to {name}: use a token that may write to it"
    if status == 429:
        return f"the Hub has had too many requests ({name}): wait a few minutes, and try again"
    if status == 400:  # it names what is wrong, on lines of its own
        return f"the Hub refuses {name}: {' '.join(str(error).split())[:400]}"
    if status is not None:
        return f"the Hub answered with status {status} ({name}): try again later"
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return f"{name} is not in the cache, and the Hub cannot be reached: check the connection"
    if isinstance(error, errors.HFValidationError):
        return f"{name} is no name that the Hub accepts ({one_line(error)}): choose another one"
    if isinstance(error, OSError) and error.errno in NOT_WRITTEN:
        return f"{name} was not transferred ({one_line(error)}): free space, or set HF_HOME"
    return f"{name} was not transferred ({one_line(error)}): check the connection, and try again"


def _has_its_digest(path: Path) -> bool:
    """Compare a file, if it exists, with its digest, which is the name of its content in the cache.

    It is a SHA-256, or for small files that of git: SHA-1 of a header and the content.
    """
    if not path.exists():
        return True
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        return sha256(blob.read_bytes()).hexdigest() == blob.name
    if re.fullmatch("[0-9a-f]{40}", blob.name):
        content = blob.read_bytes()
        return sha1(b"blob %d\0" % len(content) + content).hexdigest() == blob.name
    return True  # a system without symbolic links
