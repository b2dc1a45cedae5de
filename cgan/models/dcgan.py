"""A convolutional pair after Radford et al. 2016 (DCGAN), for sides that are multiples of 4.

    G   z ── base×base×c ══ transposed convolutions 4×4, stride 2, channels halving ══ C, tanh
        (the last one may be a bilinear resize and a 3×3 convolution)
    D   C ══ convolutions 4×4, stride 2, channels doubling ══ base×base×c ── hidden ── logit

A side is halved twice, and then further until it is odd or at most 4: 28 = 7·2·2 twice,
64 = 4·2·2·2·2 four times. There are two differences from the paper. D has no batch norm, because
with gradient penalties each logit must depend on its own image only. D has a fully connected layer
before the logit, because the receptive field of two convolutions is too small for a digit.
"""

from __future__ import annotations

from itertools import pairwise

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import fold, interpolate, leaky_relu, linear, relu, unfold

from cgan.models.conditioning import (
    BatchNorm,
    Head,
    LabelChannel,
    LatentConcat,
    check_labels,
    classes_if,
)
from cgan.models.layers import Conv2d, Dropout

MIN_FEATURES = 128
"""Least width of D's hidden layer."""


def default_width(image_shape: tuple[int, int, int]) -> int:
    """32 channels at 16×16 pixels: 32 for images up to 32×32, 16 for 64×64, and at least 8.

    The layers at high resolutions take most of the time; with 32 channels at 32×32 too, a GAN at
    64×64 trains at a third of the speed.
    """
    return min(max(1024 // min(image_shape[1:]), 8), 32)


def count_halvings(side: int) -> int:
    """How often a side is halved: twice, and further while the result is even and above 4."""
    halvings = 2
    while (side >> halvings) % 2 == 0 and (side >> halvings) > 4:
        halvings += 1
    return halvings


def plan_channels(image_shape: tuple[int, int, int], width: int) -> list[int]:
    """Channels from half resolution to the base: ``width``, doubling, at most 8·``width``."""
    halvings = min(count_halvings(side) for side in image_shape[1:])
    return [min(2**step, 8) * width for step in range(halvings)]


def init_weights(module: nn.Module) -> None:
    """Weights N(0, 0.02): Radford et al. 2016, section 4. Gains N(1, 0.02), biases 0."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if isinstance(bias := getattr(module, "bias", None), Tensor):
            nn.init.zeros_(bias)
    elif isinstance(module, BatchNorm):
        nn.init.normal_(module.gain, 1.0, 0.02)


def to_channels_last(x: Tensor) -> Tensor:
    """The same values, (B, C, H, W), in channels-last memory format; on MPS in torch's default.

    All layers keep this format, forward and backward. An operation on tensors of two different
    formats is twenty times slower on a CPU. (MPS: see ``cgan.runtime.device.to_device``.)
    """
    if x.device.type == "mps":
        return x.contiguous()
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def conv_as_matmul(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 4×4 convolution with stride 2 as a matrix product over patches, channels-last.

    The result equals that of the convolution. With few input channels this is faster on a CPU.
    """
    if x.device.type == "mps":
        h: Tensor = convolution(x)
        return h
    patches = unfold(x, 4, padding=1, stride=2).transpose(1, 2)
    h = linear(patches, convolution.weight.flatten(1), convolution.bias)
    return rearrange(h, "b (h w) c -> b c h w", h=x.shape[2] // 2)


def transposed_as_matmul(x: Tensor, convolution: nn.ConvTranspose2d) -> Tensor:
    """A transposed 4×4 convolution with stride 2 as a matrix product and a sum over patches.

    The result equals that of the convolution up to rounding. With few output channels this is
    faster on a CPU.
    """
    _, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(-1, height * width, channels)
    patches = (pixels @ convolution.weight.flatten(1)).transpose(1, 2)
    h = fold(patches, (2 * height, 2 * width), 4, padding=1, stride=2)
    assert convolution.bias is not None
    return h + convolution.bias.view(1, -1, 1, 1)


class ResizeConv(nn.Module):
    """Twice the size by bilinear interpolation, and a 3×3 convolution.

    As the last layer, it is much less prone to checkerboards than a transposed convolution: Odena
    et al. 2016, "Deconvolution and Checkerboard Artifacts". Shapes: (B, inputs, H, W) to
    (B, outputs, 2H, 2W).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Resize, then convolve."""
        h: Tensor = self.conv(interpolate(x, scale_factor=2, mode="bilinear"))
        return h


class Generator(nn.Module):
    """G(z, y): z (B, latent_dim) and y (B,) to images (B, C, H, W) in [-1, 1]."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        latent_dim: int,
        width: int,
        label: str,
        last_layer: str = "transposed",
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes, self.latent_dim = image_shape, num_classes, latent_dim
        cbn_classes = classes_if(label == "cbn", num_classes)
        channels = plan_channels(image_shape, width)[::-1]
        self.base = [channels[0], *(side >> len(channels) for side in image_shape[1:])]
        self.embed = LatentConcat(latent_dim, classes_if(label == "concat", num_classes))
        self.project = nn.Linear(
            self.embed.features, self.base[0] * self.base[1] * self.base[2], bias=False
        )
        self.norms = nn.ModuleList(BatchNorm(count, cbn_classes) for count in channels)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
            for inputs, outputs in pairwise(channels)
        )
        to_image: tuple[int, int] = channels[-1], image_shape[0]
        self.up.append(
            ResizeConv(*to_image)
            if last_layer == "resize"
            else nn.ConvTranspose2d(*to_image, 4, stride=2, padding=1)
        )
        self.apply(init_weights)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate one image per row of z."""
        check_labels(labels, self.num_classes)
        h = to_channels_last(self.project(self.embed(z, labels)).view(-1, *self.base))
        for norm, up in zip(self.norms[:-1], self.up[:-1], strict=True):
            h = up(relu(norm(h, labels)))
        h = relu(self.norms[-1](h, labels))
        return self.to_image(h).tanh()

    def to_image(self, h: Tensor) -> Tensor:
        """The last layer. It is a matrix product in training only: that rounds differently, and
        the image of a seed must stay the same."""
        last = self.up[-1]
        if self.training and h.device.type == "cpu" and isinstance(last, nn.ConvTranspose2d):
            return transposed_as_matmul(h, last)
        images: Tensor = last(h)
        return images


class Discriminator(nn.Module):
    """D(x, y): images (B, C, H, W) in [-1, 1] and y (B,) to logits (B,).

    With ``residual`` there is a residual 3×3 convolution (He et al. 2016) at each resolution
    between half resolution and the base.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        width: int,
        label: str,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes = image_shape, num_classes
        self.dropout = Dropout(dropout)
        self.embed = LabelChannel(image_shape, classes_if(label == "concat", num_classes))
        channels = plan_channels(image_shape, width)
        self.first, *others = (
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            for inputs, outputs in zip([self.embed.channels, *channels], channels, strict=False)
        )
        self.down = nn.ModuleList(others)
        between = channels[1:-1] if residual else []
        self.residual = nn.ModuleList(Conv2d(count, count, 3, padding=1) for count in between)
        base_pixels = (image_shape[1] >> len(channels)) * (image_shape[2] >> len(channels))
        features = max(4 * width, MIN_FEATURES)
        self.hidden = nn.Linear(channels[-1] * base_pixels, features)
        self.head = Head(features, num_classes, label)
        self.apply(init_weights)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """One logit per image."""
        check_labels(labels, self.num_classes)
        h = self.dropout(leaky_relu(conv_as_matmul(self.embed(images, labels), self.first), 0.2))
        for step, down in enumerate(self.down):
            h = leaky_relu(down(h), 0.2)
            if step < len(self.residual):
                h = h + leaky_relu(self.residual[step](h), 0.2)
            h = self.dropout(h)
        h = leaky_relu(self.hidden(rearrange(h, "b c h w -> b (h w c)")), 0.2)
        logits: Tensor = self.head(h, labels)
        return logits
