"""A DCGAN for photographs, in which a part of z only moves the picture.

    G   z, y ── base×base×c ══ nearest neighbours ×2, convolution 3×3, crop ══ C, tanh
    D   C ══ convolutions 4×4, stride 2, and 3×3 residual ══ base×base×c ── hidden ── logit

G draws a canvas that is larger than the image by one cell of its base. The first number of z says
how far down the shown part begins, the second how far right, and the third whether the picture is
mirrored. A network of this size draws a detail, such as a wheel or an eye, at few fixed places: the
same dots then stand in many images. With the crop they stand anywhere, and D sees each detail at
all of them (``benchmarks/RECIPES.md``, *The dots*). All of z enters the network too, so where
objects always stand at the same place, G can learn to draw against the crop.

The other differences from ``cgan.models.dcgan``: nearest neighbours and 3×3 convolutions (Odena et
al. 2016) in place of transposed ones, whose details follow the grid of the base; and in D residual
convolutions (He et al. 2016) between half resolution and base.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, interpolate, relu

from cgan.models import dcgan
from cgan.models.conditioning import BatchNorm, LatentConcat, check_labels, classes_if
from cgan.models.dcgan import default_width, init_weights, plan_channels, to_channels_last

__all__ = ["MIN_LATENT_DIM", "Discriminator", "Generator", "default_width"]

MIN_LATENT_DIM = 3  # down, right, and mirrored


class NearestConv(nn.Module):
    """Twice the size by repetition of pixels, and a 3×3 convolution: Odena et al. 2016.

    It is one transposed 4×4 convolution, with less than half of the multiplications. Its kernel
    sums the weights that meet in a pixel. (B, inputs, H, W) to (B, outputs, 2H, 2W).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, bias=False)

    def transposed_weight(self) -> Tensor:
        """The kernel of the transposed convolution, (inputs, outputs, 4, 4)."""
        weight = self.conv.weight
        eye = torch.eye(4, dtype=weight.dtype, device=weight.device)
        pairs = (eye[:3] + eye[1:]).flip(0)  # weight i of 3 meets pixels 2 - i and 3 - i
        kernel = (weight.flatten(2) @ torch.kron(pairs, pairs)).view(*weight.shape[:2], 4, 4)
        return kernel.transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Repeat, then convolve."""
        return conv_transpose2d(x, self.transposed_weight(), stride=2, padding=1)


def crop(
    x: Tensor, first: Tensor, height: int, width: int, mirrored: Tensor | None = None
) -> Tensor:
    """A part of each image, channels-last.

    Args:
        x: (B, C, H, W).
        first: its first row and column in each image, int64 (B, 2).
        height, width: its size.
        mirrored: whether it is mirrored, int64 (B,), 0 or 1; None is no image.

    Returns:
        (B, C, height, width).
    """
    batch, _, rows, columns = x.shape
    row = torch.arange(height, device=x.device) + first[:, :1]
    column = torch.arange(width, device=x.device).expand(batch, -1)
    if mirrored is not None:
        column = column + mirrored.unsqueeze(1) * (width - 1 - 2 * column)
    column = column + first[:, 1:]
    image = torch.arange(batch, device=x.device).view(-1, 1, 1) * (rows * columns)
    pixels = image + row.unsqueeze(2) * columns + column.unsqueeze(1)
    # One index_select over pixels: torch.where between shifted images takes six times as long.
    flat = x.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, pixels.flatten())
    return to_channels_last(flat.view(batch, height, width, -1).permute(0, 3, 1, 2))


class Generator(nn.Module):
    """G(z, y): z (B, latent_dim) and y (B,) to images (B, C, H, W) in [-1, 1].

    Args:
        image_shape, num_classes, width, label: as for ``cgan.models.dcgan.Generator``.
        latent_dim: length of z, at least ``MIN_LATENT_DIM``.
        mirror: whether images are mirrored where the third number of z is positive.
    """

    quantiles: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        latent_dim: int,
        width: int,
        label: str,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes, self.latent_dim = image_shape, num_classes, latent_dim
        self.mirror = mirror
        cbn_classes = classes_if(label == "cbn", num_classes)
        channels = plan_channels(image_shape, width)[::-1]
        self.base = [channels[0], *((side >> len(channels)) + 1 for side in image_shape[1:])]
        cell = 2 ** len(channels)
        shares = torch.arange(1, cell, dtype=torch.float64) / cell
        # z is normal, so the number of quantiles below it is uniform in 0, …, cell − 1.
        self.register_buffer("quantiles", torch.special.ndtri(shares).float())
        self.embed = LatentConcat(latent_dim, classes_if(label == "concat", num_classes))
        self.project = nn.Linear(self.embed.features, math.prod(self.base), bias=False)
        self.norms = nn.ModuleList(BatchNorm(count, cbn_classes) for count in channels)
        self.up = nn.ModuleList(NearestConv(*two) for two in pairwise(channels))
        self.to_image = nn.Conv2d(channels[-1], image_shape[0], 3, padding=1)
        self.apply(init_weights)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate one image per row of z."""
        check_labels(labels, self.num_classes)
        shift = self.shift_of(z)
        h = to_channels_last(self.project(self.embed(z, labels)).view(-1, *self.base))
        for step, norm in enumerate(self.norms):
            h = relu(norm(h, labels))
            is_last = step == len(self.up)
            h = interpolate(h, scale_factor=2, mode="bilinear") if is_last else self.up[step](h)
            # One pixel of the shift here is half a cell after the first layer, then a quarter, …
            digit = shift.div(2 ** (len(self.up) - step), rounding_mode="floor") % 2
            h = crop(h, digit, h.shape[2] - 1, h.shape[3] - 1)
        mirrored = (z[:, 2] > 0).long() if self.mirror else None
        images = crop(self.to_image(h), torch.zeros_like(shift), *self.image_shape[1:], mirrored)
        return images.tanh()

    def shift_of(self, z: Tensor) -> Tensor:
        """Where the shown part of the canvas begins: row and column, int64 (B, 2)."""
        return (z[:, :2, None] > self.quantiles).sum(2)


class Discriminator(dcgan.Discriminator):
    """D(x, y): that of the dcgan, with residual convolutions."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int | None,
        width: int,
        label: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(image_shape, num_classes, width, label, dropout, residual=True)
