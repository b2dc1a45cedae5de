"""Generators and discriminators: plain modules for anybody's loop.

The contract, which every backbone keeps:

    G = Generator(image_shape, num_classes, latent_dim, width, label)
    G(z, y)   z (B, latent_dim) float, y (B,) int64  ->  pictures (B, C, H, W) in [-1, 1]
    D = Discriminator(image_shape, num_classes, width, label, dropout)
    D(x, y)   x (B, C, H, W) in [-1, 1], y (B,) int64  ->  logits (B,)

With ``label="auxiliary"`` D's answer is (B, 1 + num_classes): the logit, and beside it those of a
classifier that names the picture; :func:`cgan.updates.ask` takes the two apart.

``num_classes=None`` makes the plain GAN, which takes no y. Neither knows of losses or optimisers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from cgan.config import ModelConfig
from cgan.errors import ConfigError, UnknownName
from cgan.models import dcgan, mlp


class Pair(NamedTuple):
    """A generator and the discriminator that teaches it."""

    generator: nn.Module
    discriminator: nn.Module


BACKBONES: dict[str, Any] = {"mlp": mlp, "dcgan": dcgan}

GENERATOR_LABELS = ("concat", "cbn")
DISCRIMINATOR_LABELS = ("concat", "projection", "auxiliary", "projection+auxiliary")


def build_pair(
    backbone: str = "dcgan",
    *,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int | None = 10,
    latent_dim: int = 64,
    width: int | None = None,
    generator_label: str = "cbn",
    discriminator_label: str = "projection",
    dropout: float = 0.0,
) -> Pair:
    """Build G and D from a name, with fresh weights from torch's global random state.

    Args:
        backbone: ``mlp`` or ``dcgan``.
        image_shape: (C, H, W); H and W multiples of 4, at least 8.
        num_classes: how many labels there are; None for the plain GAN.
        latent_dim: length of z.
        width: units of the mlp (default 256), channels at half resolution of the dcgan (32).
        generator_label: how y enters G: ``concat`` or ``cbn``.
        discriminator_label: how y enters D: ``concat``, ``projection``, ``auxiliary`` or
            ``projection+auxiliary``.
        dropout: share of D's features left out at random after each hidden layer.

    Raises:
        UnknownName: no such backbone or way of conditioning.
        ConfigError: a picture size that the networks cannot draw.
    """
    for kind, name, known in (
        ("model", backbone, BACKBONES),
        ("generator label", generator_label, GENERATOR_LABELS),
        ("discriminator label", discriminator_label, DISCRIMINATOR_LABELS),
    ):
        if name not in known:
            raise UnknownName(kind, name, known)
    if any(side % 4 or side < 8 for side in image_shape[1:]):
        height, width_ = image_shape[1:]
        raise ConfigError(f"pictures of {height}×{width_}: both sides must be multiples of 4, ≥ 8")
    family = BACKBONES[backbone]
    width = width or family.DEFAULT_WIDTH
    return Pair(
        family.Generator(image_shape, num_classes, latent_dim, width, generator_label),
        family.Discriminator(image_shape, num_classes, width, discriminator_label, dropout),
    )


def build_networks(model: ModelConfig, image_shape: tuple[int, int, int], classes: int) -> Pair:
    """Build G and D as a config describes them, for data of this many classes."""
    return build_pair(
        model.backbone,
        image_shape=image_shape,
        num_classes=classes if model.conditional else None,
        latent_dim=model.latent_dim,
        width=model.width,
        generator_label=model.generator_label,
        discriminator_label=model.discriminator_label,
        dropout=model.dropout,
    )


def count_parameters(network: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in network.parameters())
