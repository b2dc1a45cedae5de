"""Export a generator as one ONNX file, which runs without torch."""

from __future__ import annotations

import importlib
import io
import json
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cgan.errors import ConfigError, RunError
from cgan.runtime.device import torch_defaults
from cgan.sampling.class_names import Request
from cgan.sampling.onnx import (
    BATCH,
    INPUTS,
    ONNX,
    ONNX_VERSION,
    OnnxSampler,
    export_path,
    file_digest,
    open_session,
)
from cgan.sampling.sampler import Sampler, load
from cgan.storage.atomic import write_atomically
from cgan.storage.images import to_unit
from cgan.storage.paths import find_generator

REQUIRED_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
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
    generator's header and the SHA-256 of its file.

    Args:
        path_or_run: anything that ``cgan.load`` accepts.
        out: an .onnx file; the default is next to the generator, where ``cgan generate`` uses it.

    Returns:
        the path of the ONNX file.

    Raises:
        ConfigError: ``out`` is not an .onnx file, or a package of ``REQUIRED_PACKAGES`` is not
            installed.
        FileError: there is no such generator, or the file cannot be written.
        RunError: the images differ.
    """
    if out is not None and out.suffix != ".onnx":
        raise ConfigError(f"--out takes a .onnx file, not {out}")
    for module in REQUIRED_PACKAGES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"exporting needs {module}: pip install 'cgan[onnx]'") from error
    path = find_generator(path_or_run)
    digest = file_digest(path)  # before loading: if the file is replaced now, the export is stale
    sampler = load(path)
    about = {
        "format": ONNX,
        "format_version": ONNX_VERSION,
        "sha256": digest,
        "generator": sampler.header,
    }
    content = encode(sampler, json.dumps(about, sort_keys=True, ensure_ascii=False))
    check_same_images(sampler, OnnxSampler(open_session(content), sampler.header, path))
    target = out or export_path(path)
    write_atomically(target, content)
    return target


def encode(sampler: Sampler, about: str) -> bytes:
    """A generator on the CPU as the bytes of an ONNX file, with ``about`` in its metadata."""
    z = torch.zeros(BATCH, sampler.latent_dim)
    inputs = (z, torch.zeros(BATCH, dtype=torch.int64))[: 1 + sampler.conditional]
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            UnitGenerator(sampler.generator).eval(),
            inputs,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=INPUTS[: len(inputs)],
            output_names=["pictures"],
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in inputs),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]  # they hold source paths of this machine
    model.metadata_props.add(key="cgan", value=about)
    content: bytes = model.SerializeToString()
    return content


def check_same_images(sampler: Sampler, exported: OnnxSampler) -> None:
    """Compare 64 images of all classes.

    Raises:
        RunError: they differ by more than ``TOLERANCE``.
    """
    seeds = tuple(range(BATCH))
    classes = len(sampler.classes)
    labels = tuple(seed % classes for seed in seeds) if sampler.conditional else None
    request = Request(labels, seeds)
    (wanted, _), (found, _) = next(sampler.batches(request)), next(exported.batches(request))
    difference = float(np.abs(wanted.numpy() - found).max())
    if not difference <= TOLERANCE:  # also if it is NaN
        raise RunError(
            f"the export of {sampler.name} was not written, because its images differ by up to "
            f"{difference:.2g} (pixels in [0, 1]): upgrade torch, onnxscript and onnxruntime"
        )
