"""The real images that generators are compared with, and the metrics of real images themselves.

There are three sets: the generated images; ``held_out``, real images that neither generator nor
judge was trained on; and ``real``, other real images, with at most as many images per class as are
generated. The metrics of ``real`` against ``held_out`` are the reference values, computed once for
all generators. In a report ``held_out`` are the test images and ``real`` the validation images: the
judge's features of its own training images differ from those of new images.

FID and similar metrics depend on the number of images and on the label proportions. So they compare
subsets of the generated images and of ``real`` with the same number of images of each class, in the
label proportions of the held-out images (``matched_counts``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from cgan.attributes import sort_for_display
from cgan.augment import shows_photographs
from cgan.console import printable
from cgan.data import ImageDataset, ImageFolder, Joined
from cgan.errors import ConfigError, UnknownNameError, first_few
from cgan.evaluation.artifacts import PixelStatistics, Spot, pixel_statistics, worst_spot
from cgan.evaluation.control import Control
from cgan.evaluation.distances import (
    NEIGHBOURS,
    Manifold,
    Moments,
    Nearest,
    copied_share,
    diversity_ratio,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    matched_counts,
    moments,
)
from cgan.evaluation.features import (
    FeatureSet,
    Readers,
    background_mask,
    draw_by_class,
    evenly_spaced,
    extract_features,
    extract_real_features,
    find_features,
    first_of_each_class,
    images_per_chunk,
    nearest_image,
    requested_labels,
    sample_per_class,
)
from cgan.evaluation.judge import Judge
from cgan.evaluation.report import Figure, Report, format_value
from cgan.sampling.sampler import Sampler

SHORT_NAMES = {
    "control": "control_accuracy",
    "worst_class": "control_accuracy_worst_class",
    "diversity": "diversity_least",
    "copies": "copied_share",
}
LOWER_IS_BETTER = (
    "fid", "kid", "intra_fid_mean", "intra_fid_worst", "background_ink", "copied_share",
    "spots_at_one_place", "spots_per_image", "spectrum",
)  # fmt: skip
HIGHER_IS_BETTER = (
    "control_accuracy", "control_relative", "control_accuracy_worst_class",
    "control_accuracy_second_judge", "control_relative_second_judge", "judge_agreement",
    "precision", "recall", "density", "coverage", "diversity_least", "nearest_training_picture",
    "cas",
)  # fmt: skip
PREFIXES = ("control_accuracy_", "recall_truncation_")
"""Of figures whose names depend on the generator or the options."""
MEMORIZATION_QUERIES = 2_000
"""Number of images whose nearest training image is searched."""
MIN_COPY_IMAGES = 20
"""Held-out images that ``copied_share`` needs. With n of them, a fifth of the images of a perfect
generator are closer than all of them with a probability of 0.8ⁿ: 1 % for 20."""
PER_CLASS, MAX_DRAWN = 1_000, 50_000
"""Images that an evaluation draws: of each class, and in all unless the caller says otherwise. A
pretrained reader takes some eight minutes for the latter."""
SPREAD_IMAGES, MAX_SPREAD_IMAGES = 200, 20_000
"""Training images whose spread generated images are compared with: of each class, and in all."""
PIXEL_IMAGES = 5_000
"""Training images whose pixels are compared, at most."""
MAX_PAIRWISE = 10_000
"""Maximum number of images in metrics of all pairs (KID, precision, recall, …)."""


class Check(NamedTuple):
    """A figure and its limit.

    Attributes:
        key: name of the figure.
        title: its name in tables.
        value: what was measured; None if it could not be.
        limit: the worst value that passes.
        passed: whether the figure is no worse than the limit.
        share: whether it is shown in %.
    """

    key: str
    title: str
    value: float | None
    limit: float
    passed: bool
    share: bool

    @property
    def sentence(self) -> str:
        """The result in words."""
        worst = "at most" if self.key in LOWER_IS_BETTER else "at least"
        wanted = f"{worst} {format_value(self.limit, self.share)}"
        title = printable(self.title)  # it may hold the name of a class
        if self.value is None:
            return f"{title} was not measured; required: {wanted}"
        return f"{title} is {format_value(self.value, self.share)}; required: {wanted}"


def parse_limits(texts: list[str]) -> dict[str, float]:
    """Limits like ``control=0.99`` by the name of their figure.

    Raises:
        ConfigError: a text is not NAME=NUMBER.
        UnknownNameError: no report has such a figure.
    """
    limits = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not name or not math.isfinite(limit):
            raise ConfigError(f"--fail-under takes NAME=NUMBER, like control=0.99, not {text!r}")
        key = SHORT_NAMES.get(name, name)
        known = (*LOWER_IS_BETTER, *HIGHER_IS_BETTER)
        if key not in known and not key.startswith(PREFIXES):
            raise UnknownNameError("figure", name, [*SHORT_NAMES, *known])
        limits[key] = limit
    return limits


def check_limits(report: Report, limits: Mapping[str, float]) -> list[Check]:
    """Compare the figures of a report with limits.

    A figure that was not measured does not pass.
    """
    figures = {figure.key: figure for figure in report.figures}
    checks = []
    for key, limit in limits.items():
        figure = figures.get(key, Figure(key, key, None))
        value = figure.value
        if value is None or not math.isfinite(value):
            value, passed = None, False
        else:
            passed = value <= limit if key in LOWER_IS_BETTER else value >= limit
        checks.append(Check(key, figure.title, value, limit, passed, figure.share))
    return checks


def images_per_class(classes: int, wanted: int = PER_CLASS) -> int:
    """As many as wanted, or fewer of many classes."""
    return max(min(wanted, MAX_DRAWN // classes), 1)


class Reference:
    """Real images with the predictions of the judges and the features of one network.

    Args:
        judge: a classifier of the data.
        train: the training images.
        held_out: the split ``"validation"`` or ``"test"``.
        real: the other real images; the training images take their place if it is None, as in looks
            during training, or lacks a class of the held-out images.
        per_class: images of each class that generators will draw.
        features: ``"judge"``, ``"pretrained"``, or ``"inception"`` if its weights are available.
        device: the device of the feature network.
        second_judge: another classifier of the data, with another architecture.
        unlabelled: training images without a class; generated ones may be copies of them, too.

    Attributes:
        trained_on: all training images.
        notes: what differs from the description above.

    Raises:
        MeasureError: the features are not available.
    """

    def __init__(
        self,
        judge: Judge,
        train: ImageDataset | ImageFolder,
        held_out: ImageDataset | ImageFolder,
        real: ImageDataset | ImageFolder | None = None,
        *,
        per_class: int = 1_000,
        features: str = "judge",
        device: torch.device | str = "cpu",
        second_judge: Judge | None = None,
        unlabelled: ImageDataset | ImageFolder | None = None,
    ) -> None:
        self.judge, self.second_judge, self.per_class = judge, second_judge, per_class
        self.train, self.held_out_data = train, held_out
        self.trained_on = train if unlabelled is None else Joined(train, unlabelled)
        self.notes: list[str] = []
        self.network = find_features(features, judge, device)
        self.background = background_mask(train)
        self.readers = Readers(judge, self.network, self.background, second_judge)
        classes = len(train.classes)
        lacking = set(held_out.labels.tolist())
        lacking -= set(() if real is None else real.labels.tolist())
        if real is not None and lacking:
            names = first_few(sort_for_display([train.classes[label] for label in lacking]))
            self.notes.append(
                "validation images, because none shows "
                f"{names}: the figures of real images are those of training images"
            )
            real = None
        spread = min(SPREAD_IMAGES, max(MAX_SPREAD_IMAGES // classes, 2))
        self.trained = self._sample(train, per_class if real is None else spread)
        self.real = self.trained if real is None else self._sample(real, per_class)
        self.counts = matched_counts(
            self.real.target.bincount(minlength=classes),
            held_out.labels.bincount(minlength=classes),
        )
        each = held_out.labels.bincount(minlength=classes)
        self.query_counts = matched_counts(torch.full_like(each, per_class), each)
        everything = torch.arange(len(held_out))
        keep = evenly_spaced(everything, MEMORIZATION_QUERIES)
        self.held_out = extract_real_features(held_out, everything, self.readers, keep)

    def draw(self, sampler: Sampler, seed: int = 0, truncation: float = 1.0) -> FeatureSet:
        """Draw ``per_class`` images of each class, from this seed on, and extract their features.

        The images for the memorization metrics are kept, in the label proportions of the held-out
        images.
        """
        target = requested_labels(len(sampler.classes), self.per_class)
        matched = first_of_each_class(target, self.query_counts)
        keep = evenly_spaced(matched, MEMORIZATION_QUERIES)
        batches = draw_by_class(sampler, self.per_class, seed, truncation)
        return extract_features(batches, len(target), self.readers, keep)

    def _sample(self, dataset: ImageDataset | ImageFolder, per_class: int) -> FeatureSet:
        """Up to ``per_class`` images of each class."""
        return extract_real_features(dataset, sample_per_class(dataset, per_class), self.readers)

    @property
    def labels(self) -> range:
        """All class indices."""
        return range(len(self.train.classes))

    @cached_property
    def control(self) -> Control | None:
        """The judge's predictions for held-out images; None if there are none."""
        held_out = self.held_out
        return self._control(held_out, True) if held_out else None

    def control_of(self, found: FeatureSet, conditional: bool = True) -> Control:
        """Control of a set of images, with the judge's accuracy on the held-out images."""
        return replace(
            self._control(found, conditional),
            judge_accuracy=self.control.balanced_accuracy if self.control else None,
            judge_pictures=len(self.held_out),
            judge_trials=self.control.effective_trials if self.control else 0,
        )

    def second_control_of(self, found: FeatureSet, conditional: bool = True) -> Control:
        """The same with the second judge."""
        judge, held_out = self.second_judge, self.held_out
        assert judge is not None
        control = Control.of(judge, found.target, found.second_predicted, conditional)
        if not len(held_out):
            return replace(control, judge_accuracy=None, judge_pictures=0)
        real = Control.of(judge, held_out.target, held_out.second_predicted)
        return replace(
            control,
            judge_accuracy=real.balanced_accuracy,
            judge_pictures=len(held_out),
            judge_trials=real.effective_trials,
        )

    def _control(self, found: FeatureSet, conditional: bool) -> Control:
        attributes = self.train.num_attributes
        return Control.of(self.judge, found.target, found.predicted, conditional, attributes)

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
        everything, found = self.matched(self.real), []
        for label, here in enumerate(self.class_moments):
            # As many as of the class: FID is higher of few images.
            mixed = moments_of(evenly_spaced(everything, len(self.matched(self.real, label))))
            found.append(frechet_distance(here, mixed) if here and mixed else None)
        return found

    @cached_property
    def kid(self) -> float | None:
        """KID of real images."""
        return self.kid_of(self.real)

    @cached_property
    def class_kids(self) -> list[float | None]:
        """Intra-class KID of real images."""
        return [self.kid_of(self.real, label) for label in self.labels]

    @cached_property
    def class_coverages(self) -> list[float | None]:
        """Coverage of each class by real images."""
        return [self.coverage_of(self.real, label) for label in self.labels]

    @cached_property
    def manifold(self) -> Manifold | None:
        """Precision, recall, density and coverage of real images."""
        return self.manifold_of(self.real)

    @cached_property
    def diversity(self) -> list[float | None]:
        """Spread of each class of held-out images relative to training images."""
        return [self.diversity_of(self.held_out, label) for label in self.labels]

    @cached_property
    def pixels(self) -> PixelStatistics:
        """Spots, spectrum, mean and deviation of training images."""
        chosen = evenly_spaced(torch.arange(len(self.train)), PIXEL_IMAGES)
        return pixel_statistics(
            self.train.take(part) for part in chosen.split(images_per_chunk(self.train))
        )

    @cached_property
    def held_out_pixels(self) -> PixelStatistics | None:
        """The same of held-out images; None if there are none."""
        return self.pixels_of(self.held_out.images)

    def pixels_of(self, images: Tensor) -> PixelStatistics | None:
        """The same of images, uint8 (N, C, H, W); None if there are none."""
        parts = images.split(images_per_chunk(self.train))
        return pixel_statistics(parts) if len(images) else None

    def worst_spot(self, drawn: PixelStatistics | None) -> Spot | None:
        """Where isolated spots exceed those of training images most."""
        return None if drawn is None else worst_spot(drawn, self.pixels)

    @cached_property
    def nearest_distance(self) -> Tensor:
        """Distance of held-out images to their nearest training images."""
        return self.nearest(self.held_out.images).distance

    def nearest(self, images: Tensor) -> Nearest:
        """The nearest training image of each image; of photographs, mirrored ones count too."""
        mirrored = shows_photographs(
            self.train.classes, self.train.image_shape, self.train.num_attributes
        )
        return nearest_image(images, self.trained_on, mirrored)

    def copied_share(self, images: Tensor) -> float | None:
        """``distances.copied_share`` of images; None if too few are held out to tell."""
        if len(self.held_out_data) < MIN_COPY_IMAGES:
            return None
        return copied_share(self.nearest(images).distance, self.nearest_distance)

    def matched(self, found: FeatureSet, label: int | None = None) -> Tensor:
        """The features to compare: of all classes in the held-out proportions, or of one class.

        There are as many for the generated images as for ``real``.
        """
        if label is not None:
            return found.of_class(label)[: len(self.real.of_class(label))]
        return found.features[first_of_each_class(found.target, self.counts)]

    def fid_of(self, found: FeatureSet, label: int | None = None) -> float | None:
        """FID against held-out images, of all classes or of one; None if there are too few."""
        against = self.moments if label is None else self.class_moments[label]
        own = moments_of(self.matched(found, label))
        return None if against is None or own is None else frechet_distance(against, own)

    def kid_of(self, found: FeatureSet, label: int | None = None) -> float | None:
        """KID against held-out images, of all classes or of one; None if there are too few."""
        if label is not None:
            own, held_out = subsample(self.matched(found, label)), self.held_out.of_class(label)
            few = min(len(own), len(held_out)) < 2
            return None if few else kernel_distance(subsample(held_out), own)
        matched = first_of_each_class(found.target, self.counts)
        own, labels = subsample(found.features[matched]), subsample(found.target[matched])
        held_out, their_labels = subsample(self.held_out.features), subsample(self.held_out.target)
        if min(len(own), len(held_out)) < 2:
            return None
        return kernel_distance(held_out, own, their_labels, labels)

    def manifold_of(self, found: FeatureSet, label: int | None = None) -> Manifold | None:
        """Precision, recall, density and coverage, of all classes or of one; None if there are too
        few images.

        Both sets are subsampled to the same size: the more images one has, the more of the other it
        covers.
        """
        own, held_out = self.matched(found, label), self.held_out.features
        if label is not None:
            held_out = self.held_out.of_class(label)
        size = min(len(own), len(held_out), MAX_PAIRWISE)
        if size <= NEIGHBOURS:
            return None
        return manifold_scores(evenly_spaced(held_out, size), evenly_spaced(own, size))

    def coverage_of(self, found: FeatureSet, label: int) -> float | None:
        """Share of held-out images of a class that have a generated neighbour."""
        manifold = self.manifold_of(found, label)
        return None if manifold is None else manifold.coverage

    def diversity_of(self, found: FeatureSet, label: int) -> float | None:
        """Spread of a class relative to its training images; None if it is undefined.

        Only images that the judge gives to the class count, generated and real ones: a few images
        of other classes would hide that all others are the same.
        """
        real, own = self.trained.recognised(label), found.recognised(label)
        if min(len(real), len(own)) < 2:
            return None
        ratio = diversity_ratio(real, own)
        return ratio if isfinite(ratio) else None


def subsample(features: Tensor) -> Tensor:
    """At most ``MAX_PAIRWISE`` rows, evenly spaced."""
    return evenly_spaced(features, MAX_PAIRWISE)


def moments_of(features: Tensor) -> Moments | None:
    """Mean and covariance; None if there are too few rows for a covariance of full rank."""
    return moments(features) if len(features) > features.shape[1] else None
