"""Training sets of real and generated images, for ``cgan.evaluation.augment_test``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from cgan.data import ImageDataset, ImageFolder, Loader
from cgan.errors import MeasureError
from cgan.evaluation.api import find_judge_of
from cgan.sampling.rejection import RejectionSampler
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels

FACTORS = (1, 5)
"""Generated images per real image."""
MAX_DRAWN, MAX_BYTES = 100_000, 2**30
"""Generated images of one kind, and the bytes they take in memory, at most."""
MAX_SETS = 3 + 2 * len(FACTORS)
"""Training sets that ``make_training_sets`` makes, at most."""


@dataclass(frozen=True)
class TrainingSet:
    """Real and generated images, and how they are shown to a classifier.

    Attributes:
        name: its name in the report.
        real_share: share of real images in each batch.
        drawn: the generated images; None if there are none.
        augmented: whether images are shifted and, if they are photographs, mirrored.
    """

    name: str
    real_share: float
    drawn: ImageDataset | None = None
    augmented: bool = True

    def batches(
        self, real: ImageDataset | ImageFolder, batch: int, device: torch.device, seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless batches: images in [-1, 1], (batch, C, H, W), and labels.

        Every class occurs equally often, among the real and among the generated images.
        """
        count = round(batch * self.real_share)
        loaders = [
            Loader(dataset, size, device, seed=seed, balanced=True).batches()
            for dataset, size in ((real, count), (self.drawn, batch - count))
            if dataset is not None and size
        ]
        while True:
            images, labels = zip(*(next(loader) for loader in loaders), strict=True)
            yield torch.cat(images), torch.cat(labels)


def make_training_sets(
    sampler: Sampler,
    train: ImageDataset | ImageFolder,
    data: str | None = None,
    data_dir: str | Path | None = None,
) -> tuple[list[TrainingSet], list[str]]:
    """The training sets, and the reasons for those that cannot be made."""
    plain = draw_dataset(sampler, len(train))
    sets = [TrainingSet("real, not augmented", 1.0, augmented=False), TrainingSet("real", 1.0)]
    sets += _mixed(train, plain, "generated")
    left_out = []
    try:
        verify = RejectionSampler(find_judge_of(sampler, data, data_dir))
        verified = draw_dataset(sampler, len(train), verify)
    except MeasureError as error:
        left_out.append(f"verified images: {error}")
    else:
        sets += _mixed(train, verified, "verified")
    alone = f"{len(plain) / len(train):.2g}× generated alone"
    return [*sets, TrainingSet(alone, 0.0, plain)], left_out


def _mixed(train: ImageDataset | ImageFolder, drawn: ImageDataset, what: str) -> list[TrainingSet]:
    """Real images with ``FACTORS`` times as many generated ones, or with all of them."""
    sets = []
    for count in sorted({min(factor * len(train), len(drawn)) for factor in FACTORS}):
        chosen = ImageDataset(drawn.name, drawn.images[:count], drawn.labels[:count], drawn.classes)
        name = f"real + {count / len(train):.2g}× {what}"
        sets.append(TrainingSet(name, len(train) / (len(train) + count), chosen))
    return sets


def draw_dataset(
    sampler: Sampler, real_images: int, verify: RejectionSampler | None = None
) -> ImageDataset:
    """As many images of each class, in all ``FACTORS[-1]`` times as many as there are real ones.

    There are at most ``MAX_DRAWN``, and at most ``MAX_BYTES``.

    They are in the order of their seeds, so that the first ones have all classes.
    """
    classes = len(sampler.classes)
    limit = min(MAX_DRAWN, MAX_BYTES // prod(sampler.image_shape))
    total = min(FACTORS[-1] * real_images, limit)
    request = sampler.request(None, -(-total // classes), 0)
    drawn = [to_pixels(images).cpu() for images, _ in sampler.batches(request, verify)]
    images = torch.cat(drawn).unflatten(0, (classes, -1)).transpose(0, 1).flatten(0, 1)
    labels = torch.arange(classes).repeat(len(images) // classes)
    return ImageDataset("generated", images.contiguous(), labels, sampler.classes)
