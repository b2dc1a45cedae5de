"""safetensors files with a JSON header: generators, judges, encoders, states of runs, latents.

Each file has one metadata key, ``cgan``, that holds sorted JSON. Nothing is pickled. Writes are
atomic. A file may come from anyone: its header is checked before its tensors are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cgan.errors import FileError, one_line
from cgan.storage.atomic import write_atomically
from cgan.storage.headers import (
    CLASSES,
    ENCODER_RULES,
    GENERATOR_RULES,
    JUDGE_RULES,
    STATE_RULES,
    find_fault,
)
from cgan.storage.limits import MAX_HEADER_BYTES
from cgan.storage.safe_reading import parse_json_object

GENERATOR = "cgan-generator"
STATE = "cgan-state"
JUDGE = "cgan-judge"
LATENTS = "cgan-latents"
ENCODER = "cgan-encoder"
FORMAT_VERSIONS = {GENERATOR: 2, STATE: 2, JUDGE: 1, LATENTS: 1, ENCODER: 1}
"""The version of each format that this package writes; it reads all versions up to that."""
RULES = {
    GENERATOR: GENERATOR_RULES,
    STATE: STATE_RULES,
    JUDGE: JUDGE_RULES,
    LATENTS: {"classes": CLASSES},
    ENCODER: ENCODER_RULES,
}

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""By name of a tensor: its dtype as safetensors calls it, and its shape."""


@dataclass(frozen=True)
class Checkpoint:
    """An open file whose header is valid; its tensors are not read yet.

    Attributes:
        path: the file.
        header: its header.
        file: the same file, opened by safetensors.
    """

    path: Path
    header: dict[str, Any]
    file: Any

    def layout(self) -> Layout:
        """The dtypes and shapes of its tensors."""
        slices = {name: self.file.get_slice(name) for name in self.file.keys()}  # noqa: SIM118
        return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All its tensors, on the CPU.

        Raises:
            FileError: they cannot be read, or do not fit in memory.
        """
        try:
            return {
                name: torch.from_numpy(self.file.get_tensor(name))
                for name in self.file.keys()  # noqa: SIM118
            }
        except (SafetensorError, OSError, RuntimeError, TypeError, AttributeError) as error:
            raise FileError(f"{self.path} cannot be read ({one_line(error)})") from error


@contextmanager
def open_checkpoint(path: Path, format: str) -> Iterator[Checkpoint]:
    """Open a file of the given format.

    Raises:
        FileError: the file is missing, empty, damaged, a pickle, of another program, of another
            format or of a newer version, or its header is invalid; the message says which.
    """
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    try:
        _check_header_size(path)
        # NumPy arrays are copies; torch tensors would be views of a file that may be replaced, and
        # safetensors 0.8 never frees 64 bytes of each.
        opened = safe_open(path, framework="np")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise FileError(_explain_unreadable(path, error)) from error
    with opened as file:
        yield Checkpoint(path, _parse_header(path, format, file.metadata() or {}), file)


def read_header(path: Path, format: str) -> dict[str, Any]:
    """The header of a file; raises ``FileError`` like ``open_checkpoint``."""
    with open_checkpoint(path, format) as file:
        return file.header


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header (any JSON) as one safetensors file, atomically.

    Raises:
        FileError: the file cannot be written, or its header could not be read back; an existing
            file is unchanged.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
    try:
        content = save(plain, metadata={"cgan": text})
    except UnicodeEncodeError as error:
        name = error.object[: error.end].rpartition('"')[2]
        raise FileError(
            f"{path} was not written, because {name!r}… in its header is not valid Unicode: "
            "rename it"
        ) from error
    if (size := int.from_bytes(content[:8], "little")) > MAX_HEADER_BYTES:
        raise FileError(
            f"{path} was not written, because its header would have {size:,} bytes and the limit "
            f"is {MAX_HEADER_BYTES:,}: use fewer classes or shorter names"
        )
    write_atomically(path, content)


def new_header(format: str) -> dict[str, Any]:
    """The first two keys of every header."""
    return {"format": format, "format_version": FORMAT_VERSIONS[format]}


def _check_header_size(path: Path) -> None:
    """Check the length that a file declares for its header, before anything reads the header."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > path.stat().st_size:
        raise ValueError("it does not begin with the length of a header")
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {size:,} bytes; the limit is {MAX_HEADER_BYTES:,}")


def _parse_header(path: Path, format: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    foreign = FileError(f"{path} was written by another program, not by cgan")
    try:
        header = parse_json_object(metadata["cgan"])
    except KeyError:
        raise foreign from None
    except ValueError as error:
        raise FileError(f"{path} has an invalid header: {one_line(error)}") from error
    found, version = header.get("format"), header.get("format_version")
    if not isinstance(found, str) or type(version) is not int or version < 1:
        raise foreign
    if found != format:
        raise FileError(f"{path} is a {found[:40]} file, not a {format} file")
    if version > FORMAT_VERSIONS[format]:
        raise FileError(
            f"{path} has format version {version} and this cgan knows up to "
            f"{FORMAT_VERSIONS[format]}: upgrade cgan"
        )
    if fault := find_fault(header, RULES[format]):
        raise FileError(f"{path} has an invalid header: {fault}")
    return header


def _explain_unreadable(path: Path, error: Exception) -> str:
    """Explain why a file cannot be read as safetensors."""
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as reason:
        return f"{path} cannot be read: {reason.strerror}"
    if not start:
        return f"{path} is empty"
    if start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] <= b"\x05"):
        return f"{path} is a pickle, which can run any code when loaded: cgan never loads one"
    return f"{path} is damaged or is not a safetensors file ({one_line(error)})"
