"""Generate images with onnxruntime from an export of ``cgan export``, without torch.

Importing torch takes ten times as long as generating images. An export is stored next to its
generator file and contains the SHA-256 of that file. It is only used if the SHA-256 matches.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cgan.runtime.cpu import count_cores
from cgan.sampling.batch import batch_size
from cgan.sampling.class_names import GeneratorInfo, Labels, Request
from cgan.sampling.latents import draw_latents

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ONNX = "cgan-onnx"
ONNX_VERSION = 1
INPUTS = ("z", "labels")
"""Inputs of the exported network: float32 (B, latent_dim) and, if conditional, int64 (B,)."""

logger = logging.getLogger("cgan")


class OnnxSampler(GeneratorInfo):
    """An exported generator with the interface of ``cgan.Sampler``, on the CPU."""

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
        """Images (≤ batch size, C, H, W) in [0, 1] and their labels, in order."""
        size = batch_size(self.image_shape, "cpu")
        for start in range(0, len(request), size):
            seeds = request.seeds[start : start + size]
            missing = size - len(seeds)
            z = draw_latents(seeds, self.latent_dim)
            inputs: dict[str, NDArray[Any]] = {"z": np.pad(z, ((0, missing), (0, 0)))}
            labels = None
            if request.labels is not None:
                labels = np.array(request.labels[start : start + size], np.int64)
                inputs["labels"] = np.pad(labels, (0, missing))
            (images,) = self.session.run(None, inputs)
            yield images[: len(seeds)], labels


def open_export(generator: Path) -> OnnxSampler | None:
    """Open the export of a generator file; None if torch must be used instead.

    None means that there is no export or no onnxruntime. It is also None, with a warning, if the
    export is damaged, was written by another program or a newer version, or belongs to another
    version of the generator file (which was trained or evaluated since).
    """
    path = export_path(generator)
    if not path.exists():
        return None
    try:
        session = open_session(path)
    except ImportError:
        return None
    except Exception as error:  # onnxruntime's exceptions have no common base class
        reason = " ".join(str(error).split())
        logger.warning("%s is damaged or is not an ONNX file (%s): using torch", path, reason)
        return None
    try:
        about = json.loads(session.get_modelmeta().custom_metadata_map["cgan"])
        if about["format"] != ONNX or about["format_version"] > ONNX_VERSION:
            raise ValueError("unknown format")
        digest, sampler = about["sha256"], OnnxSampler(session, about["generator"], generator)
    except (KeyError, TypeError, ValueError):
        logger.warning(
            "%s was not written by this version of cgan: using torch; run cgan export %s",
            path,
            generator,
        )
        return None
    if digest != file_digest(generator):
        logger.warning(
            "%s does not match %s: using torch; run cgan export %s again",
            path,
            generator.name,
            generator,
        )
        return None
    return sampler


def export_path(generator: Path) -> Path:
    """Path of the export of a generator file, in the same folder."""
    return generator.with_suffix(".onnx")


def file_digest(generator: Path) -> str:
    """SHA-256 of a generator file."""
    return sha256(generator.read_bytes()).hexdigest()


def open_session(model: Path | bytes) -> InferenceSession:
    """Open a network with onnxruntime, with one thread per usable core.

    Raises:
        ImportError: onnxruntime is not installed.
        Exception: any exception of onnxruntime for an invalid file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, so do not print them
    options.intra_op_num_threads = count_cores()
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
