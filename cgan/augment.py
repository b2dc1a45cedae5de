"""Differentiable augmentation for few images: Zhao et al. 2020 (DiffAugment), section 3.

D sees augmented images only, real and generated ones, and G's gradient passes through the
augmentation. This makes it harder for D to memorise a small data set, and the augmentations do not
appear in G's images. The exception is ``mirror``: training applies it to the real images only, so G
draws mirrored images too. In steering G cannot learn to, and D sees both mirrored.

Each function takes images (B, C, H, W) in [-1, 1] and uniform random numbers ``u`` in [0, 1), one
row per image, and returns augmented images of the same shape. It is differentiable twice, as the
gradient penalties require. The ranges are those of the paper's code; ``hue`` is that of ADA (Karras
et al. 2020).

To add an augmentation: write its function, and add a line to ``AUGMENTATIONS`` and its name to
``cgan.config.AugmentationName``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cgan.attributes import attribute_values, split_classes
from cgan.errors import UnknownNameError
from cgan.runtime.streams import random_generator


def colour(images: Tensor, u: Tensor) -> Tensor:
    """Change brightness, saturation and contrast; the result may leave [-1, 1].

    Args:
        images: (B, C, H, W).
        u: (B, 3). Brightness is shifted by u₀ − ½, saturation is multiplied by 2u₁ and contrast
            by u₂ + ½.
    """
    shift, saturation, contrast = u.to(images.dtype).view(-1, 3, 1, 1, 1).unbind(1)
    images = images + (shift - 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def hue(images: Tensor, u: Tensor) -> Tensor:
    """Rotate the colours of half of the images about the grey axis: Karras et al. 2020 (ADA),
    appendix B.

    The other half keeps its colours, so D still learns the right ones (section 2.2 of the paper: an
    augmentation does not leak if it is left out often enough). Grey images stay as they are.

    Args:
        images: (B, C, H, W), C = 1 or 3.
        u: (B, 2). An image with u₀ < ½ is rotated by u₁ of a full turn; at ⅓, red becomes green.
    """
    batch, channels, height, width = images.shape
    if channels == 1:
        return images
    angle = 2 * math.pi * u[:, 1] * (u[:, 0] < 0.5)
    # Rodrigues' formula for the axis (1, 1, 1) / √3.
    cosine, sine = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    eye = torch.eye(3, device=u.device)  # made on the device: a CUDA graph cannot copy to it
    cross = (eye.roll(1, 0) - eye.roll(-1, 0)) / math.sqrt(3)
    rotation = cosine * eye + sine * cross + (1 - cosine) / 3
    # A product over the last dimension keeps the images channels-last.
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2) @ rotation.mT.to(images.dtype)
    return pixels.view(batch, height, width, channels).permute(0, 3, 1, 2)


def translation(images: Tensor, u: Tensor) -> Tensor:
    """Shift by whole pixels, up to ⅛ of each side, and fill with 0 (mid grey).

    Args:
        images: (B, C, H, W).
        u: (B, 2): down and right, from −⅛ (u = 0) to ⅛ (u → 1).
    """
    batch, _, height, width = images.shape
    rows, columns = _source_index(u[:, 0], height), _source_index(u[:, 1], width)
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & (
        (columns >= 0) & (columns < width)
    ).unsqueeze(1)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixels = rows.unsqueeze(2) * width + columns.unsqueeze(1)
    first = torch.arange(batch, device=images.device).view(-1, 1, 1) * (height * width)
    # One index_select keeps the images channels-last, which is fastest on a CPU.
    flat = images.permute(0, 2, 3, 1).flatten(0, 2)
    moved = flat.index_select(0, (first + pixels).flatten()).view(batch, height, width, -1)
    return (moved * inside.unsqueeze(3)).permute(0, 3, 1, 2)


def _source_index(u: Tensor, side: int) -> Tensor:
    """For each row (or column) of the result, that of the image: (B, side); may lie outside."""
    reach = (side + 4) // 8
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
        _cut_mask(u[:, axis], side) for axis, side in enumerate(images.shape[2:])
    )  # fmt: skip
    kept = ~(rows.unsqueeze(2) & columns.unsqueeze(1))
    return images * kept.unsqueeze(1)


def _cut_mask(u: Tensor, side: int) -> Tensor:
    """Which rows (or columns) the rectangle covers: (B, side)."""
    half = (side + 1) // 2
    first = (u * (side + 1 - half % 2)).floor().long() - half // 2
    place = torch.arange(side, device=u.device) - first.unsqueeze(1)
    return (place >= 0) & (place < half)


def mirror(images: Tensor, u: Tensor) -> Tensor:
    """Flip images (B, C, H, W) horizontally if u (B, 1) ≥ ½."""
    return torch.where(u.view(-1, 1, 1, 1) >= 0.5, images.flip(3), images)


class Augmentation(NamedTuple):
    """A function of images and random numbers."""

    function: Callable[[Tensor, Tensor], Tensor]
    num_random: int
    """Random numbers per image."""


AUGMENTATIONS = {
    "mirror": Augmentation(mirror, 1),
    "colour": Augmentation(colour, 3),
    "hue": Augmentation(hue, 2),
    "translation": Augmentation(translation, 2),
    "cutout": Augmentation(cutout, 2),
}


DIGIT_NAMES = frozenset(
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
)
PHOTO_AUGMENTATIONS = ("mirror", "hue", "translation")
"""The augmentations of colour photographs. Cutout and colour measure worse: docs/recipes.md."""


def choose_augmentations(
    names: Iterable[str],
    classes: Sequence[str],
    image_shape: tuple[int, ...],
    num_attributes: int = 1,
) -> tuple[str, ...]:
    """The names in the order of ``AUGMENTATIONS``, and what fits the data in place of ``auto``.

    ``auto`` is ``PHOTO_AUGMENTATIONS`` for colour images. It is nothing for grey ones, and nothing
    if all classes are named like characters, because a mirrored letter is another letter or none.

    Args:
        names: ``auto`` and keys of ``AUGMENTATIONS``.
        classes: the class names.
        image_shape: (C, H, W).
        num_attributes: how many attributes a class combines.
    """
    chosen = set(names)
    if "auto" in chosen and shows_photographs(classes, image_shape, num_attributes):
        chosen.update(PHOTO_AUGMENTATIONS)
    return tuple(name for name in AUGMENTATIONS if name in chosen)


def shows_photographs(
    classes: Sequence[str], image_shape: tuple[int, ...], num_attributes: int = 1
) -> bool:
    """Whether images are in colour and some class is not named like a character.

    Where classes combine attributes, it looks at each attribute of more than two values.
    """
    rows = split_classes(classes, num_attributes)
    # Two values such as 0 and 1 usually mean no and yes.
    attributes = [v for v in attribute_values(rows) if len(v) > 2] if rows else [classes]
    return image_shape[0] > 1 and not any(all(map(is_character_name, one)) for one in attributes)


def is_character_name(class_name: str) -> bool:
    """Whether a class is named like one digit or one letter of a Western alphabet.

    A number of two digits is none: folders ``0`` to ``101`` are usually numbered classes.
    """
    is_letter = len(class_name) == 1 and class_name.isalpha() and class_name < "\u0600"
    is_digit = len(class_name) == 1 and class_name.isdecimal()
    return is_letter or is_digit or class_name.lower() in DIGIT_NAMES


class Augment(nn.Module):
    """Apply augmentations with new random numbers for every image, in evaluation mode too.

    Each process draws the numbers of the global batch and uses those of its shard. So one GAN gets
    the same augmentations at any number of processes.

    Args:
        names: keys of ``AUGMENTATIONS``; they are applied in its order.
        rank, world_size: which shard of the global batch the images are.

    Attributes:
        probability: that of each augmentation, independently for each image (Karras et al. 2020,
            ADA, section 2.3); None always applies them. ``hue`` itself leaves half of the images.

    Raises:
        UnknownNameError: there is no such augmentation.
    """

    def __init__(self, names: Iterable[str], rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        names = tuple(names)
        for name in names:
            if name not in AUGMENTATIONS:
                raise UnknownNameError("augmentation", name, AUGMENTATIONS)
        self.augmentations = [AUGMENTATIONS[name] for name in AUGMENTATIONS if name in names]
        self.rank, self.world_size = rank, world_size
        self.probability: Tensor | float | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Augment images (B, C, H, W) in [-1, 1]."""
        if not self.augmentations:
            return images
        gate = int(self.probability is not None)  # one more number per image
        widths = [entry.num_random + gate for entry in self.augmentations]
        shape = (self.world_size * len(images), sum(widths))
        u = torch.rand(shape, device=images.device, generator=random_generator())
        u = u.chunk(self.world_size)[self.rank]
        for entry, columns in zip(self.augmentations, u.split(widths, dim=1), strict=True):
            augmented = entry.function(images, columns[:, : entry.num_random])
            if self.probability is not None:
                applied = columns[:, -1].view(-1, 1, 1, 1) < self.probability
                augmented = torch.where(applied, augmented, images)
            images = augmented
        # MPS: see ``cgan.runtime.device.to_device``.
        return images.contiguous() if images.device.type == "mps" else images


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
