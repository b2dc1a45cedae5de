"""Export a generator as one ONNX file, which runs without torch."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cgan.errors import ConfigError, RunError
from cgan.models.flow import SteeredGenerator
from cgan.models.foreign import ForeignGenerator
from cgan.runtime.device import torch_defaults
from cgan.runtime.onnx_session import open_session
from cgan.sampling.class_names import Request
from cgan.sampling.onnx import (
    INPUTS,
    ONNX,
    ONNX_VERSION,
    OnnxSampler,
    export_path,
)
from cgan.sampling.onnx_graph import EXAMPLE_BATCH, merge, to_onnx
from cgan.sampling.sampler import Sampler, load
from cgan.storage.atomic import write_atomically
from cgan.storage.hub import hub_title
from cgan.storage.images import to_unit
from cgan.storage.paths import PACKAGED, find_generator
from cgan.storage.safe_reading import file_digest

CHECKED_IMAGES = 64
"""Images that are compared with torch's."""
TOLERANCE = 1e-4
"""Largest allowed difference to torch, for pixels in [0, 1]: 1/40 of a grey level."""


class UnitGenerator(nn.Module):
    """A generator whose images (B, C, H, W) are in [0, 1]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """One image per row of z."""
        return to_unit(self.generator(z, labels))


@torch_defaults()
def export(path_or_run: str | Path, out: Path | None = None) -> Path:
    """Write a generator as ONNX, after checking that the export gives the same images.

    The network takes ``z``, float32 (B, latent_dim), and, if conditional, ``labels``, int64 (B,).
    It returns ``pictures``, float32 (B, C, H, W) in [0, 1]. Its metadata key ``cgan`` holds the
    generator's header, the SHA-256 of its file, and that of the network.

    Args:
        path_or_run: anything that ``cgan.load`` accepts.
        out: an .onnx file; the default is next to the generator, where ``cgan generate`` uses it,
            or the current folder for a generator of the package or the Hub.

    Returns:
        the path of the ONNX file.

    Raises:
        ConfigError: ``out`` is not an .onnx file, or a package of ``REQUIRED_PACKAGES`` is not
            installed.
        FileError: there is no such generator, or the file cannot be written.
        RunError: the images differ.
    """
    if out is not None and out.suffix != ".onnx":
        raise ConfigError(f"an export is an .onnx file, not {out}")
    path = find_generator(path_or_run)
    digest = file_digest(path)  # before loading: if the file is replaced now, the export is stale
    sampler = load(path)
    content = encode(sampler, digest)
    check_same_images(sampler, OnnxSampler(open_session(content), sampler.header, path))
    # The cache of the Hub and the package are not ours to write into.
    title = path.parent.name if path.parent.parent == PACKAGED else hub_title(path)
    target = out or (Path(f"{title}.onnx") if title else export_path(path))
    write_atomically(target, content)
    return target


def encode(sampler: Sampler, digest: str) -> bytes:
    """A generator on the CPU as the bytes of an ONNX file.

    Args:
        sampler: the generator.
        digest: the SHA-256 of its file.

    Raises:
        ConfigError: a package of ``REQUIRED_PACKAGES`` is not installed, or it steers an ONNX
            network that cannot be merged with its flow.
    """
    generator = sampler.generator
    if isinstance(generator, SteeredGenerator) and isinstance(
        generator.generator, ForeignGenerator
    ):
        model = merge(generator, sampler.latent_dim, sampler.image_shape)
    else:
        z = torch.zeros(EXAMPLE_BATCH, sampler.latent_dim)
        inputs = (z, torch.zeros(EXAMPLE_BATCH, dtype=torch.int64))[: 1 + sampler.conditional]
        model = to_onnx(UnitGenerator(generator).eval(), inputs, INPUTS[: len(inputs)])
    network: bytes = model.SerializeToString()
    about = {
        "format": ONNX,
        "format_version": ONNX_VERSION,
        "sha256": digest,
        "network_sha256": sha256(network).hexdigest(),
        "generator": sampler.header,
    }
    # A protobuf message is the sequence of its fields: append one more.
    metadata = type(model)()
    text = json.dumps(about, sort_keys=True, ensure_ascii=False)
    metadata.metadata_props.add(key="cgan", value=text)
    return network + bytes(metadata.SerializeToString())


def check_same_images(sampler: Sampler, exported: OnnxSampler) -> None:
    """Compare ``CHECKED_IMAGES`` images of all classes.

    Raises:
        RunError: they differ by more than ``TOLERANCE``.
    """
    seeds = tuple(range(CHECKED_IMAGES))
    classes = len(sampler.classes)
    labels = tuple(seed % classes for seed in seeds) if sampler.conditional else None
    request = Request(labels, seeds)
    batches = zip(sampler.batches(request), exported.batches(request), strict=True)
    differences = [np.abs(wanted.numpy() - found).max() for (wanted, _), (found, _) in batches]
    difference = float(np.max(differences))
    if not difference <= TOLERANCE:  # also if it is NaN
        raise RunError(
            f"the export of {sampler.name} was not written, because its images differ by up to "
            f"{difference:.2g} (pixels in [0, 1]): upgrade torch, onnxscript and onnxruntime"
        )
