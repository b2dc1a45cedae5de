"""The real images that generators are compared with, and the metrics of real images themselves.

There are three sets: the generated images; ``held_out``, real images that neither generator nor
judge was trained on; and ``real``, a sample of training images with the same number per class as
the generated images (fewer if a class is small). The metrics of ``real`` against ``held_out`` are
the reference values, computed once for all generators. FID and similar metrics depend on the number
of images, so no more generated images are compared than there are in ``real``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from cgan.data import ImageDataset, ImageFolder, Split
from cgan.evaluation.control import Control
from cgan.evaluation.distances import (
    NEIGHBOURS,
    Manifold,
    Moments,
    diversity_ratio,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    moments,
)
from cgan.evaluation.feature_set import (
    FeatureSet,
    Labelled,
    background_mask,
    evenly_spaced,
    extract_features,
    nearest_image,
    read_images,
    sample_per_class,
)
from cgan.evaluation.features import find_features
from cgan.evaluation.judge import Judge

Load = Callable[[Split], ImageDataset | ImageFolder]

MEMORIZATION_QUERIES = 2_000
"""Number of images whose nearest training image is searched."""

MAX_PAIRWISE = 10_000
"""Maximum number of images in metrics of all pairs (KID, precision, recall, …)."""


class Reference:
    """Real images with the predictions of one judge and the features of one network.

    Args:
        judge: a classifier of the data.
        load: returns the split ``"train"`` or ``"test"`` of the data.
        description: what the split ``"test"`` is, as text.
        per_class: images of each class that generators will draw.
        features: ``"judge"``, or ``"inception"`` if its weights are available.
        device: the device of the feature network.

    Raises:
        MeasureError: the features are not available.
    """

    def __init__(
        self,
        judge: Judge,
        load: Load,
        *,
        description: str = "",
        per_class: int = 1_000,
        features: str = "judge",
        device: torch.device | str = "cpu",
    ) -> None:
        self.judge, self.per_class, self.description = judge, per_class, description
        self.train, self.test = load("train"), load("test")
        self.network = find_features(features, judge, device)
        self.background = background_mask(self.train)
        chosen = sample_per_class(self.train, per_class)
        self.real = self.extract(read_images(self.train, chosen), len(chosen))
        everything = torch.arange(len(self.test))
        self.held_out = self.extract(read_images(self.test, everything), len(everything))

    def extract(self, batches: Iterable[Labelled], count: int) -> FeatureSet:
        """Predictions and features of ``count`` images; keeps some images for memorization."""
        keep = evenly_spaced(count, MEMORIZATION_QUERIES)
        return extract_features(batches, self.judge, self.network, self.background, keep)

    @property
    def labels(self) -> range:
        """All class indices."""
        return range(len(self.train.classes))

    @cached_property
    def control(self) -> Control | None:
        """The judge's predictions for held-out images; None if there are none."""
        held_out = self.held_out
        return Control.of(self.judge, held_out.target, held_out.predicted) if held_out else None

    @cached_property
    def moments(self) -> Moments | None:
        """Moments of held-out images; None if there are too few."""
        return moments_of(self.held_out.features)

    @cached_property
    def class_moments(self) -> list[Moments | None]:
        """Moments of held-out images by class."""
        return [moments_of(self.held_out.of_class(label)) for label in self.labels]

    @cached_property
    def fid(self) -> float | None:
        """FID of real images."""
        return self.fid_of(self.real)

    @cached_property
    def class_fids(self) -> list[float | None]:
        """Intra-class FID of real images."""
        return [self.fid_of(self.real, label) for label in self.labels]

    @cached_property
    def chance_fids(self) -> list[float | None]:
        """Intra-class FID if real images of all classes are drawn for each class (chance)."""
        everything = moments_of(self.real.features)
        return [
            frechet_distance(here, everything) if here and everything else None
            for here in self.class_moments
        ]

    @cached_property
    def kid(self) -> float | None:
        """KID of real images."""
        return self.kid_of(self.real)

    @cached_property
    def manifold(self) -> Manifold | None:
        """Precision, recall, density and coverage of real images."""
        return self.manifold_of(self.real)

    @cached_property
    def diversity(self) -> list[float | None]:
        """Spread of each class of held-out images relative to training images."""
        return [self.diversity_of(self.held_out, label) for label in self.labels]

    @cached_property
    def nearest_distance(self) -> Tensor:
        """Distance of held-out images to their nearest training images."""
        return nearest_image(self.held_out.images, self.train).distance

    def matched(self, found: FeatureSet, label: int | None = None) -> Tensor:
        """The first features of each class (or of one), at most as many as ``real`` has."""
        labels = self.labels if label is None else [label]
        return torch.cat([found.of_class(k)[: len(self.real.of_class(k))] for k in labels])

    def fid_of(self, found: FeatureSet, label: int | None = None) -> float | None:
        """FID against held-out images, of all classes or of one; None if there are too few."""
        against = self.moments if label is None else self.class_moments[label]
        own = moments_of(self.matched(found, label))
        return None if against is None or own is None else frechet_distance(against, own)

    def kid_of(self, found: FeatureSet) -> float | None:
        """KID against held-out images; None if there are too few."""
        own, held_out = subsample(self.matched(found)), subsample(self.held_out.features)
        return kernel_distance(held_out, own) if min(len(own), len(held_out)) >= 2 else None

    def manifold_of(self, found: FeatureSet) -> Manifold | None:
        """Precision, recall, density and coverage; None if there are too few images."""
        own, held_out = subsample(self.matched(found)), subsample(self.held_out.features)
        enough = min(len(own), len(held_out)) > NEIGHBOURS
        return manifold_scores(held_out, own) if enough else None

    def diversity_of(self, found: FeatureSet, label: int) -> float | None:
        """Spread of a class relative to its training images; None if it is undefined."""
        real, own = self.real.of_class(label), found.of_class(label)
        if min(len(real), len(own)) < 2:
            return None
        ratio = diversity_ratio(real, own)
        return ratio if isfinite(ratio) else None


def subsample(features: Tensor) -> Tensor:
    """At most ``MAX_PAIRWISE`` rows, evenly spaced."""
    return features[evenly_spaced(len(features), MAX_PAIRWISE)]


def moments_of(features: Tensor) -> Moments | None:
    """Mean and covariance; None if there are too few rows for a covariance of full rank."""
    return moments(features) if len(features) > features.shape[1] else None
