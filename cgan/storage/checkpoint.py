"""safetensors files with a JSON header: generators, judges, encoders, states of runs, latents.

Each file has one metadata key, ``cgan``, that holds sorted JSON. Nothing is pickled. Writes are
atomic. A file may come from anyone: its header is checked before its tensors are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cgan.errors import FileError, one_line
from cgan.storage.atomic import write_atomically
from cgan.storage.paths import StrPath
from cgan.storage.safe_reading import MAX_HEADER_BYTES, parse_json_object
from cgan.storage.schema import (
    CLASSES,
    ENCODER_RULES,
    GENERATOR_RULES,
    JUDGE_RULES,
    STATE_RULES,
    find_fault,
)

GENERATOR = "cgan-generator"
STATE = "cgan-state"
JUDGE = "cgan-judge"
LATENTS = "cgan-latents"
ENCODER = "cgan-encoder"
FORMAT_VERSIONS = {GENERATOR: 2, STATE: 2, JUDGE: 1, LATENTS: 1, ENCODER: 1}
"""The version of each format that this package writes and reads."""
RULES = {
    GENERATOR: GENERATOR_RULES,
    STATE: STATE_RULES,
    JUDGE: JUDGE_RULES,
    LATENTS: {"classes": CLASSES},
    ENCODER: ENCODER_RULES,
}

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""By name of a tensor: its dtype as safetensors calls it, and its shape."""
DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}
"""The dtypes of networks and random states, and their names in safetensors."""
Network = TypeVar("Network", bound=nn.Module)


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
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
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
            f"is {MAX_HEADER_BYTES:,}: use fewer classes"
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
    if version < FORMAT_VERSIONS[format]:
        raise FileError(f"{path} is of cgan 0.1, which was not released: train it again")
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


def load_network(file: Checkpoint, build: Callable[[], Network]) -> Network:
    """Build a network with the weights of a file.

    The network is built without memory. Its weights are compared with the tensors of the file, and
    only then are those read. torch's random state is unchanged.

    Args:
        file: an open file.
        build: returns the network; it runs with torch's ``meta`` device.

    Raises:
        FileError: the tensors do not fit, or a value is not finite.
    """
    with torch.device("meta"), _WithoutNormal():
        network = build()
    check_layout(network, file.layout(), file.path)
    tensors = file.tensors()
    check_finite(tensors, file.path)
    network.load_state_dict(tensors, assign=True)
    return network


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a network; raises ``FileError`` if they do not fit."""
    check_layout(network, layout_of(tensors), path)
    network.load_state_dict(tensors)


def check_layout(network: nn.Module, layout: Layout, path: Path) -> None:
    """Check that the tensors of a file are those of a network.

    Raises:
        FileError: a tensor is missing or unknown, or has another shape or dtype.
    """
    if fault := _find_difference(layout_of(network.state_dict()), layout):
        raise FileError(f"{path} does not fit the networks of its config: {fault}")


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """The dtypes and shapes of tensors."""
    return {
        name: (DTYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that all values are finite.

    Raises:
        FileError: one is not.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise FileError(
                f"{path} contains values that are not finite ({name}): its training diverged, so "
                "train it again with a lower --lr"
            )


class _WithoutNormal(TorchFunctionMode):
    """Skips ``nn.init.normal_``: on the meta device it imports 900 modules, in a second."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is nn.init.normal_:
            return kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def _find_difference(wanted: Layout, found: Layout) -> str | None:
    """The first difference between the tensors of a network and of a file, as text."""
    for name, entry in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != entry:
            (dtype, shape), (wanted_dtype, wanted_shape) = found[name], entry
            return f"{name} is {dtype} {list(shape)}, not {wanted_dtype} {list(wanted_shape)}"
    unknown = next((name for name in found if name not in wanted), None)
    return None if unknown is None else f"{unknown[:80]!r} is not in them"


@dataclass(frozen=True)
class Latents:
    """Latent vectors and their classes.

    Attributes:
        z: float32 (N, latent_dim).
        labels: the weight of each class, float32 (N, classes); None if unconditional.
        classes: the class names.
    """

    z: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]

    def save(self, path: StrPath) -> None:
        """Write them as one safetensors file."""
        labels = {} if self.labels is None else {"labels": self.labels}
        save_tensors(
            Path(path), {"z": self.z, **labels}, {**new_header(LATENTS), "classes": self.classes}
        )

    @classmethod
    def load(cls, path: StrPath) -> Latents:
        """Read a file of ``save``.

        Raises:
            FileError: it is none, or its tensors do not fit its header.
        """
        path = Path(path)
        with open_checkpoint(path, LATENTS) as file:
            classes, layout = tuple(file.header["classes"]), file.layout()
            fits = "z" in layout and not layout.keys() - {"z", "labels"}
            for name, (dtype, shape) in layout.items():
                fits = fits and dtype == "F32" and len(shape) == 2
                fits = fits and shape[0] == layout["z"][1][0] > 0
                fits = fits and (name == "z" or shape[1] == len(classes))
            if not fits:
                raise FileError(f"{path} holds no latent vectors")
            tensors = file.tensors()
        check_finite(tensors, path)
        return cls(tensors["z"], tensors.get("labels"), classes)
