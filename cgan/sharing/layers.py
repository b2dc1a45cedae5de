"""Networks as lists of layers for ``engine.js``, which evaluates them in a browser.

The engine keeps an image as (H, W, C), so that its inner loops run over channels that lie side by
side. The weights are permuted to that order here, and batch norms become a scale and a shift.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatchmethod
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cgan.errors import ConfigError
from cgan.evaluation.classifiers import Classifier
from cgan.models import dcgan, mlp, resnet
from cgan.models.conditioning import BatchNorm, LatentConcat
from cgan.models.flow import AffineCoupling, Flow, SteeredGenerator
from cgan.models.foreign import ForeignGenerator

Layer = dict[str, Any]
"""``op``, its numbers, and the indices of its weights."""


MATRICES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)
"""Modules whose ``weight`` a page may store in float16."""


class LayerWriter:
    """Turns modules into layers.

    Attributes:
        weights: the arrays that layers refer to by index.
        is_matrix: for each array, whether it is the weight of one of ``MATRICES``.
    """

    def __init__(self) -> None:
        self.weights: list[NDArray[np.float32]] = []
        self.is_matrix: list[bool] = []

    def add(self, tensor: Tensor | None, is_matrix: bool = False) -> int | None:
        """Store a tensor; returns its index."""
        if tensor is None:
            return None
        self.weights.append(tensor.detach().cpu().float().contiguous().numpy().ravel())
        self.is_matrix.append(is_matrix)
        return len(self.weights) - 1

    @singledispatchmethod
    def write(self, module: nn.Module) -> list[Layer]:
        """The layers of a network in evaluation mode.

        Raises:
            ConfigError: the engine cannot evaluate it.
        """
        raise ConfigError(
            f"a page cannot draw with {type(module).__name__}: use cgan generate or cgan export"
        )

    def write_all(self, modules: Iterable[nn.Module]) -> list[Layer]:
        """The layers of several modules in a row."""
        return [layer for module in modules for layer in self.write(module)]

    def linear(self, layer: nn.Linear, order: Tensor | None = None) -> Layer:
        """A linear layer; ``order`` permutes its outputs."""
        weight: Tensor = layer.weight
        bias: Tensor | None = layer.bias
        if order is not None:
            weight, bias = weight[order], None if bias is None else bias[order]
        weights = {"weight": self.add(weight.T, True), "bias": self.add(bias)}
        return {"op": "linear", "outputs": len(weight), **weights}

    @write.register
    def _(self, layer: nn.Linear) -> list[Layer]:
        return [self.linear(layer)]

    @write.register
    def _(self, layer: nn.Conv2d) -> list[Layer]:
        # (out, in, kh, kw) to (kh, kw, in, out); with groups, "in" are those of one group.
        weight = layer.weight.permute(2, 3, 1, 0)
        return [
            {
                "op": "conv", "kernel": layer.kernel_size[0], "padding": layer.padding[0],
                "groups": layer.groups, "outputs": layer.out_channels,
                "weight": self.add(weight, True), "bias": self.add(layer.bias),
            }
        ]  # fmt: skip

    @write.register
    def _(self, layer: nn.ConvTranspose2d) -> list[Layer]:
        weight = layer.weight.permute(2, 3, 0, 1)  # (in, out, kh, kw) to (kh, kw, in, out)
        return [
            {
                "op": "conv_transpose", "kernel": layer.kernel_size[0], "stride": layer.stride[0],
                "padding": layer.padding[0], "outputs": layer.out_channels,
                "weight": self.add(weight, True), "bias": self.add(layer.bias),
            }
        ]  # fmt: skip

    def normalise(self, layer: Any, gain: Tensor, bias: Tensor) -> Layer:
        """A batch norm as x·scale + shift; gain and bias have one row per class, or one for all."""
        factor = (layer.running_var + getattr(layer, "eps", 1e-5)).rsqrt()
        scale, shift = gain * factor, bias - layer.running_mean * factor * gain
        tables = {"scale": self.add(scale), "shift": self.add(shift)}
        return {"op": "normalise", "classes": len(gain), **tables}

    @write.register
    def _(self, layer: BatchNorm) -> list[Layer]:
        return [self.normalise(layer, layer.gain, layer.bias)]

    @write.register
    def _(self, layer: LatentConcat) -> list[Layer]:
        if layer.embedding is None:
            return []
        return [{"op": "concat_embedding", "table": self.add(layer.embedding.weight, True)}]

    @write.register
    def _(self, network: mlp.Generator) -> list[Layer]:
        layers = self.write(network.embed)
        for hidden, norm in zip(network.hidden, network.norms, strict=True):
            layers += [*self.write_all([hidden, norm]), {"op": "relu"}]
        order = channels_last(network.image_shape)
        return [*layers, self.linear(network.out, order), reshape(network.image_shape), TANH]

    @write.register
    def _(self, network: dcgan.Generator) -> list[Layer]:
        base = tuple(network.base)
        layers = self.write(network.embed)
        layers += [self.linear(network.project, channels_last(base)), reshape(base)]
        for norm, up in zip(network.norms, network.up, strict=True):
            layers += [*self.write(norm), {"op": "relu"}, *self.write(up)]
        return [*layers, TANH]

    @write.register
    def _(self, layer: dcgan.ResizeConv) -> list[Layer]:
        return [{"op": "resize"}, *self.write(layer.conv)]

    @write.register
    def _(self, network: resnet.Generator) -> list[Layer]:
        base = network.base.permute(1, 2, 0)
        shape = {"height": base.shape[0], "width": base.shape[1]}
        layers = [*self.write(network.embed), *self.write(network.gain)]
        layers += [{"op": "scale_base", **shape, "base": self.add(base)}]
        layers += self.write(network.blocks[0])
        for up, block in zip(network.up, network.blocks[1:], strict=True):
            layers += self.write_all([up, block])
        return [*layers, *self.write(network.to_image), {"op": "clamp"}]

    @write.register
    def _(self, block: resnet.ResidualBlock) -> list[Layer]:
        leaky = {"op": "relu", "slope": resnet.SLOPE}
        inner = [] if block.norm is None else self.write(block.norm)
        inner += [*self.write(block.expand), leaky, *self.write(block.grouped), leaky]
        return [{"op": "residual", "layers": [*inner, *self.write(block.reduce)]}]

    @write.register
    def _(self, layer: resnet.Resample) -> list[Layer]:
        return [*self.write(layer.conv), {"op": "upsample"}]

    @write.register
    def _(self, network: SteeredGenerator) -> list[Layer]:
        if isinstance(network.generator, ForeignGenerator):
            raise ConfigError(
                "a page cannot draw with an ONNX network: use cgan generate or cgan export"
            )
        return self.write_all([network.flow, network.generator])

    @write.register
    def _(self, flow: Flow) -> list[Layer]:
        layers = []
        couplings = zip(flow.change_first, flow.change_second, strict=True)
        for index, (first, second) in enumerate(couplings):
            layers += [self.coupling(first, changes_first=True, middle=flow.middle)]
            layers += [self.coupling(second, changes_first=False, middle=flow.middle)]
            layers += [{"op": "rotate", "by": max(flow.middle >> (index + 1), 1)}]
        return layers

    def coupling(self, layer: Any, changes_first: bool, middle: int) -> Layer:
        """A coupling that changes the values before ``middle``, or those from there on."""
        assert isinstance(layer, AffineCoupling)
        inner = [
            self.linear(layer.first),
            {"op": "add_embedding", "table": self.add(layer.embedding.weight, True)},
            {"op": "silu"}, self.linear(layer.second), {"op": "silu"}, self.linear(layer.out),
        ]  # fmt: skip
        place = {"changes_first": changes_first, "middle": middle}
        return {"op": "coupling", **place, "layers": inner}

    @write.register
    def _(self, network: Classifier) -> list[Layer]:
        layers: list[Layer] = []
        *convolutions, hidden, norm, _ = network.features
        for module in convolutions:
            if isinstance(module, nn.Conv2d):
                channels = module.out_channels
                layers += self.write(module)
            elif isinstance(module, nn.BatchNorm2d):
                layers += [self.normalise(module, module.weight[None], module.bias[None])]
            elif isinstance(module, nn.ReLU):
                layers += [{"op": "relu"}]
            elif isinstance(module, nn.MaxPool2d):
                layers += [{"op": "max_pool"}]
        assert isinstance(hidden, nn.Linear)
        assert isinstance(norm, nn.BatchNorm1d)
        outputs = len(hidden.weight)
        places = hidden.weight.view(outputs, channels, -1).transpose(1, 2).flatten(1)
        layers += [
            {"op": "flatten"},
            {
                "op": "linear",
                "outputs": len(places),
                "weight": self.add(places.T, True),
                "bias": None,
            },
            self.normalise(norm, norm.weight[None], norm.bias[None]),
            {"op": "relu"},
        ]
        return [*layers, self.linear(network.head)]


TANH = {"op": "tanh"}


def reshape(shape: tuple[int, ...]) -> Layer:
    """Values in the order (H, W, C) as an image of the shape (C, H, W)."""
    channels, height, width = shape
    return {"op": "reshape", "height": height, "width": width, "channels": channels}


def channels_last(shape: tuple[int, ...]) -> Tensor:
    """The indices of values in the order (C, H, W), put in the order (H, W, C)."""
    return torch.arange(prod(shape)).view(shape).permute(1, 2, 0).flatten()
