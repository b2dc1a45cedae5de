"""An HTML page that draws: one file with the generator inside, without a server or a network."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable
from functools import singledispatchmethod
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor, nn

from cgan import __version__
from cgan.attributes import display_order, sort_for_display
from cgan.errors import ConfigError
from cgan.evaluation.invert import read_encoder
from cgan.evaluation.judge import Classifier
from cgan.evaluation.report import MAX_NUMBERED_CLASSES, finalize, format_share
from cgan.models import dcgan, mlp, photo, resnet
from cgan.models.conditioning import BatchNorm, LatentConcat
from cgan.models.flow import AffineCoupling, Flow, ForeignGenerator, SteeredGenerator
from cgan.runtime.device import torch_defaults
from cgan.sampling.request import Request
from cgan.sampling.sampler import Sampler, load
from cgan.sharing import card
from cgan.storage.atomic import write_atomically
from cgan.storage.paths import PACKAGED, StrPath, hub_name

Layer = dict[str, Any]
"""``op``, its numbers, and the indices of its weights."""


MATRICES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)
"""Modules whose ``weight`` a page may store in float16."""
TANH = {"op": "tanh"}
HERE = Path(__file__).parent
SCRIPTS = ("engine.js", "hand.js", "page.js")
MAX_TILES = 48
"""Classes that the page shows side by side; ``page.js`` has the same limit."""
CHECKED_IMAGES = 256
"""Images of all classes that are drawn with rounded weights and compared with the generator's."""
TOLERANCE = 0.75 / 255
"""Largest difference that rounding may cause there, for pixels in [0, 1]. Grey levels then differ
by at most one."""


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
    def _(self, network: photo.Generator) -> list[Layer]:
        base, last, relu = tuple(network.base), len(network.up), {"op": "relu"}
        height, width = network.image_shape[1:]
        quantiles = self.add(network.quantiles)

        def crop(level: int, **options: Any) -> Layer:
            """What is left at half resolution to the power of ``level``."""
            size = {"height": (height >> level) + 1, "width": (width >> level) + 1}
            return {"op": "crop", "quantiles": quantiles, "place": 2**level, **size, **options}

        layers = self.write(network.embed)
        layers += [self.linear(network.project, channels_last(base)), reshape(base)]
        layers += [*self.write(network.norms[0]), relu]
        for step, up in enumerate(network.up):
            layers += [*self.write(up), crop(last - step)]
            layers += [*self.write(network.norms[step + 1]), relu]
        layers += [{"op": "resize"}, crop(0), *self.write(network.to_image)]
        shown = crop(0, place=0, height=height, width=width, mirrored=network.mirror)
        return [*layers, shown, TANH]

    @write.register
    def _(self, layer: photo.NearestConv) -> list[Layer]:
        weight = layer.transposed_weight()
        inputs, outputs, *_ = weight.shape
        transposed = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        transposed.weight = nn.Parameter(weight)
        return self.write(transposed)

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
        generator = {"op": "network", "layers": self.write(network.generator)}
        return [*self.write(network.flow), generator]

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


def reshape(shape: tuple[int, ...]) -> Layer:
    """Values in the order (H, W, C) as an image of the shape (C, H, W)."""
    channels, height, width = shape
    return {"op": "reshape", "height": height, "width": width, "channels": channels}


def channels_last(shape: tuple[int, ...]) -> Tensor:
    """The indices of values in the order (C, H, W), put in the order (H, W, C)."""
    return torch.arange(prod(shape)).view(shape).permute(1, 2, 0).flatten()


def export_page(path_or_run: StrPath, out: StrPath) -> Path:
    """Write a page that draws what the generator draws: the same seeds give the same images.

    It draws the same images as ``Sampler.sample`` on the CPU, to one grey level in 255. Its script
    offers ``window.cgan.draw(className, seed)``, a promise of the H·W·C bytes of an image.

    If the encoder of ``cgan.invert`` is in the cache or in the package, and the images are grey,
    visitors can draw by hand, and see their image in every class.

    Args:
        path_or_run: anything that ``cgan.load`` accepts.
        out: an .html file.

    Returns:
        the path of the page.

    Raises:
        ConfigError: ``out`` is not an .html file, or the generator is an ONNX network.
        FileError: there is no such generator, or the file cannot be written.
    """
    out = Path(out)
    if out.suffix != ".html":
        raise ConfigError(f"a page is an .html file, not {out}")
    write_atomically(out, render_page(load(path_or_run)).encode())
    return out


