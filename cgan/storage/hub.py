"""Files from the Hugging Face Hub: names like ``hf-hub:owner/name@revision``.

The library ``huggingface_hub`` downloads them into its cache, and works offline from there. Only
safetensors files are downloaded, and their digests are checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha1, sha256
from pathlib import Path

from cgan.errors import ConfigError, FileError, one_line

PREFIX = "hf-hub:"
PART = r"[A-Za-z0-9][\w.-]*"
NAME = re.compile(rf"(?P<repo>{PART}/{PART})(@(?P<revision>{PART}(/{PART})*))?", re.ASCII)
SNAPSHOT = re.compile(
    r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})"
)
"""A folder in the cache of ``huggingface_hub``."""


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
    if status is not None:
        return f"the Hub answered with status {status} ({name}): try again later"
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return f"{name} is not in the cache, and the Hub cannot be reached: check the connection"
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
