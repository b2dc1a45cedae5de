"""An HTML page that draws: one file with the generator inside, without a server or a network."""

from __future__ import annotations

import base64
import copy
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import nn

from cgan import __version__
from cgan.errors import ConfigError
from cgan.evaluation.classifiers import Classifier
from cgan.evaluation.encoder import read_encoder
from cgan.evaluation.formatting import format_share
from cgan.evaluation.html import MAX_NUMBERED_CLASSES, finalize
from cgan.runtime.device import torch_defaults
from cgan.sampling.class_names import Request
from cgan.sampling.sampler import Sampler, load
from cgan.sharing import card
from cgan.sharing.layers import MATRICES, LayerWriter
from cgan.storage.atomic import write_atomically
from cgan.storage.hub import hub_name
from cgan.storage.paths import PACKAGED

HERE = Path(__file__).parent
SCRIPTS = ("engine.js", "hand.js", "page.js")
MAX_TILES = 48
"""Classes that the page shows side by side; ``page.js`` has the same limit."""

CHECKED_IMAGES = 256
"""Images of all classes that are drawn with rounded weights and compared with the generator's."""
TOLERANCE = 0.75 / 255
"""Largest difference that rounding may cause there, for pixels in [0, 1]. Grey levels then differ
by at most one."""


def export_page(path_or_run: str | Path, out: str | Path) -> Path:
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
    title = reference.rpartition("/")[2] if reference else card.title_of(sampler)
    table = card.confusion(sampler.header) if sampler.conditional else None
    return template.render(
        title=title,
        sampler=sampler,
        header=sampler.header,
        rows=card.card_rows(sampler),
        confusion=table if table and len(table) <= MAX_NUMBERED_CLASSES else None,
        draws=model["encoder"] is not None,
        max_tiles=MAX_TILES,
        python_class=f"{sampler.classes[0]!a}, " if sampler.conditional else "",
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
        "name": card.title_of(sampler),
        "reference": reference or _reference(sampler),
        "classes": list(sampler.classes) if sampler.conditional else [],
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
