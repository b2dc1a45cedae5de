"""Open generators without labels: files of cgan, ONNX files, and torch modules of other code."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from hashlib import sha256
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cgan.config import Config
from cgan.errors import ConfigError, FileError, MeasureError, one_line
from cgan.models.flow import ForeignGenerator, OnnxGenerator
from cgan.runtime.device import torch_defaults
from cgan.sampling.export import EXAMPLE_BATCH, to_onnx
from cgan.sampling.latents import draw_latents
from cgan.sampling.sampler import load
from cgan.storage.paths import StrPath, find_generator
from cgan.storage.safe_reading import MAX_LATENT_DIM, MAX_SIDE, file_digest, read_bytes
from cgan.storage.schema import is_image_shape

PROBES = 64
"""Images that a generator of another program is probed with."""
TOLERANCE = 1e-3
"""Largest difference between an image drawn alone and in a batch, for values in [-1, 1]."""
MAX_ONNX_BYTES = 2**31
"""The limit of the format itself."""
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
"""Black and white in the images of an ONNX file; the first range that holds all values is taken."""
SLACK = 1e-3
"""By this fraction of a range, values may lie outside of it."""

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class PlainGenerator:
    """A generator without labels.

    Attributes:
        network: z (B, latent_dim) to images (B, C, H, W) in [-1, 1].
        image_shape: (C, H, W).
        latent_dim: length of z.
        header: how it is built, and the SHA-256 of its file: the entry ``steered`` in the header of
            a generator that steers it.
        onnx: the network as ONNX, uint8 (N,), if it is of another program.
        differentiable: whether its images have a gradient with respect to z.
    """

    network: nn.Module
    image_shape: tuple[int, int, int]
    latent_dim: int
    header: dict[str, Any]
    onnx: Tensor | None = None
    differentiable: bool = True


@torch_defaults()
@torch.no_grad()
def probe(network: nn.Module, latent_dim: int) -> Tensor:
    """Draw ``PROBES`` images of an unknown network, and check them.

    Returns:
        (PROBES, C, H, W).

    Raises:
        ConfigError: it cannot be called, returns something else than images, or an image depends on
            the others in its batch.
        MeasureError: it draws values that are not finite, or always the same image.
    """
    z = torch.from_numpy(draw_latents(range(PROBES), latent_dim))
    try:
        images: Tensor = network(z)
        few: Tensor = network(z[:2])
    except Exception as error:  # whatever foreign code raises
        raise ConfigError(
            f"the generator cannot draw images from z of the shape {list(z.shape)}: "
            f"{one_line(error)}"
        ) from error
    if not is_image_shape(list(images.shape[1:])):
        raise ConfigError(
            "the generator must return images (batch, channels, height, width) with 1 or 3 "
            f"channels and up to {MAX_SIDE:,} pixels a side, not {list(images.shape)}"
        )
    check_images(images)
    if not torch.allclose(images[:2], few, atol=TOLERANCE * float(images.abs().max())):
        raise ConfigError(
            "an image of the generator depends on the others in its batch, or on more than z: set "
            "it to evaluation mode, and turn its own noise off"
        )
    return images


def check_images(images: Tensor) -> None:
    """Check images of a generator, (B, C, H, W) with B ≥ 2.

    Raises:
        MeasureError: a value is not finite, or all images are equal.
    """
    if not images.isfinite().all():
        raise MeasureError(
            "the generator draws values that are not finite: its training diverged, so train it "
            "again with a lower learning rate"
        )
    if torch.equal(images, images[:1].expand_as(images)):
        raise MeasureError("the generator draws the same image for every z: train it again")


def check_plain(
    plain: PlainGenerator, config: Config, image_shape: tuple[int, int, int], data: str
) -> None:
    """Check that a generator that is to be steered fits the config and the data's images.

    Raises:
        ConfigError: its z, its images or the config are of another kind.
    """
    if plain.latent_dim != config.model.latent_dim or not config.model.conditional:
        raise ConfigError(
            f"steering this generator needs model.latent_dim {plain.latent_dim} and a conditional "
            "model: use cgan steer"
        )
    if plain.image_shape != image_shape:
        raise ConfigError(
            f"the generator draws images of {plain.image_shape} (channels, height, width) and "
            f"{data} has {image_shape}: give the data that it was trained on with --data"
        )


def load_plain(path_or_run: StrPath) -> PlainGenerator:
    """Load a generator without labels: a run folder, a generator file or an ONNX file.

    Raises:
        FileError: there is none, or it cannot be read.
        ConfigError: it is conditional, or is not a generator.
        MeasureError: an ONNX file draws values that are not finite, or always the same image.
    """
    path = find_generator(path_or_run, onnx=True)
    if path.suffix == ".onnx":
        return _load_onnx(path)
    digest = file_digest(path)
    sampler = load(path)
    if sampler.conditional:
        raise ConfigError(
            f"{sampler.name} is conditional already: choose the class with cgan generate --class"
        )
    header = {
        "name": sampler.title,
        "sha256": digest,
        "model": sampler.config.model.model_dump(mode="json"),
    }
    return PlainGenerator(sampler.generator, sampler.image_shape, sampler.latent_dim, header)


@torch_defaults()
def wrap(
    module: nn.Module, latent_dim: int, value_range: tuple[float, float] = (-1, 1)
) -> PlainGenerator:
    """Make a generator of other code usable for ``cgan.steer``.

    Args:
        module: maps z, (B, latent_dim) or (B, latent_dim, 1, 1), to images (B, C, H, W). A copy
            of it is used, in evaluation mode. It must be exportable as ONNX, because the file of
            the steered generator holds it in this format.
        latent_dim: length of z ~ N(0, I).
        value_range: black and white in its images.

    Raises:
        ConfigError: an argument is no number; or the module cannot be called, returns something
            else than images in this range, draws an image that depends on the others in its batch,
            or cannot be exported.
        MeasureError: it draws values that are not finite, or always the same image.
    """
    try:
        latent_dim, (low, high) = index(latent_dim), map(float, value_range)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "latent_dim must be a whole number, and value_range two numbers, those of black and "
            f"white, not {latent_dim!r} and {value_range!r}"
        ) from error
    value_range = (low, high)
    if not 2 <= latent_dim <= MAX_LATENT_DIM:
        raise ConfigError(f"latent_dim must be from 2 to {MAX_LATENT_DIM:,}, not {latent_dim}")
    if training := [
        name for name, one in module.named_modules() if isinstance(one, _BatchNorm) and one.training
    ]:
        logger.warning(
            "batch norm was in training mode (%s): it is in evaluation mode here, so that an image "
            "does not depend on the others in its batch",
            ", ".join(training[:5]),
        )
    try:
        module = copy.deepcopy(module).cpu().eval()
    except RuntimeError as error:  # the old weight_norm and spectral_norm hold results as weights
        raise ConfigError(
            f"the generator cannot be copied ({one_line(error)}): call remove_weight_norm or "
            "remove_spectral_norm of torch.nn.utils first"
        ) from error
    latent_map = _takes_map(module, latent_dim)
    images = probe(ForeignGenerator(module, latent_map), latent_dim)
    _find_range(images, (value_range,))
    z = torch.zeros(EXAMPLE_BATCH, latent_dim, *(1, 1) * latent_map)
    try:
        content: bytes = to_onnx(module, (z,), ("z",)).SerializeToString()
    except ConfigError:
        raise
    except Exception as error:  # those of torch.onnx have no common base class
        raise ConfigError(
            "the generator cannot be exported as ONNX, the format in which its file holds it: "
            f"{one_line(error)}"
        ) from error
    exported = probe(ForeignGenerator(OnnxGenerator(_as_tensor(content)), latent_map), latent_dim)
    if not torch.allclose(exported, images, atol=SLACK * (value_range[1] - value_range[0])):
        raise ConfigError("the generator cannot be exported as ONNX: its export draws other images")
    network = ForeignGenerator(module, latent_map, value_range)
    return _describe(network, images, latent_dim, content, type(module).__name__)


def _load_onnx(path: Path) -> PlainGenerator:
    """Open an ONNX network with one input and one output."""
    content = _read_onnx(path)
    module = OnnxGenerator(_as_tensor(content))
    try:
        inputs, outputs = module.open().get_inputs(), module.open().get_outputs()
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    shape: list[Any] = list(inputs[0].shape) if len(inputs) == 1 else []
    if len(shape) not in (2, 4) or shape[2:] not in ([], [1, 1]) or type(shape[1]) is not int:
        found = ", ".join(f"{one.name} {one.shape}" for one in inputs[:4])
        raise ConfigError(
            f"{path} takes {found}, but a generator without labels takes z alone: "
            "(batch, latent_dim) or (batch, latent_dim, 1, 1)"
        )
    if type(shape[0]) is int:
        raise ConfigError(
            f"{path} always draws {shape[0]} images at once: export it with a dynamic batch size"
        )
    if len(outputs) != 1:
        raise ConfigError(
            f"{path} returns {', '.join(one.name for one in outputs[:4])}, but a generator returns "
            "images alone: export it without the others"
        )
    latent_dim, latent_map = shape[1], len(shape) == 4
    if not 2 <= latent_dim <= MAX_LATENT_DIM:
        raise ConfigError(f"{path} takes a z of {latent_dim} values: 2 to {MAX_LATENT_DIM:,} work")
    images = probe(ForeignGenerator(module, latent_map), latent_dim)
    value_range = _find_range(images, RANGES)
    logger.info("%s: images of values from %g to %g", path, *value_range)
    network = ForeignGenerator(module, latent_map, value_range)
    return _describe(network, images, latent_dim, content, path.stem)


def _read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX file, with the weights that ``torch.onnx.export`` puts beside it.

    Raises:
        FileError: a file cannot be read.
    """
    content = read_bytes(path, MAX_ONNX_BYTES)
    try:
        import onnx

        model = onnx.load_model_from_string(content)
    except Exception:  # not installed, or no ONNX file: onnxruntime says what is wrong
        return content
    if all(one.data_location != onnx.TensorProto.EXTERNAL for one in model.graph.initializer):
        return content
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        inlined: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:  # those of onnx and of protobuf have no common base class
        raise FileError(
            f"the weights of {path} are in other files, which cannot be read ({one_line(error)}): "
            "keep them beside it, or export it with external_data=False"
        ) from error
    return inlined


