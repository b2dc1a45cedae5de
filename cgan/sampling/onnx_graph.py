"""Networks as ONNX graphs: of torch modules, and of a steered ONNX network with its flow."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from cgan.errors import ConfigError, one_line
from cgan.models.flow import SteeredGenerator
from cgan.models.foreign import ForeignGenerator, OnnxGenerator
from cgan.sampling.onnx import INPUTS

REQUIRED_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
EXAMPLE_BATCH = 64
"""Images that the export traces; it computes none. With 1, torch would fix the batch size."""


def require_packages() -> None:
    """Raise ``ConfigError`` unless all of ``REQUIRED_PACKAGES`` are installed."""
    for module in REQUIRED_PACKAGES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"exporting needs {module}: pip install 'cgan[onnx]'") from error


def to_onnx(
    network: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], output: str = "pictures"
) -> Any:
    """An ``onnx.ModelProto`` of a network on the CPU, in evaluation mode.

    Args:
        network: the network.
        inputs: examples, whose first dimension is the batch.
        names: of the inputs.
        output: name of the output.

    Raises:
        ConfigError: a package of ``REQUIRED_PACKAGES`` is not installed.
    """
    require_packages()
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            inputs,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=names,
            output_names=[output],
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in inputs),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]  # they hold source paths of this machine
    del model.metadata_props[:]
    return model


class _Flow(nn.Module):
    """u and labels to z, in the shape that the network takes."""

    def __init__(self, flow: nn.Module, latent_map: bool) -> None:
        super().__init__()
        self.flow, self.latent_map = flow, latent_map

    def forward(self, u: Tensor, labels: Tensor) -> Tensor:
        z: Tensor = self.flow(u, labels)
        return z[:, :, None, None] if self.latent_map else z


class _ToUnit(nn.Module):
    """Images of a range of values to images in [0, 1]."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, images: Tensor) -> Tensor:
        return ((images - self.low) / (self.high - self.low)).clamp(0, 1)


def merge(steered: SteeredGenerator, latent_dim: int, image_shape: tuple[int, int, int]) -> Any:
    """The ``onnx.ModelProto`` of a steered ONNX network: inputs and output as in ``export``.

    Raises:
        ConfigError: a package of ``REQUIRED_PACKAGES`` is not installed, or the network uses
            operators that cannot be converted to ``OPSET``.
    """
    foreign = steered.generator
    assert isinstance(foreign, ForeignGenerator)
    assert isinstance(foreign.module, OnnxGenerator)
    require_packages()
    import onnx
    from onnx import compose, version_converter

    u = torch.zeros(EXAMPLE_BATCH, latent_dim)
    labels = torch.zeros(EXAMPLE_BATCH, dtype=torch.int64)
    flow = to_onnx(_Flow(steered.flow, foreign.latent_map).eval(), (u, labels), INPUTS, "latents")
    images = torch.zeros(EXAMPLE_BATCH, *image_shape)
    scale = to_onnx(_ToUnit(*foreign.value_range), (images,), ("images",))
    try:
        network = version_converter.convert_version(
            onnx.load_from_string(foreign.module.content.numpy().tobytes()), OPSET
        )
        network.ir_version = flow.ir_version
        network = compose.add_prefix(network, "generator/")
        first = [("latents", network.graph.input[0].name)]
        merged = compose.merge_models(flow, network, io_map=first)
        last = [(network.graph.output[0].name, "scale/images")]
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
