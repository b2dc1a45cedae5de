"""Sets of pictures, drawn or real, as judge and feature network see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from cgan.asking import Request
from cgan.data import PictureFolder, Pictures
from cgan.errors import MeasureError
from cgan.metrics.classifier import Judge
from cgan.metrics.distances import Nearest, nearest
from cgan.metrics.features import FeatureNetwork
from cgan.png import to_pixels
from cgan.sampling import Sampler

CHUNK_VALUES = 4_000_000
"""Pixel values of real pictures that are floats at once where all are gone through."""

Labelled = tuple[Tensor, Tensor]
"""Pictures (B, C, H, W) in [0, 1] and the class of each, int64 (B,)."""


@dataclass(frozen=True)
class Seen:
    """What judge and feature network saw in one set of pictures.

    Attributes:
        asked: the class asked for, or the true one: int64 (N,).
        named: the class that the judge sees: int64 (N,).
        features: (N, F).
        ink: mean ink of each picture where it was counted, (N,); nan where no pixel was.
        kept: the pictures that were kept: uint8 (M, C, H, W).
    """

    asked: Tensor
    named: Tensor
    features: Tensor
    ink: Tensor
    kept: Tensor

    def __len__(self) -> int:
        return len(self.asked)

    def of(self, label: int) -> Tensor:
        """The features of one class."""
        return self.features[self.asked == label]


def draw_by_class(sampler: Sampler, per_class: int) -> Iterator[Labelled]:
    """Pictures of seeds 0 to ``per_class`` − 1 of every class, in order.

    A plain GAN can't be asked: its pictures, all of different seeds, are handed out as if each
    class had been.

    Raises:
        MeasureError: a picture is not made of numbers.
    """
    classes = len(sampler.classes)
    if sampler.conditional:
        request = sampler.request(None, per_class)
    else:
        request = Request(None, tuple(range(classes * per_class)))
    asked = torch.arange(classes).repeat_interleave(per_class)
    start = 0
    for pictures, _ in sampler.batches(request):
        if not pictures.isfinite().all():
            raise MeasureError(
                f"{sampler.name} draws pictures that are not numbers (NaN), so its training "
                "diverged: train it again with a lower --lr"
            )
        yield pictures, asked[start : start + len(pictures)]
        start += len(pictures)


def read_by_class(pictures: Pictures | PictureFolder, indices: Tensor) -> Iterator[Labelled]:
    """Real pictures of these indices and their classes."""
    for part in indices.split(min(500, chunk_of(pictures))):
        yield pictures.take(part) / 255, pictures.labels[part]


def chunk_of(pictures: Pictures | PictureFolder) -> int:
    """How many pictures are gone through at once."""
    return max(CHUNK_VALUES // prod(pictures.image_shape), 1)


def choose(pictures: Pictures | PictureFolder, per_class: int) -> Tensor:
    """Indices of so many pictures of each class, or of all it has, by a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for label in range(len(pictures.classes)):
        members = (pictures.labels == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)][:per_class])
    return torch.cat(chosen)


def evenly(count: int, wanted: int) -> Tensor:
    """Indices of ``wanted`` of ``count`` pictures, or of all, evenly apart."""
    if count <= wanted:
        return torch.arange(count)
    return torch.arange(wanted) * count // wanted


def look_through(
    batches: Iterable[Labelled],
    judge: Judge,
    network: FeatureNetwork,
    blank: Tensor | None = None,
    kept_at: Tensor | None = None,
) -> Seen:
    """Let judge and feature network see pictures and their labels.

    Args:
        batches: what to look at.
        judge: names each picture.
        network: gives the features of each.
        blank: mask (C, H, W) of the pixels whose ink is counted; None counts none.
        kept_at: indices of the pictures to keep; None keeps none.
    """
    nowhere = torch.empty(0, dtype=torch.int64)
    kept_at = nowhere if kept_at is None else kept_at
    parts: list[tuple[Tensor, ...]] = []
    start = 0
    for images, labels in batches:
        named, features = judge.look(images)
        if network.extract is not None:
            features = network.extract(images)
        wanted = kept_at[(kept_at >= start) & (kept_at < start + len(images))] - start
        kept = to_pixels(images[wanted.to(images.device)])
        ink = images.new_zeros(len(images))
        if blank is not None:
            ink = images[:, blank.to(images.device)].mean(1)  # nan without such pixels
        parts.append((labels.cpu(), named.cpu(), features.cpu(), ink.cpu(), kept.cpu()))
        start += len(images)
    return Seen(*map(torch.cat, zip(*parts, strict=True)))


def nearest_picture(queries: Tensor, train: Pictures | PictureFolder) -> Nearest:
    """The nearest training picture of each uint8 picture; distances over pixels in [0, 1]."""
    flat = queries.flatten(1).float() / 255
    best: Nearest | None = None
    for indices in torch.arange(len(train)).split(chunk_of(train)):
        here = nearest(flat, train.take(indices).flatten(1).float() / 255)
        here = Nearest(here.distance, indices[here.index])
        if best is None:
            best = here
        nearer = here.distance < best.distance
        best = Nearest(
            torch.where(nearer, here.distance, best.distance),
            torch.where(nearer, here.index, best.index),
        )
    assert best is not None, "a generator has learned from something"
    return best


def never_inked(train: Pictures | PictureFolder) -> Tensor:
    """Mask (C, H, W) of the pixels that are 0 in every training picture."""
    brightest = torch.zeros(train.image_shape, dtype=torch.uint8)
    for indices in torch.arange(len(train)).split(chunk_of(train)):
        brightest = torch.maximum(brightest, train.take(indices).amax(0))
    return brightest == 0
