"""A convolutional pair, after Radford et al. 2016 (DCGAN), for sides that are multiples of 4.

    G   z ── base×base×c ══ transposed convolutions 4×4, stride 2, channels halving ══ C, tanh
    D   C ══ convolutions 4×4, stride 2, channels doubling ══ base×base×c ── hidden ── logit

A side is halved until it is odd or at most 4: 28 = 7·2·2 takes two steps, 64 = 4·2·2·2·2 four.
Two things differ from the paper. D has no batch norm, so that a logit depends on its own picture
alone (gradient penalties need that), and one fully connected layer before the logit, because two
steps of convolution see too little of a 28×28 picture to read a digit.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear, relu, unfold

from cgan.models.conditioning import (
    BatchNorm,
    Head,
    LabelPlane,
    LatentLabel,
    check_labels,
    only_if,
)

DEFAULT_WIDTH = 32


def count_halvings(side: int) -> int:
    """How often a side is halved on the way to the base: twice, then while even and > 4."""
    halvings = 2
    while (side >> halvings) % 2 == 0 and (side >> halvings) > 4:
        halvings += 1
    return halvings


def plan_channels(image_shape: tuple[int, int, int], width: int) -> list[int]:
    """Channels from the widest resolution to the base: ``width``, doubling, at most 8·``width``."""
    halvings = min(count_halvings(side) for side in image_shape[1:])
    return [min(2**step, 8) * width for step in range(halvings)]


def init_weights(module: nn.Module) -> None:
    """Weights N(0, 0.02), gains N(1, 0.02), biases 0: Radford et al. 2016, section 4."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            nn.init.zeros_(bias)
    elif isinstance(module, BatchNorm):
        nn.init.normal_(module.gain, 1.0, 0.02)


def lay_out(x: Tensor) -> Tensor:
    """The same numbers, (B, C, H, W), with the channels of a pixel side by side in memory.

    Every layer keeps that layout, forward and backward: where two meet in one operation, a CPU
    takes twenty times as long for it.
    """
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def halve(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 4×4 convolution of stride 2 as a matrix product over patches, (B, C, H, W), laid out.

    Equal to calling it, and for one to three channels several times as fast on a CPU.
    """
    patches = unfold(x, 4, padding=1, stride=2).transpose(1, 2)
    h = linear(patches, convolution.weight.flatten(1), convolution.bias)
    return rearrange(h, "b (h w) c -> b c h w", h=x.shape[2] // 2)


class Generator(nn.Module):
    """G(z, y): z (B, latent_dim) and y (B,) to pictures (B, C, H, W) in [-1, 1]."""

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
        by_class = only_if("cbn", label, num_classes)
        channels = plan_channels(image_shape, width)[::-1]
        self.base = [channels[0], *(side >> len(channels) for side in image_shape[1:])]
        self.entrance = LatentLabel(latent_dim, only_if("concat", label, num_classes))
        self.project = nn.Linear(
            self.entrance.features, self.base[0] * self.base[1] * self.base[2], bias=False
        )
        self.norms = nn.ModuleList(BatchNorm(count, by_class) for count in channels)
        self.raises = nn.ModuleList(
            nn.ConvTranspose2d(here, there, 4, stride=2, padding=1, bias=last)
            for here, there, last in zip(
                channels,
                [*channels[1:], image_shape[0]],
                [False] * (len(channels) - 1) + [True],
                strict=True,
            )
        )
        self.apply(init_weights)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Draw one picture for each row of z."""
        check_labels(labels, self.num_classes)
        h = lay_out(self.project(self.entrance(z, labels)).view(-1, *self.base))
        for norm, twice in zip(self.norms, self.raises, strict=True):
            h = twice(relu(norm(h, labels)))
        pictures: Tensor = h.tanh()
        return pictures


class Discriminator(nn.Module):
    """D(x, y): pictures (B, C, H, W) in [-1, 1] and y (B,) to logits (B,)."""

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
        self.dropout = nn.Dropout(dropout)
        self.entrance = LabelPlane(image_shape, only_if("concat", label, num_classes))
        channels = plan_channels(image_shape, width)
        self.first, *others = (
            nn.Conv2d(here, there, 4, stride=2, padding=1)
            for here, there in zip([self.entrance.channels, *channels], channels, strict=False)
        )
        self.halves = nn.ModuleList(others)
        base_pixels = (image_shape[1] >> len(channels)) * (image_shape[2] >> len(channels))
        self.hidden = nn.Linear(channels[-1] * base_pixels, 4 * width)
        self.head = Head(4 * width, num_classes, label)
        self.apply(init_weights)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logit of each picture."""
        check_labels(labels, self.num_classes)
        h = self.dropout(leaky_relu(halve(self.entrance(images, labels), self.first), 0.2))
        for half in self.halves:
            h = self.dropout(leaky_relu(half(h), 0.2))
        h = leaky_relu(self.hidden(rearrange(h, "b c h w -> b (h w c)")), 0.2)
        logits: Tensor = self.head(h, labels)
        return logits
