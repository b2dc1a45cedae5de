"""A generator without labels, of cgan or of another program, and the checks that it must pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cgan.config import Config
from cgan.errors import ConfigError, MeasureError, one_line
from cgan.runtime.device import torch_defaults
from cgan.sampling.latents import draw_latents
from cgan.storage.headers import is_image_shape
from cgan.storage.limits import MAX_SIDE

PROBES = 64
"""Images that a generator of another program is probed with."""
TOLERANCE = 1e-3
"""Largest difference between an image drawn alone and in a batch, for values in [-1, 1]."""


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


def check_plain(plain: PlainGenerator, config: Config) -> None:
    """Check that a generator that is to be steered fits the config; raises ``ConfigError``."""
    if plain.latent_dim != config.model.latent_dim or not config.model.conditional:
        raise ConfigError(
            f"steering this generator needs model.latent_dim {plain.latent_dim} and a conditional "
            "model: use cgan steer"
        )


def check_same_shape(plain: PlainGenerator, image_shape: tuple[int, int, int], data: str) -> None:
    """Raise ``ConfigError`` unless the images of the data have the shape of the generator's."""
    if plain.image_shape != image_shape:
        raise ConfigError(
            f"the generator draws images of {plain.image_shape} (channels, height, width) and "
            f"{data} has {image_shape}: give the data that it was trained on with --data"
        )
