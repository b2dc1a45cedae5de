"""Export a generator as one ONNX file, which runs without torch.

A steered ONNX network is exported together with its flow.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cgan.errors import ConfigError, RunError, one_line
from cgan.models.flow import ForeignGenerator, OnnxGenerator, SteeredGenerator
from cgan.runtime.cpu import open_session
from cgan.runtime.device import torch_defaults
from cgan.sampling.onnx import (
    INPUTS,
    ONNX,
    ONNX_VERSION,
    OnnxSampler,
    export_path,
)
from cgan.sampling.request import Request
from cgan.sampling.sampler import Sampler, load
from cgan.storage.atomic import write_atomically
from cgan.storage.images import to_unit
from cgan.storage.paths import PACKAGED, StrPath, find_generator, hub_title
from cgan.storage.safe_reading import file_digest

REQUIRED_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
OPSETS = range(17, 24)
"""Opsets that an export may have. onnx2torch reads 17, and torch writes up to 23."""
EXAMPLE_BATCH = 64
"""Images that the export traces; it computes none. With 1, torch would fix the batch size."""
CHECKED_IMAGES = 64
"""Images that are compared with torch's."""
TOLERANCE = 1e-4
"""Largest allowed difference to torch, for pixels in [0, 1]: 1/40 of a grey level."""


def require_packages() -> None:
    """Raise ``ConfigError`` unless all of ``REQUIRED_PACKAGES`` are installed."""
    for module in REQUIRED_PACKAGES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"exporting needs {module}: pip install 'cgan[onnx]'") from error


def to_onnx(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    names: Sequence[str],
    outputs: Sequence[str] = ("pictures",),
    opset: int = OPSET,
) -> Any:
    """An ``onnx.ModelProto`` of a network on the CPU, in evaluation mode.

    Args:
        network: the network.
        inputs: examples, whose first dimension is the batch.
        names: of the inputs.
        outputs: names of the outputs.
        opset: of ``OPSETS``. torch writes another one, without an error, if it cannot convert an
            operator of the network.

    Raises:
        ConfigError: a package of ``REQUIRED_PACKAGES`` is not installed.
    """
    require_packages()
    with _without_messages():
        program = torch.onnx.export(
            network,
            inputs,
            dynamo=True,
            external_data=False,
            opset_version=opset,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in inputs),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]  # they hold source paths of this machine
    del model.metadata_props[:]
    _drop_allowzero(model)
    return model


@contextmanager
def _without_messages() -> Iterator[None]:
    """torch and onnxscript print their progress, and log a traceback where they do not convert."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [one.level for one in loggers]
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for one in loggers:
                one.setLevel(logging.CRITICAL)
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)


def _drop_allowzero(model: Any) -> None:
    """Remove ``allowzero``, which few programs read, where the new shape is known and has no 0.

    torch sets it always. It has no effect there.
    """
    from onnx import numpy_helper

    known = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in known and known[node.input[1]].all():
            kept = [one for one in node.attribute if one.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


def _is_class(labels: Tensor, num_classes: int) -> Tensor:
    """Whether each label (B,) is in 0..num_classes − 1: bool (B,).

    An export takes labels from anyone, and the operator Gather raises no error everywhere: it
    counts −1 from the end, and some programs take zeros for a label past the end.
    """
    return (labels > -1) & (labels < num_classes)  # onnx2torch 1.5 does not read >= of opset 17


def _nan_unless(known: Tensor, images: Tensor) -> Tensor:
    """Images (B, C, H, W), of which those that are not ``known``, bool (B,), are NaN."""
    return torch.where(known.view(-1, 1, 1, 1), images, torch.nan)


class _Flow(nn.Module):
    """u and labels to z, in the shape that the network takes, and to whether each is a class."""

    def __init__(self, flow: nn.Module, latent_map: bool, num_classes: int) -> None:
        super().__init__()
        self.flow, self.latent_map, self.num_classes = flow, latent_map, num_classes

    def forward(self, u: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        known = _is_class(labels, self.num_classes)
        z: Tensor = self.flow(u, torch.where(known, labels, 0))
        return z[:, :, None, None] if self.latent_map else z, known


class _ToUnit(nn.Module):
    """Images of a range of values to images in [0, 1], and NaN for labels that are no class."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, images: Tensor, known: Tensor) -> Tensor:
        return _nan_unless(known, ((images - self.low) / (self.high - self.low)).clamp(0, 1))


