"""Defects that viewers see and the features of a network do not: statistics of pixels.

- **Spots**: isolated dots at one place of many images.
- **Spectrum**: radially averaged power, which shows blur and checkerboards (Durall et al. 2020,
  "Watch your up-convolution", section 3.2).
- **Position**: the mean and the deviation of every pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from scipy.stats import binom
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, pad

SPOT_DEPTH = 24
"""How much darker or lighter a spot is than all that is around it, of 255."""
SPOT_SIDE = 32
"""Images are reduced to at most this many pixels a side before spots are searched."""
SPOT_EXCESS = 0.01
"""Spots at one place are reported if they exceed those of real images by this share."""


class PixelStatistics(NamedTuple):
    """What a set of images has at each place and each spatial frequency.

    Attributes:
        images: their number.
        spots: shares of images with an isolated spot at each place, (2, h, w): dark and light ones.
        power: power by spatial frequency, from low to high, (R,).
        mean, deviation: of each pixel, of 255, (C, H, W).
    """

    images: int
    spots: Tensor
    power: Tensor
    mean: Tensor
    deviation: Tensor


def pixel_statistics(parts: Iterable[Tensor]) -> PixelStatistics:
    """The statistics of all images in these parts, uint8 (N, C, H, W) each, at least one."""
    count, found = 0, []
    for images in parts:
        pixels, size = images.double(), len(images)
        spots, power = size * spot_shares(images), size * power_spectrum(images)
        found.append((spots, power, pixels.sum(0), pixels.square().sum(0)))
        count += size
    spots, power, mean, square = (sum(one) / count for one in zip(*found, strict=True))
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    return PixelStatistics(count, spots, power, mean, deviation)


def spot_shares(images: Tensor) -> Tensor:
    """How many images have an isolated spot at each place, as shares.

    A dark spot is a pixel that is darker than the sixteen pixels around it at a distance of two, by
    ``SPOT_DEPTH``, and the darkest of the 3×3 around it; a light one likewise. Large images are
    reduced first.

    Args:
        images: uint8 (N, C, H, W).

    Returns:
        (2, H, W): dark and light ones.
    """
    grey = images.float().mean(1, keepdim=True)
    if (side := max(grey.shape[2:])) > SPOT_SIDE:
        size = [max(length * SPOT_SIDE // side, 1) for length in grey.shape[2:]]
        grey = interpolate(grey, size, mode="area")
    height, width = grey.shape[2:]
    ring = [(i, j) for i in range(5) for j in range(5) if {i, j} & {0, 4}]
    found = []
    for values in (grey, 255 - grey):
        framed = pad(values, (2, 2, 2, 2), mode="replicate")
        around = framed[:, :, :height, :width]
        for i, j in ring:  # not unfold, whose threads meet once an image
            around = torch.minimum(around, framed[:, :, i : i + height, j : j + width])
        least = -max_pool2d(-values, 3, stride=1, padding=1)
        spots = (values == least) & (around - values > SPOT_DEPTH)
        found.append(spots.float().mean((0, 1)))
    return torch.stack(found)


def power_spectrum(images: Tensor) -> Tensor:
    """The mean power at each spatial frequency, radially averaged.

    Args:
        images: uint8 (N, C, H, W). Their grey values count, without the mean of each image.

    Returns:
        (R,) for the frequencies 1, 2, …, R, in periods over the shorter side. The last ones are
        diagonal: those of a checkerboard.
    """
    grey = images.float().mean(1) / 255
    grey = grey - grey.mean((1, 2), keepdim=True)
    power = torch.fft.fft2(grey).abs().square().mean(0) / grey[0].numel()
    height, width = grey.shape[1:]
    rows, columns = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
    radius = (rows.square().unsqueeze(1) + columns.square()).sqrt() * min(height, width)
    ring = radius.round().long().flatten()
    total = torch.bincount(ring, power.flatten().double())
    return (total / torch.bincount(ring).clamp_min(1))[1:]


def spectrum_distance(real: Tensor, drawn: Tensor) -> float:
    """How far two spectra of ``power_spectrum`` are apart: the mean of |10 log₁₀ ratio|, in dB."""
    return float((to_decibels(drawn) - to_decibels(real)).abs().mean())


def to_decibels(power: Tensor) -> Tensor:
    """10 log₁₀ of power; at least −100."""
    return 10 * power.clamp_min(1e-10).log10()


def position_images(drawn: PixelStatistics, real: PixelStatistics) -> Tensor:
    """Mean and deviation of drawn and of real images, as images.

    Returns:
        uint8 (2, 2, C, H, W): drawn and real, each with mean and deviation. Deviations are scaled
        alike, so that the largest of real ones is white.
    """
    scale = 255 / real.deviation.max().clamp_min(1)
    rows = [torch.stack([one.mean, one.deviation * scale]) for one in (drawn, real)]
    return torch.stack(rows).round().clamp(0, 255).to(torch.uint8)


class Spot(NamedTuple):
    """The place where isolated spots are most frequent, compared with real images.

    Attributes:
        kind: ``dark`` or ``light``.
        row, column: the place, in an image of at most ``SPOT_SIDE`` pixels a side.
        share: share of the generated images that have such a spot there.
        real: the same of real images, the highest of the place and its neighbours.
        is_fixed: whether it is so much more frequent that a viewer sees it in a grid.
    """

    kind: str
    row: int
    column: int
    share: float
    real: float
    is_fixed: bool

    @property
    def sentence(self) -> str:
        """The defect in words."""
        return (
            f"{self.kind} dots: {self.share:.1%} of the images have one at the same place (row "
            f"{self.row + 1}, column {self.column + 1}), and {self.real:.1%} of real images"
        )


def worst_spot(drawn: PixelStatistics, real: PixelStatistics) -> Spot:
    """Where spots exceed those of real images most."""
    shares = drawn.spots
    expected = max_pool2d(real.spots, 3, stride=1, padding=1)
    at = int((shares - expected).argmax())
    kind, place = divmod(at, shares[0].numel())
    row, column = divmod(place, shares.shape[2])
    share, usual = float(shares.flatten()[at]), float(expected.flatten()[at])
    count = round(share * drawn.images)
    chance = float(binom.sf(count - 1, drawn.images, max(usual, 1e-3))) * shares.numel()
    fixed = chance < 1e-3 and share > 3 * usual and share - usual > SPOT_EXCESS
    return Spot(("dark", "light")[kind], row, column, share, usual, fixed)