def _takes_map(module: nn.Module, latent_dim: int) -> bool:
    """Whether a module takes z as (B, latent_dim, 1, 1) and not as (B, latent_dim)."""
    try:
        with torch.no_grad():
            module(torch.zeros(2, latent_dim))
    except Exception:  # whatever foreign code raises; ``probe`` tells it if a map fails too
        return True
    return False


def _find_range(images: Tensor, ranges: tuple[tuple[float, float], ...]) -> tuple[float, float]:
    """The first range that holds all values of images.

    Raises:
        ConfigError: none does.
    """
    least, largest = float(images.min()), float(images.max())
    for low, high in ranges:
        slack = SLACK * (high - low)
        if low < high and low - slack <= least and largest <= high + slack:
            return low, high
    wanted = " or ".join(f"{low:g} to {high:g}" for low, high in ranges)
    raise ConfigError(
        f"the generator draws values from {least:.3g} to {largest:.3g}, not from {wanted}: "
        "give them to cgan.wrap as value_range, or scale the output before the export as ONNX"
    )


def _describe(
    network: ForeignGenerator, images: Tensor, latent_dim: int, content: bytes, name: str
) -> PlainGenerator:
    _, channels, height, width = images.shape
    header = {
        "name": name,
        "sha256": sha256(content).hexdigest(),
        "model": None,
        "onnx_bytes": len(content),
        "latent_map": network.latent_map,
        "value_range": list(network.value_range),
    }
    network.requires_grad_(False)
    with torch.enable_grad():
        differentiable = network(torch.zeros(2, latent_dim, requires_grad=True)).requires_grad
    return PlainGenerator(
        network, (channels, height, width), latent_dim, header, _as_tensor(content), differentiable
    )


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