def merge(
    steered: SteeredGenerator,
    latent_dim: int,
    image_shape: tuple[int, int, int],
    num_classes: int,
    opset: int = OPSET,
) -> Any:
    """The ``onnx.ModelProto`` of a steered ONNX network: inputs and output as in ``export``.

    Raises:
        ConfigError: a package of ``REQUIRED_PACKAGES`` is not installed, or the network uses
            operators that cannot be converted to the opset.
    """
    foreign = steered.generator
    assert isinstance(foreign, ForeignGenerator)
    assert isinstance(foreign.module, OnnxGenerator)
    require_packages()
    import onnx
    from onnx import compose, version_converter

    u = torch.zeros(EXAMPLE_BATCH, latent_dim)
    labels = torch.zeros(EXAMPLE_BATCH, dtype=torch.int64)
    flow = to_onnx(
        _Flow(steered.flow, foreign.latent_map, num_classes).eval(),
        (u, labels), INPUTS, ("latents", "known"), opset,
    )  # fmt: skip
    examples = torch.zeros(EXAMPLE_BATCH, *image_shape), labels == 0
    scale = to_onnx(_ToUnit(*foreign.value_range), examples, ("images", "known"), opset=opset)
    try:
        network = version_converter.convert_version(
            onnx.load_from_string(foreign.module.content.numpy().tobytes()), opset
        )
        network.ir_version = flow.ir_version
        network = compose.add_prefix(network, "generator/")
        first = [("latents", network.graph.input[0].name)]
        last = [(network.graph.output[0].name, "scale/images"), ("known", "scale/known")]
        merged = compose.merge_models(flow, network, io_map=first)
        merged = compose.merge_models(merged, compose.add_prefix(scale, "scale/"), io_map=last)
    except Exception as error:  # those of onnx have no common base class
        raise ConfigError(
            f"the ONNX network cannot be merged with its flow ({one_line(error)}): use the "
            "generator file"
        ) from error
    output = merged.graph.output[0].name
    for node in merged.graph.node:
        node.output[:] = ["pictures" if name == output else name for name in node.output]
    merged.graph.output[0].name = "pictures"
    return merged


class UnitGenerator(nn.Module):
    """A generator whose images (B, C, H, W) are in [0, 1], or NaN for labels that are no class."""

    def __init__(self, generator: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.generator, self.num_classes = generator, num_classes

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """One image per row of z."""
        if labels is None:
            return to_unit(self.generator(z))
        known = _is_class(labels, self.num_classes)
        return _nan_unless(known, to_unit(self.generator(z, torch.where(known, labels, 0))))


@torch_defaults()
def export(path_or_run: StrPath, out: StrPath | None = None, opset: int = OPSET) -> Path:
    """Write a generator as ONNX, after checking that the export gives the same images.

    The network takes ``z``, float32 (B, latent_dim), and, if conditional, ``labels``, int64 (B,).
    It returns ``pictures``, float32 (B, C, H, W) in [0, 1]. A label is an index of ``classes``; an
    image whose label is outside of 0..K − 1 is NaN. Its metadata key ``cgan`` holds the generator's
    header with ``classes``, the SHA-256 of its file, and that of the network.

    Args:
        path_or_run: anything that ``cgan.load`` accepts.
        out: an .onnx file; the default is next to the generator, where ``cgan generate`` uses it,
            or the current folder for a generator of the package or the Hub.
        opset: the version of ONNX's operators, of ``OPSETS``.

    Returns:
        the path of the ONNX file.

    Raises:
        ConfigError: ``out`` is not an .onnx file, torch cannot write the network with this opset,
            onnxruntime cannot read it, or a package of ``REQUIRED_PACKAGES`` is not installed.
        FileError: there is no such generator, or the file cannot be written.
        RunError: the images differ.
    """
    out = None if out is None else Path(out)
    if out is not None and out.suffix != ".onnx":
        raise ConfigError(f"an export is an .onnx file, not {out}")
    if opset not in OPSETS:
        raise ConfigError(f"an export has an opset from {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    path = find_generator(path_or_run)
    digest = file_digest(path)  # before loading: if the file is replaced now, the export is stale
    sampler = load(path)
    content = encode(sampler, digest, opset)
    try:
        session = open_session(content)
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise ConfigError(
            f"onnxruntime cannot read the export with opset {opset} ({one_line(error)}): upgrade "
            "onnxruntime, or choose a lower opset"
        ) from error
    check_same_images(sampler, OnnxSampler(session, sampler.header, path))
    # The cache of the Hub and the package are not ours to write into.
    title = path.parent.name if path.parent.parent == PACKAGED else hub_title(path)
    target = out or (Path(f"{title}.onnx") if title else export_path(path))
    write_atomically(target, content)
    return target


def encode(sampler: Sampler, digest: str, opset: int = OPSET) -> bytes:
    """A generator on the CPU as the bytes of an ONNX file.

    Args:
        sampler: the generator.
        digest: the SHA-256 of its file.
        opset: of ``OPSETS``.

    Raises:
        ConfigError: a package of ``REQUIRED_PACKAGES`` is not installed, torch cannot write the
            network with this opset, or it steers an ONNX network that cannot be merged with its
            flow.
    """
    classes = len(sampler.classes)
    generator = sampler.generator
    if isinstance(generator, SteeredGenerator) and isinstance(
        generator.generator, ForeignGenerator
    ):
        model = merge(generator, sampler.latent_dim, sampler.image_shape, classes, opset)
    else:
        z = torch.zeros(EXAMPLE_BATCH, sampler.latent_dim)
        inputs = (z, torch.zeros(EXAMPLE_BATCH, dtype=torch.int64))[: 1 + sampler.conditional]
        unit = UnitGenerator(generator, classes).eval()
        model = to_onnx(unit, inputs, INPUTS[: len(inputs)], opset=opset)
    written = next(one.version for one in model.opset_import if not one.domain)
    if written != opset:
        raise ConfigError(
            f"torch cannot write {sampler.name} with opset {opset}: choose opset {written}"
        )
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
