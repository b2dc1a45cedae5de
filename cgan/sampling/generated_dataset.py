"""Generated images as a data set of torch, and as a generator for torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cgan.errors import ConfigError, UnconditionalError
from cgan.sampling.latents import draw_latents
from cgan.sampling.request import Request
from cgan.sampling.sampler import ImageClassifier, Sampler

UNCONDITIONAL = -1
"""The label of images of a plain GAN."""


class SoftClassifier(ImageClassifier, Protocol):
    """Anything that also has soft labels, such as ``cgan.evaluation.judge.Judges``."""

    def soft_labels(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] and labels (B,) to probabilities (B, classes)."""
        ...


class GeneratedDataset(Dataset[tuple[Tensor, int | Tensor]]):
    """Labelled images that are drawn when they are read, for ``torch.utils.data.DataLoader``.

    Image i is a function of generator, seed, i and judges alone, so the order, the batch size and
    the number of workers do not change it. A ``DataLoader`` reads a batch in one call.

    Args:
        sampler: the generator.
        count: number of images.
        balanced: image i has the class i mod K of K classes. Otherwise each class is drawn
            uniformly at random, so their frequencies vary.
        seed: seed of the first image; image i has ``seed + i``.
        judges: classifiers of the real images (``cgan.evaluation.api.find_judges``). An image that
            they assign to another class is drawn again, with the next z of its seed.

    An item is an image, float32 (C, H, W) in [0, 1], and its class index, −1 for a plain GAN; with
    judges its soft label, float32 (classes,): half its class, half what the judges say.

    Raises:
        ConfigError: ``count`` or ``seed`` is out of range.
        UnconditionalError: judges of a plain GAN.
    """

    def __init__(
        self,
        sampler: Sampler,
        count: int,
        balanced: bool = True,
        seed: int = 0,
        judges: SoftClassifier | None = None,
    ) -> None:
        if count < 1:
            raise ConfigError(f"a data set has at least one image, not {count}")
        if not 0 <= seed <= 2**63 - 1 - count:
            raise ConfigError(f"a seed is a whole number from 0 to 2^63 - 1 - count, not {seed}")
        if judges is not None and not sampler.conditional:
            raise UnconditionalError("a plain GAN takes no class, so there is nothing to judge")
        self.sampler, self.count, self.balanced, self.seed = sampler, count, balanced, seed
        self.judges = judges

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int | Tensor]]:
        if not indices:
            return []
        labels, seeds = zip(*(self._plan(index) for index in indices), strict=True)
        request = Request(labels if self.sampler.conditional else None, seeds)
        if self.judges is None:
            batches = [images.cpu() for images, _ in self.sampler.batches(request)]
            return list(zip(torch.cat(batches), labels, strict=True))
        found: list[tuple[Tensor, int | Tensor]] = []
        for images, own in self.sampler.batches(request, self.judges):
            assert own is not None
            targets = self.judges.soft_labels(images, own).cpu()
            found += zip(images.cpu(), targets, strict=True)
        return found

    def _plan(self, index: int) -> tuple[int, int]:
        """The class and the seed of an image."""
        if not -self.count <= index < self.count:
            raise IndexError(f"image {index} of {self.count}")
        index %= self.count
        if not self.sampler.conditional:
            return UNCONDITIONAL, self.seed + index
        classes = len(self.sampler.classes)
        if self.balanced:
            return index % classes, self.seed + index
        drawn = np.random.default_rng([self.seed, index]).integers(classes)
        return int(drawn), self.seed + index


class TorchmetricsGenerator(nn.Module):
    """A sampler with the interface that torchmetrics' ``PerceptualPathLength`` expects.

    Args:
        sampler: the generator.
        seed: seed of the first latent vector; each call of ``sample`` continues.
    """

    def __init__(self, sampler: Sampler, seed: int = 0) -> None:
        super().__init__()
        self.generator, self.sampler, self.next_seed = sampler.generator, sampler, seed

    def train(self, mode: bool = True) -> TorchmetricsGenerator:
        """Do nothing: the sampler's generator stays in evaluation mode."""
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.sampler.classes)

    def sample(self, num_samples: int) -> Tensor:
        """Latent vectors (num_samples, latent_dim)."""
        seeds = range(self.next_seed, self.next_seed + num_samples)
        self.next_seed += num_samples
        return torch.from_numpy(draw_latents(seeds, self.sampler.latent_dim))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) in [0, 255]; grey ones get three equal channels."""
        images: Any = 255 * self.sampler.generate(z, labels).to(z.device)
        return images.expand(-1, 3, -1, -1)  # type: ignore[no-any-return]