@torch_defaults()
def render_page(sampler: Sampler, reference: str | None = None) -> str:
    """The HTML of the page of a generator on the CPU.

    Args:
        sampler: the generator.
        reference: its name in a shell command, if it is published under that name.

    Raises:
        ConfigError: the generator is an ONNX network.
    """
    environment = Environment(
        autoescape=True, finalize=finalize, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["share"] = format_share
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    template = environment.from_string((HERE / "page.html.j2").read_text(encoding="utf-8"))
    model = page_model(sampler, reference)
    title = reference.rpartition("/")[2] if reference else sampler.title
    classes, order = sort_for_display(sampler.classes), display_order(sampler.classes)
    table = card.confusion(sampler.header) if sampler.conditional else None
    if table is not None:
        table = [[table[row][column] for column in order] for row in order]
    return template.render(
        title=title,
        sampler=sampler,
        classes=classes,
        header=sampler.header,
        rows=card.card_rows(sampler),
        confusion=table if table and len(table) <= MAX_NUMBERED_CLASSES else None,
        draws=model["encoder"] is not None,
        max_tiles=MAX_TILES,
        python_class=f"{classes[0]!a}, " if sampler.conditional else "",
        # "<" would end the element that holds the JSON.
        model=Markup(json.dumps(model, separators=(",", ":")).replace("<", "\\u003c")),
        style=Markup(style),
        script=Markup(script),
        hashes={"style": _csp_hash(style), "script": _csp_hash(script)},
        version=__version__,
    )


def page_model(sampler: Sampler, reference: str | None = None) -> dict[str, Any]:
    """What ``engine.js`` needs, as plain values; the arguments are those of ``render_page``.

    Raises:
        ConfigError: the generator is an ONNX network.
    """
    writer = LayerWriter()
    generator = writer.write(sampler.generator)
    count = len(writer.weights)
    encoder = find_page_encoder(sampler)
    encoder_layers = None if encoder is None else writer.write(encoder)
    half = survives_rounding(sampler)
    arrays = [
        array.astype(np.float16 if half and is_matrix and index < count else np.float32)
        for index, (array, is_matrix) in enumerate(
            zip(writer.weights, writer.is_matrix, strict=True)
        )
    ]
    return {
        "name": sampler.title,
        "reference": reference or _reference(sampler),
        "classes": list(sampler.classes) if sampler.conditional else [],  # by index
        "shown": sort_for_display(sampler.classes) if sampler.conditional else [],
        "image_shape": list(sampler.image_shape),
        "latent_dim": sampler.latent_dim,
        "generator": generator,
        "encoder": encoder_layers,
        "arrays": [[len(array), array.dtype.name] for array in arrays],
        "weights": base64.b64encode(b"".join(array.tobytes() for array in arrays)).decode(),
    }


def _reference(sampler: Sampler) -> str:
    """What a shell calls the generator, where that is known to everybody."""
    packaged = sampler.path.parent.parent == PACKAGED
    return hub_name(sampler.path) or (sampler.path.parent.name if packaged else "MODEL")


def find_page_encoder(sampler: Sampler) -> nn.Module | None:
    """The encoder of ``cgan.invert``, if it exists and the images are grey; nobody can draw a
    photograph by hand."""
    if sampler.image_shape[0] > 1 or not sampler.conditional:
        return None
    encoder = read_encoder(sampler)
    return encoder.network if encoder and isinstance(encoder.network, Classifier) else None


def survives_rounding(sampler: Sampler) -> bool:
    """Whether float16 weights give the same images, to one grey level.

    Only matrices are rounded: the weights of linear layers, convolutions and embeddings.
    """
    rounded = copy.deepcopy(sampler.generator)
    for module in rounded.modules():
        if isinstance(module, MATRICES):
            module.weight.copy_(module.weight.half())
    seeds = tuple(range(CHECKED_IMAGES))
    classes = len(sampler.classes)
    labels = tuple(seed % classes for seed in seeds) if sampler.conditional else None
    request = Request(labels, seeds)
    other = Sampler(rounded, sampler.header, sampler.path)
    batches = zip(sampler.batches(request), other.batches(request), strict=True)
    differences = [(images - found).abs().max() for (images, _), (found, _) in batches]
    return bool(torch.stack(differences).max() <= TOLERANCE)  # False for NaN


def _csp_hash(text: str) -> str:
    """The hash of an inline script or style in a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()
