"""Build a generator and its discriminator by name.

To add a backbone: write one file with ``Generator``, ``Discriminator`` and ``default_width``, add
one line to ``BACKBONES``, and add its name to ``cgan.config.Backbone``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

from cgan.config import DiscriminatorLabel, GeneratorLabel, LastLayer, ModelConfig
from cgan.config_io import make_config
from cgan.errors import ConfigError, UnknownNameError
from cgan.models import dcgan, mlp, photo, resnet
from cgan.models.flow import Flow, ForeignGenerator, OnnxGenerator, SteeredGenerator


class Pair(NamedTuple):
    """A generator and its discriminator."""

    generator: nn.Module
    discriminator: nn.Module


BACKBONES: dict[str, Any] = {"mlp": mlp, "dcgan": dcgan, "photo": photo, "resnet": resnet}

GENERATOR_LABELS: tuple[str, ...] = get_args(GeneratorLabel)
DISCRIMINATOR_LABELS: tuple[str, ...] = get_args(DiscriminatorLabel)
LAST_LAYERS: tuple[str, ...] = get_args(LastLayer)


def build_pair(
    backbone: str = "dcgan",
    *,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int | None = 10,
    latent_dim: int = 64,
    width: int | None = None,
    generator_label: str = "concat",
    discriminator_label: str = "projection",
    last_layer: str = "transposed",
    mirror: bool = False,
    dropout: float = 0.0,
) -> Pair:
    """Build G and D with new weights from torch's global random state.

    Args:
        backbone: ``mlp``, ``dcgan``, ``photo`` or ``resnet``.
        image_shape: (C, H, W); H and W are multiples of 4, at least 8.
        num_classes: number of labels; None for the unconditional GAN.
        latent_dim: length of z.
        width: units of the mlp (default 256), channels at half resolution of the dcgan and the
            photo (32, and fewer above 32×32), or channels at full resolution of the resnet (64).
        generator_label: how y enters G: ``concat`` or ``cbn``.
        discriminator_label: how y enters D: ``concat``, ``projection``, ``auxiliary`` or
            ``projection+auxiliary``. The last one gives the best control, and every packaged config
            uses it; its output is (B, 1 + num_classes), which ``cgan.updates`` understands. The
            default returns one logit, as any training loop expects.
        last_layer: last layer of the dcgan's G: ``transposed`` convolution, or bilinear ``resize``
            and a convolution. Other backbones ignore it.
        mirror: whether z says if an image of the photo backbone is mirrored; others ignore it.
        dropout: dropout probability in D.

    Raises:
        UnknownNameError: no such backbone, conditioning or last layer.
        ConfigError: the networks do not support this image size, or a number is out of range.
    """
    for kind, name, known in (
        ("model", backbone, BACKBONES),
        ("generator label", generator_label, GENERATOR_LABELS),
        ("discriminator label", discriminator_label, DISCRIMINATOR_LABELS),
        ("last layer", last_layer, LAST_LAYERS),
    ):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    if any(side % 4 or side < 8 for side in image_shape[1:]):
        height, width_ = image_shape[1:]
        raise ConfigError(f"images of {width_}×{height}: both sides must be multiples of 4, ≥ 8")
    family = BACKBONES[backbone]
    width = family.default_width(image_shape) if width is None else width
    if width < 1 or latent_dim < 1 or not 0 <= dropout < 1:
        raise ConfigError(
            f"width {width}, latent_dim {latent_dim}, dropout {dropout}: the first two must be at "
            "least 1, and dropout at least 0 and below 1"
        )
    if backbone == "photo" and latent_dim < photo.MIN_LATENT_DIM:
        raise ConfigError(
            f"latent_dim {latent_dim}: the photo backbone takes at least {photo.MIN_LATENT_DIM}, "
            "two that move the image and one that mirrors it"
        )
    options: dict[str, Any] = {}
    if backbone in ("dcgan", "photo"):
        options = {"last_layer": last_layer} if backbone == "dcgan" else {"mirror": mirror}
    return Pair(
        family.Generator(image_shape, num_classes, latent_dim, width, generator_label, **options),
        family.Discriminator(image_shape, num_classes, width, discriminator_label, dropout),
    )


def resolve_width(model: ModelConfig, image_shape: tuple[int, int, int]) -> ModelConfig:
    """The same config with the default width of its backbone in place of null."""
    width = model.width or BACKBONES[model.backbone].default_width(image_shape)
    return model.model_copy(update={"width": width})


def resolve_stored_width(model: ModelConfig, image_shape: tuple[int, int, int]) -> ModelConfig:
    """Like ``resolve_width``, for a file: before version 0.4 the dcgan's width was 32 at any size
    and was not stored."""
    if model.width is None and model.backbone == "dcgan":
        return model.model_copy(update={"width": 32})
    return resolve_width(model, image_shape)


def build_networks(model: ModelConfig, image_shape: tuple[int, int, int], classes: int) -> Pair:
    """Build G and D from a config, for a data set with this many classes."""
    return build_pair(
        model.backbone,
        image_shape=image_shape,
        num_classes=classes if model.conditional else None,
        latent_dim=model.latent_dim,
        width=model.width,
        generator_label=model.generator_label,
        discriminator_label=model.discriminator_label,
        last_layer=model.last_layer,
        mirror=bool(model.mirror),
        dropout=model.dropout,
    )


def steer_generator(
    generator: nn.Module,
    model: ModelConfig,
    classes: int,
    kl_weight: float,
    surrogate: nn.Module | None = None,
) -> SteeredGenerator:
    """A generator without labels with a new flow that chooses its latent vectors by class.

    The arguments are those of ``cgan.models.flow.SteeredGenerator``.
    """
    flow = Flow(model.latent_dim, classes, model.flow_blocks, model.flow_width)
    return SteeredGenerator(generator, flow, kl_weight, surrogate)


def build_generator(header: Mapping[str, Any]) -> nn.Module:
    """The generator that the header of a generator file describes, with new weights.

    Raises:
        ConfigError: the header describes no network.
    """
    model = make_config(header["config"], strict=False).model
    channels, height, width = header["image_shape"]
    image_shape = channels, height, width
    classes, steered = len(header["classes"]), header.get("steered")
    if steered is None:
        return build_networks(
            resolve_stored_width(model, image_shape), image_shape, classes
        ).generator
    if not model.conditional:
        raise ConfigError("a steered generator is conditional")
    if steered["model"] is None:
        content = torch.empty(steered["onnx_bytes"], dtype=torch.uint8)
        low, high = steered["value_range"]
        plain: nn.Module = ForeignGenerator(
            OnnxGenerator(content, image_shape), steered["latent_map"], (low, high)
        )
        return steer_generator(plain, model, classes, kl_weight=0.0)
    of_plain = make_config({**header["config"], "model": steered["model"]}, strict=False).model
    if of_plain.conditional or of_plain.latent_dim != model.latent_dim:
        raise ConfigError("the generator that is steered has labels, or a z of another length")
    plain = build_networks(
        resolve_stored_width(of_plain, image_shape), image_shape, classes
    ).generator
    return steer_generator(plain, model, classes, kl_weight=0.0)


def count_parameters(network: nn.Module) -> int:
    """Number of parameters, also of those that are not trained."""
    return sum(parameter.numel() for parameter in network.parameters())
