"""Generate images with onnxruntime from an export of ``cgan export``, without torch.

Importing torch takes ten times as long as generating images. An export is stored next to its
generator file. Its metadata contains the SHA-256 of that file and of its own network. onnxruntime
reads it only if both match. The hashes detect damage and an outdated export, not a forgery.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cgan.errors import ConfigError, FileError, one_line
from cgan.runtime.cpu import open_session
from cgan.sampling.latents import batch_size, draw_latents
from cgan.sampling.request import GeneratorInfo, Labels, Request
from cgan.storage.safe_reading import (
    MAX_EXPORT_EXTRA,
    MAX_HEADER_BYTES,
    file_digest,
    parse_json_object,
    read_bytes,
)
from cgan.storage.schema import GENERATOR_RULES, find_fault

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

METADATA_PROPS, KEY, VALUE = 14, 1, 2
"""Numbers of the field ``metadata_props`` of ModelProto, and of the two fields of its entries."""
VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5
"""Protobuf's wire types."""
ONNX, ONNX_VERSION = "cgan-onnx", 2
INPUTS = ("z", "labels")
"""Inputs of the exported network: float32 (B, latent_dim) and, if conditional, int64 (B,)."""

logger = logging.getLogger("cgan")


def split_metadata(content: bytes) -> tuple[bytes, str]:
    """The metadata entry ``cgan`` of an ONNX file, and the SHA-256 of all other bytes.

    Raises:
        ValueError: it is not a protobuf message with this metadata entry and no other.
    """
    entries: list[dict[int, bytes]] = []
    network, start = sha256(), 0
    message = memoryview(content)
    for number, value, end in _fields(message):
        if number == METADATA_PROPS:
            entries.append({inner: bytes(text) for inner, text, _ in _fields(value)})
        else:
            network.update(message[start:end])
        start = end
    if len(entries) != 1 or entries[0].get(KEY) != b"cgan" or VALUE not in entries[0]:
        raise ValueError("it has no metadata of cgan, or other metadata too")
    return entries[0][VALUE], network.hexdigest()


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, int]]:
    """Number, value and end of each field; the value is empty if it is a number.

    Raises:
        ValueError: a field is invalid or longer than the message.
    """
    end = 0
    while end < len(message):
        tag, start = _varint(message, end)
        number, kind, length = tag >> 3, tag & 7, 0
        if kind == VARINT:
            _, end = _varint(message, start)
        elif kind == LENGTH_DELIMITED:
            length, start = _varint(message, start)
            end = start + length
        elif kind in (FIXED_32, FIXED_64):
            end = start + (4 if kind == FIXED_32 else 8)
        else:
            raise ValueError(f"a protobuf field has the unknown wire type {kind}")
        if end > len(message):
            raise ValueError("a protobuf field is longer than the file")
        yield number, message[start : start + length], end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, 7 bits at a time, and its end."""
    value = 0
    for shift, byte in zip(range(0, 70, 7), message[at:], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + shift // 7 + 1
    raise ValueError("a protobuf number has no end")


class OnnxSampler(GeneratorInfo):
    """An exported generator on the CPU, with ``request``, ``sample`` and ``batches``.

    These are those of ``cgan.Sampler``, without mixes and without verification.
    """

    def __init__(self, session: InferenceSession, header: dict[str, Any], path: Path) -> None:
        super().__init__(header, path)
        self.session = session

    def sample(self, labels: Labels = None, n: int = 1, seed: int = 0) -> NDArray[np.float32]:
        """Draw images like ``cgan.Sampler.sample``: float32 (N, C, H, W) in [0, 1]."""
        drawn = self.batches(self.request(labels, n, seed))
        return np.concatenate([images for images, _ in drawn])

    def batches(
        self, request: Request
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64] | None]]:
        """Images (≤ batch size, C, H, W) in [0, 1] and their labels, in order.

        Raises:
            UnknownNameError: a label is not the index of a class.
            ConfigError: a mix was requested.
        """
        if request.mix is not None:
            raise ConfigError("an export takes no mix of classes: use the generator file")
        self.check_numbers(request.labels or ())
        size = batch_size(self.image_shape, "cpu")
        for start in range(0, len(request), size):
            seeds = request.seeds[start : start + size]
            missing = size - len(seeds)
            z = np.float32(request.truncation) * draw_latents(seeds, self.latent_dim)
            inputs: dict[str, NDArray[Any]] = {"z": np.pad(z, ((0, missing), (0, 0)))}
            labels = None
            if request.labels is not None:
                labels = np.array(request.labels[start : start + size], np.int64)
                inputs["labels"] = np.pad(labels, (0, missing))
            try:
                (images,) = self.session.run(None, inputs)
                if images.shape != (size, *self.image_shape):
                    raise ValueError(f"images of the shape {list(images.shape)}")
            except Exception as error:  # onnxruntime's exceptions have no common base class
                raise FileError(
                    f"onnxruntime failed to run {export_path(self.path)} ({one_line(error)}): "
                    "delete it to use torch"
                ) from error
            yield images[: len(seeds)], labels


def open_export(generator: Path) -> OnnxSampler | None:
    """Open the export of a generator file; None if torch must be used instead.

    None means that there is no export or no onnxruntime. It is also None, with a warning, if the
    export is damaged, was written by another program or another version, or belongs to another
    version of the generator file (which was trained or evaluated since).
    """
    path = export_path(generator)
    if not path.exists() or find_spec("onnxruntime") is None:
        return None
    try:
        content = read_bytes(path, generator.stat().st_size + MAX_EXPORT_EXTRA)
        header = _check_export(content, path, generator)
        return OnnxSampler(open_session(content), header, generator)
    except FileError as error:
        logger.warning("%s: using torch; run cgan export %s", error, shlex.quote(str(generator)))
    except Exception as error:  # onnxruntime's exceptions have no common base class
        logger.warning("onnxruntime cannot read %s (%s): using torch", path, one_line(error))
    return None


def _check_export(content: bytes, path: Path, generator: Path) -> dict[str, Any]:
    """The header of the generator in an export that is undamaged and belongs to the generator.

    Raises:
        FileError: it is damaged, outdated, or not an export of this version of cgan.
    """
    try:
        text, network = split_metadata(content)
        if len(text) > MAX_HEADER_BYTES:
            raise ValueError("long metadata")
        about = parse_json_object(text)
        found = (about.get("format"), about.get("format_version"))
        if found != (ONNX, ONNX_VERSION) or not isinstance(about.get("generator"), dict):
            raise ValueError("unknown format")
    except ValueError as error:
        raise FileError(f"{path} is damaged, or was not written by this version of cgan") from error
    if about.get("network_sha256") != network:
        raise FileError(f"{path} is damaged")
    if about.get("sha256") != file_digest(generator):
        raise FileError(f"{path} does not match {generator.name}")
    header: dict[str, Any] = about["generator"]
    if fault := find_fault(header, GENERATOR_RULES):
        raise FileError(f"{path} has an invalid header ({fault})")
    return header


def export_path(generator: Path) -> Path:
    """Path of the export of a generator file, in the same folder."""
    return generator.with_suffix(".onnx")
