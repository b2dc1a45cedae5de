"""Differentiable augmentation for few images: Zhao et al. 2020 (DiffAugment), section 3.

D sees augmented images only, real and generated ones alike, and G gets its gradient through the
augmentation. So D cannot memorise a small data set, and no augmentation leaks into G's images.

Each function takes images (B, C, H, W) in [-1, 1] and uniform random numbers ``u`` in [0, 1), one
row per image, and returns augmented images of the same shape. It is differentiable twice, as the
gradient penalties require. The ranges are those of the paper's code.

To add an augmentation: write its function and add one line to ``AUGMENTATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cgan.errors import UnknownNameError


def colour(images: Tensor, u: Tensor) -> Tensor:
    """Change brightness, saturation and contrast; the result may leave [-1, 1].

    Args:
        images: (B, C, H, W).
        u: (B, 3). Brightness is shifted by u₀ − ½, saturation is multiplied by 2u₁ and contrast
            by u₂ + ½.
    """
    shift, saturation, contrast = u.view(-1, 3, 1, 1, 1).unbind(1)
    images = images + (shift - 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def translation(images: Tensor, u: Tensor) -> Tensor:
    """Shift by whole pixels, up to ⅛ of each side, and fill with 0 (mid grey).

    Args:
        images: (B, C, H, W).
        u: (B, 2): down and right, from −⅛ (u = 0) to ⅛ (u → 1).
    """
    batch, _, height, width = images.shape
    rows = _from_shifted(u[:, 0], height)
    columns = _from_shifted(u[:, 1], width)
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & (
        (columns >= 0) & (columns < width)
    ).unsqueeze(1)
    pixels = rows.clamp(0, height - 1).unsqueeze(2) * width + columns.clamp(0, width - 1).unsqueeze(
        1
    )
    first = torch.arange(batch, device=images.device).view(-1, 1, 1) * (height * width)
    # One index_select keeps the images channels-last, which is fastest on a CPU.
    flat = images.permute(0, 2, 3, 1).flatten(0, 2)
    moved = flat.index_select(0, (first + pixels).flatten()).view(batch, height, width, -1)
    return (moved * inside.unsqueeze(3)).permute(0, 3, 1, 2)


def _from_shifted(u: Tensor, side: int) -> Tensor:
    """For each row (or column) of the result, that of the image: (B, side); may lie outside."""
    reach = max(round(side / 8), 1)
    shift = (u * (2 * reach + 1)).floor().long() - reach
    return torch.arange(side, device=u.device) - shift.unsqueeze(1)


def cutout(images: Tensor, u: Tensor) -> Tensor:
    """Set a rectangle of half the height and half the width to 0 (mid grey).

    Args:
        images: (B, C, H, W).
        u: (B, 2): its centre, as a fraction of height and width. The part of the rectangle beyond
            the edge is lost.
    """
    rows, columns = (
        _is_cut(u[:, axis], side) for axis, side in enumerate(images.shape[2:])
    )  # fmt: skip
    kept = ~(rows.unsqueeze(2) & columns.unsqueeze(1))
    return images * kept.unsqueeze(1)


def _is_cut(u: Tensor, side: int) -> Tensor:
    """Which rows (or columns) the rectangle covers: (B, side)."""
    half = side // 2
    first = (u * (side + 1)).floor().long() - half // 2
    place = torch.arange(side, device=u.device) - first.unsqueeze(1)
    return (place >= 0) & (place < half)


def mirror(images: Tensor, u: Tensor) -> Tensor:
    """Mirror left and right if u ≥ ½. It augments the data: G learns to draw mirrored images.

    Args:
        images: (B, C, H, W).
        u: (B, 1).
    """
    return torch.where(u.view(-1, 1, 1, 1) >= 0.5, images.flip(3), images)


class Augmentation(NamedTuple):
    """A function of images and random numbers."""

    function: Callable[[Tensor, Tensor], Tensor]
    numbers: int
    """Random numbers that it uses per image."""


AUGMENTATIONS = {
    "mirror": Augmentation(mirror, 1),
    "colour": Augmentation(colour, 3),
    "translation": Augmentation(translation, 2),
    "cutout": Augmentation(cutout, 2),
}


GLYPHS = frozenset(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
"""Class names of digits; a single character is a glyph too."""
PHOTOGRAPHS = frozenset({"mirror", "translation", "cutout"})
"""The augmentations of colour photographs."""


def choose_augmentations(
    names: Iterable[str], classes: Iterable[str], image_shape: tuple[int, ...]
) -> frozenset[str]:
    """Replace the name ``auto`` by those of augmentations that fit the data.

    ``auto`` is ``PHOTOGRAPHS`` for colour images and none for grey ones. It is none too if all
    classes are digits or letters, because a mirrored letter is another letter or none.

    Args:
        names: ``auto`` and keys of ``AUGMENTATIONS``.
        classes: the class names.
        image_shape: (C, H, W).
    """
    chosen = frozenset(names)
    if "auto" not in chosen:
        return chosen
    glyphs = all(len(name) == 1 or name.lower() in GLYPHS for name in classes)
    fitting = frozenset() if glyphs or image_shape[0] == 1 else PHOTOGRAPHS
    return chosen - {"auto"} | fitting


class Augment(nn.Module):
    """Apply augmentations with new random numbers for every image.

    Each process draws the numbers of the global batch and uses those of its shard. So one GAN gets
    the same augmentations at any number of processes. It has no weights and no state but torch's
    global random state.

    Args:
        names: keys of ``AUGMENTATIONS``; they are applied in its order.
        rank, world_size: which shard of the global batch the images are.

    Raises:
        UnknownNameError: there is no such augmentation.
    """

    def __init__(self, names: Iterable[str], rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        names = tuple(names)
        for name in names:
            if name not in AUGMENTATIONS:
                raise UnknownNameError("augmentation", name, AUGMENTATIONS)
        self.chosen = [chosen for name, chosen in AUGMENTATIONS.items() if name in names]
        self.rank, self.world_size = rank, world_size

    def forward(self, images: Tensor) -> Tensor:
        """Augment images (B, C, H, W) in [-1, 1]."""
        if not self.chosen:
            return images
        numbers = [chosen.numbers for chosen in self.chosen]
        shape = (self.world_size * len(images), sum(numbers))
        u = torch.rand(shape, device=images.device).chunk(self.world_size)[self.rank]
        for chosen, own in zip(self.chosen, u.split(numbers, dim=1), strict=True):
            images = chosen.function(images, own)
        return images


class AugmentedDiscriminator(nn.Module):
    """D(T(x), y), with a new augmentation T at each call.

    Gradient penalties on it are taken with respect to x, the images before augmentation.
    """

    def __init__(self, discriminator: nn.Module, augment: Augment) -> None:
        super().__init__()
        self.discriminator, self.augment = discriminator, augment

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the discriminator returns for augmented images."""
        output: Tensor = self.discriminator(self.augment(images), labels)
        return output
