"""A generator as one ONNX file, which needs no torch to draw."""

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

from cgan.asking import Request
from cgan.errors import ConfigError, RunError
from cgan.files import write_atomically
from cgan.images import to_unit
from cgan.onnx_sampler import (
    BATCH,
    INPUTS,
    ONNX,
    ONNX_VERSION,
    OnnxSampler,
    digest_of,
    export_of,
    open_session,
)
from cgan.places import find_generator
from cgan.sampling import Sampler, load

NEEDED = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
TOLERANCE = 1e-4
"""How far a pixel in [0, 1] may be from torch's: a fortieth of a grey level."""


class Drawing(nn.Module):
    """A generator whose pictures (B, C, H, W) are in [0, 1]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """One picture for each row of z."""
        return to_unit(self.generator(z, labels))


def export(path_or_run: str | Path, out: Path | None = None) -> Path:
    """Write a generator as ONNX, after a look whether it draws the same pictures.

    The network is given ``z``, float32 (B, latent_dim), and, if it is conditional, ``labels``,
    int64 (B,), and gives ``pictures``, float32 (B, C, H, W) in [0, 1]. Its metadata hold, under
    ``cgan``, the generator's own header and the SHA-256 of its file.

    Args:
        path_or_run: what :func:`cgan.load` loads.
        out: an .onnx file; without it the generator file's name, where ``cgan generate`` finds it.

    Returns:
        where it is.

    Raises:
        ConfigError: ``out`` is not called .onnx, or a package of :data:`NEEDED` is not installed.
        FileError: there is no such generator, or the file cannot be written.
        RunError: the pictures differ.
    """
    if out is not None and out.suffix != ".onnx":
        raise ConfigError(f"--out takes a .onnx file, not {out}")
    for module in NEEDED:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"exporting needs {module}: pip install 'cgan[onnx]'") from error
    path = find_generator(path_or_run)
    digest = digest_of(path)  # before it is read: were it replaced, the export would count as stale
    sampler = load(path)
    about = {
        "format": ONNX,
        "format_version": ONNX_VERSION,
        "sha256": digest,
        "generator": sampler.header,
    }
    content = encode(sampler, json.dumps(about, sort_keys=True, ensure_ascii=False))
    compare(sampler, OnnxSampler(open_session(content), sampler.header, path))
    target = out or export_of(path)
    write_atomically(target, content)
    return target


def encode(sampler: Sampler, about: str) -> bytes:
    """A generator on the CPU as the bytes of an ONNX file, with ``about`` in its metadata."""
    z = torch.zeros(BATCH, sampler.latent_dim)
    given = (z, torch.zeros(BATCH, dtype=torch.int64))[: 1 + sampler.conditional]
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Drawing(sampler.generator).eval(),
            given,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=INPUTS[: len(given)],
            output_names=["pictures"],
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in given),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]  # where on this machine which line of source was
    model.metadata_props.add(key="cgan", value=about)
    content: bytes = model.SerializeToString()
    return content


def compare(sampler: Sampler, exported: OnnxSampler) -> None:
    """Let both draw 64 pictures of all classes.

    Raises:
        RunError: they differ.
    """
    seeds = tuple(range(BATCH))
    classes = len(sampler.classes)
    labels = tuple(seed % classes for seed in seeds) if sampler.conditional else None
    request = Request(labels, seeds)
    (wanted, _), (found, _) = next(sampler.batches(request)), next(exported.batches(request))
    difference = float(np.abs(wanted.numpy() - found).max())
    if not difference <= TOLERANCE:  # nor where it is not a number
        raise RunError(
            f"the export draws other pictures than {sampler.name}, by up to {difference:.2g} of 1, "
            "so it was not written: upgrade torch, onnxscript and onnxruntime"
        )
