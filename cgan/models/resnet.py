"""A residual pair after Huang et al. 2024 (R3GAN), for sides that are multiples of 4.

    G   z, y ── gain × learned base×base×c ══ blocks, upsampling ══ C
    D   C ══ blocks, downsampling ══ base×base×c ── depthwise base×base ── linear ── logit

A block adds 1×1, grouped 3×3 and 1×1 convolutions, with leaky ReLU between them and without
normalisation. Channels fall with resolution, from 4·``width`` to ``width``. For CIFAR-10, R3GAN
has 768 at every resolution, and two blocks where this pair has one. Train it with the relativistic
loss and both penalties, R1 and R2 (equation 3 of the paper).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, pad

from cgan.models.conditioning import (
    BatchNorm,
    Head,
    LabelChannel,
    LatentConcat,
    check_labels,
    classes_if,
)
from cgan.models.dcgan import count_halvings, to_channels_last
from cgan.models.layers import Conv2d, Dropout

GROUP = 16
"""Channels per group of a grouped convolution."""
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""Keeps the variance through a leaky ReLU: He et al. 2015, equation 15."""


def default_width(image_shape: tuple[int, int, int]) -> int:
    """64 channels at any size."""
    return 64


def plan_channels(image_shape: tuple[int, int, int], width: int) -> list[int]:
    """Channels from full resolution to the base: 1, 2, 3 and then 4 times ``width``."""
    halvings = min(count_halvings(side) for side in image_shape[1:])
    return [min(step + 1, 4) * width for step in range(halvings + 1)]


def scaled_(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Initialise weights from N(0, gain² / fan_in) and biases with 0; returns the layer."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """x + f(x), (B, channels, H, W) to the same shape: R3GAN, section 3, Config E.

    The initialisation is that of Config D.

    Args:
        channels: a multiple of 8 for groups of exactly 16 channels.
        blocks: number of blocks of the network, L. The first two convolutions are scaled by
            L^(−1/4), so that L updates together have the size of one (Zhang et al. 2019, Fixup).
            The third starts at 0.
        num_classes: puts a batch norm with gain and bias per class before f; None leaves it out.
    """

    def __init__(self, channels: int, blocks: int, num_classes: int | None = None) -> None:
        super().__init__()
        inner = 2 * channels
        self.norm = None if num_classes is None else BatchNorm(channels, num_classes)
        self.expand = Conv2d(channels, inner, 1)
        groups = math.gcd(inner, max(inner // GROUP, 1))
        self.grouped = Conv2d(inner, inner, 3, padding=1, groups=groups)
        self.reduce = Conv2d(inner, channels, 1, bias=False)
        for layer in (self.expand, self.grouped):
            scaled_(layer, GAIN * blocks**-0.25)
        nn.init.zeros_(self.reduce.weight)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The same shape."""
        h = x if self.norm is None else self.norm(x, labels)
        h = leaky_relu(self.expand(h), SLOPE)
        h = leaky_relu(self.grouped(h), SLOPE)
        added: Tensor = x + self.reduce(h)
        return added


class Resample(nn.Module):
    """Twice or half the resolution with the filter [1, 2, 1], and another number of channels.

    The 1×1 convolution that changes the channels runs at the lower resolution.
    """

    def __init__(self, inputs: int, outputs: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = scaled_(Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, 2H, 2W), or to (B, outputs, H/2, W/2)."""
        if self.up:
            return upsample(self.conv(x))
        h: Tensor = self.conv(downsample(x))
        return h


def upsample(x: Tensor) -> Tensor:
    """Linear interpolation of (B, C, H, W) to twice the size; pixels beyond the edge are 0."""
    # Not a grouped convolution: torch's second derivative of one is a loop over its groups.
    return avg_pool2d(pad(interpolate(x, scale_factor=2.0), (0, 1, 0, 1)), 2, stride=1)


def downsample(x: Tensor) -> Tensor:
    """Every second pixel after smoothing: a quarter of the transposed operation of ``upsample``."""
    return avg_pool2d(avg_pool2d(pad(x, (1, 0, 1, 0)), 2, stride=1), 2)


class Generator(nn.Module):
    """G(z, y): z (B, latent_dim) and y (B,) to images (B, C, H, W).

    In training mode images may leave [-1, 1], because nothing limits them (as in R3GAN); in
    evaluation mode they are clamped.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        latent_dim: int,
        width: int,
        label: str,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes, self.latent_dim = image_shape, num_classes, latent_dim
        normed = classes_if(label == "cbn", num_classes)
        channels = plan_channels(image_shape, width)[::-1]
        height, width_ = (side >> (len(channels) - 1) for side in image_shape[1:])
        self.embed = LatentConcat(latent_dim, classes_if(label == "concat", num_classes))
        self.gain = scaled_(nn.Linear(self.embed.features, channels[0], bias=False))
        self.base = nn.Parameter(torch.randn(channels[0], height, width_))
        self.blocks = nn.ModuleList(ResidualBlock(n, len(channels), normed) for n in channels)
        self.up = nn.ModuleList(
            Resample(inputs, outputs, up=True) for inputs, outputs in pairwise(channels)
        )
        self.to_image = scaled_(Conv2d(channels[-1], image_shape[0], 1, bias=False))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate one image per row of z."""
        check_labels(labels, self.num_classes)
        gain = self.gain(self.embed(z, labels))
        h = to_channels_last(rearrange(gain, "b c -> b c 1 1") * self.base)
        h = self.blocks[0](h, labels)
        for up, block in zip(self.up, self.blocks[1:], strict=True):
            h = block(up(h), labels)
        images: Tensor = self.to_image(h)
        return images if self.training else images.clamp(-1, 1)


class Discriminator(nn.Module):
    """D(x, y): images (B, C, H, W) in [-1, 1] and y (B,) to logits (B,)."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        width: int,
        label: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes = image_shape, num_classes
        self.dropout = Dropout(dropout)
        self.embed = LabelChannel(image_shape, classes_if(label == "concat", num_classes))
        channels = plan_channels(image_shape, width)
        halvings = len(channels) - 1
        base = (image_shape[1] >> halvings, image_shape[2] >> halvings)
        self.from_image = scaled_(Conv2d(self.embed.channels, channels[0], 1, bias=False))
        self.blocks = nn.ModuleList(ResidualBlock(count, len(channels)) for count in channels)
        self.down = nn.ModuleList(
            Resample(inputs, outputs, up=False) for inputs, outputs in pairwise(channels)
        )
        # The sum over the base of each channel, with a learned weight per position.
        self.pool = nn.Parameter(torch.randn(channels[-1], *base) / math.sqrt(math.prod(base)))
        self.project = scaled_(nn.Linear(channels[-1], channels[-1], bias=False))
        self.head = Head(channels[-1], num_classes, label)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """One logit per image."""
        check_labels(labels, self.num_classes)
        h = self.blocks[0](self.from_image(to_channels_last(self.embed(images, labels))))
        for down, block in zip(self.down, self.blocks[1:], strict=True):
            h = block(self.dropout(down(h)))
        logits: Tensor = self.head(self.project((h * self.pool).sum((2, 3))), labels)
        return logits
