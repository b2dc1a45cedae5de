"""The Sampler without torch: draws with onnxruntime what ``cgan export`` has written.

Importing torch takes ten times as long as drawing. An export lies beside the generator file that it
was made from, carries that file's SHA-256, and is used for that very file alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cgan.asking import Described, Labels, Request
from cgan.latents import draw_latents

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ONNX = "cgan-onnx"
ONNX_VERSION = 1
INPUTS = ("z", "labels")
"""What an exported network is given: float32 (B, latent_dim) and, if conditional, int64 (B,)."""

BATCH = 64
"""Pictures drawn at once, always: rounding depends on it."""

logger = logging.getLogger("cgan")


class OnnxSampler(Described):
    """An exported generator; asked as a :class:`cgan.Sampler` is, on the CPU, without a judge."""

    def __init__(self, session: InferenceSession, header: dict[str, Any], path: Path) -> None:
        super().__init__(header, path)
        self.session = session

    def sample(self, labels: Labels = None, n: int = 1, seed: int = 0) -> NDArray[np.float32]:
        """Pictures as :meth:`cgan.Sampler.sample` draws them: float32 (N, C, H, W) in [0, 1]."""
        drawn = self.batches(self.request(labels, n, seed))
        return np.concatenate([pictures for pictures, _ in drawn])

    def batches(
        self, request: Request
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64] | None]]:
        """Pictures (≤ 64, C, H, W) in [0, 1] and their classes, in order."""
        for start in range(0, len(request), BATCH):
            seeds = request.seeds[start : start + BATCH]
            missing = BATCH - len(seeds)
            z = draw_latents(seeds, self.latent_dim)
            given: dict[str, NDArray[Any]] = {"z": np.pad(z, ((0, missing), (0, 0)))}
            labels = None
            if request.labels is not None:
                labels = np.array(request.labels[start : start + BATCH], np.int64)
                given["labels"] = np.pad(labels, (0, missing))
            (pictures,) = self.session.run(None, given)
            yield pictures[: len(seeds)], labels


def open_export(generator: Path) -> OnnxSampler | None:
    """What draws in place of a generator file, or None where torch must.

    That is so where there is no export or no onnxruntime, and, with a warning, where the export is
    torn, of another program or a newer cgan, or of another file: trained on or measured since.
    """
    path = export_of(generator)
    if not path.exists():
        return None
    try:
        session = open_session(path)
    except ImportError:
        return None
    except Exception as error:  # onnxruntime's have no base of their own
        reason = " ".join(str(error).split())
        logger.warning("%s is torn or is not an ONNX file (%s): drawing with torch", path, reason)
        return None
    try:
        about = json.loads(session.get_modelmeta().custom_metadata_map["cgan"])
        if about["format"] != ONNX or about["format_version"] > ONNX_VERSION:
            raise ValueError("unknown format")
        digest, sampler = about["sha256"], OnnxSampler(session, about["generator"], generator)
    except (KeyError, TypeError, ValueError):
        logger.warning(
            "%s was not written by this version of cgan: drawing with torch; run cgan export %s",
            path,
            generator,
        )
        return None
    if digest != digest_of(generator):
        logger.warning(
            "%s is older than %s: drawing with torch; run cgan export %s again",
            path,
            generator.name,
            generator,
        )
        return None
    return sampler


def export_of(generator: Path) -> Path:
    """Where the export of a generator file lies: beside it."""
    return generator.with_suffix(".onnx")


def digest_of(generator: Path) -> str:
    """SHA-256 of a generator file."""
    return sha256(generator.read_bytes()).hexdigest()


def open_session(model: Path | bytes) -> InferenceSession:
    """A network ready to draw, on the cores that this process may use.

    Raises:
        ImportError: onnxruntime is not installed.
        Exception: any that onnxruntime has for a file that it cannot read.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised: not also printed
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    options.intra_op_num_threads = len(affinity(0)) if affinity else os.cpu_count() or 1
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
