"""Class control: how often a generator draws the requested class, according to the judge.

Control accuracy is the GAN-test of Shmelkov et al. 2018, "How good is my GAN?": a classifier
trained on real images, tested on generated ones. Its counterpart, the GAN-train, is the CAS.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isnan
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cgan.attributes import attribute_values, display_order, split_classes
from cgan.errors import MeasureError, quote
from cgan.evaluation.distances import (
    Interval,
    expected_minimum,
    minimum_interval,
    ratio_interval,
    wilson_interval,
)
from cgan.evaluation.features import draw_by_class
from cgan.evaluation.judge import Judge
from cgan.runtime.device import torch_defaults
from cgan.sampling.sampler import Sampler

IGNORES_LABEL = 0.15
"""A generator ignores its label if (accuracy − chance) / (1 − chance) is below this value."""


class AttributeControl(NamedTuple):
    """The control of one of several attributes.

    Attributes:
        values: its values.
        accuracy: how often the requested value is drawn, in [0, 1].
        chance: the accuracy of a generator that ignores its label.
    """

    values: tuple[str, ...]
    accuracy: float
    chance: float


@dataclass(frozen=True)
class Control:
    """The measured class control of one generator.

    Attributes:
        classes: the class names.
        confusion: int64, (K, K): row requested, column predicted by the judge.
        conditional: False for an unconditional GAN, whose images are assigned to classes in turn.
        judge_accuracy: accuracy of the judge on real test images, the mean over the classes,
            because as many images of each class are generated. A generator can exceed it.
        judge_pictures: the number of those images.
        judge: the name of the judge, with the start of its digest.
        judge_digest: SHA-256 of the judge's weights, in hexadecimal.
        num_attributes: how many attributes a class combines.
        judge_trials: the independent trials that ``judge_accuracy`` is worth, as a mean over
            classes of different sizes; 0 means as many as there are images.
    """

    classes: tuple[str, ...]
    confusion: Tensor
    conditional: bool
    judge_accuracy: float | None
    judge_pictures: int
    judge: str = ""
    judge_digest: str = ""
    num_attributes: int = 1
    judge_trials: int = 0

    def for_display(self) -> Control:
        """The same with rows and columns in the order in which people see classes."""
        order = display_order(self.classes)
        classes = tuple(self.classes[index] for index in order)
        return replace(self, classes=classes, confusion=self.confusion[order][:, order])

    @property
    def accuracy(self) -> float:
        """Fraction of images that show the requested class, in [0, 1]."""
        return float(self.confusion.diagonal().sum()) / float(self.confusion.sum())

    @property
    def balanced_accuracy(self) -> float:
        """The accuracy, averaged over the classes that have images.

        It equals ``accuracy`` if all classes have the same number of images.
        """
        shares = [share for share in self.per_class.values() if not isnan(share)]
        return sum(shares) / len(shares)

    @property
    def effective_trials(self) -> int:
        """The trials of one proportion p that is as uncertain as ``balanced_accuracy``.

        A mean over classes is as uncertain as its smallest and hardest ones make it:
        p (1 − p) K² / Σ p_k (1 − p_k) / n_k, where half an image more of each class is right, and
        half wrong (Jeffreys). They are at most those of equally hard classes, K² / Σ 1 / n_k,
        because few images do not show that their class is easy.
        """
        correct, counts = self.confusion.diagonal().double(), self.confusion.sum(1).double()
        correct, counts = correct[counts > 0], counts[counts > 0]
        if not len(counts):
            return 0
        shares = (correct + 0.5) / (counts + 1)
        mean, sums = shares.mean(), (shares * (1 - shares) / counts).sum()
        trials = torch.minimum(mean * (1 - mean) / sums, 1 / (1 / counts).sum())
        return round(float(trials * len(counts) ** 2))

    @property
    def chance(self) -> float:
        """The accuracy of a generator that ignores its label."""
        return 1 / len(self.classes)

    @property
    def worst_class_chance(self) -> float:
        """The expected accuracy of the worst class of a generator that ignores its label."""
        per_class = int(self.confusion.sum(1).max())
        return expected_minimum(len(self.classes), per_class, self.chance)

    @property
    def per_class(self) -> dict[str, float]:
        """Accuracy by class; NaN for a class without images."""
        shares = self.confusion.diagonal().double() / self.confusion.sum(1)
        return dict(zip(self.classes, shares.tolist(), strict=True))

    @property
    def worst(self) -> str:
        """The class with the lowest accuracy."""
        shares = {name: share for name, share in self.per_class.items() if not isnan(share)}
        return min(shares, key=lambda name: shares[name])

    @property
    def per_attribute(self) -> list[AttributeControl]:
        """Where classes combine attributes: how often the value of each one is right.

        An image counts as right if the predicted class has the same value. The accuracy is the mean
        over the classes that have images.
        """
        rows = split_classes(self.classes, self.num_attributes) or []
        has_images = self.confusion.sum(1) > 0
        shares = self.confusion[has_images].double()
        shares /= shares.sum(1, keepdim=True)
        found = []
        for index, values in enumerate(attribute_values(rows)):
            number = torch.tensor([values.index(row[index]) for row in rows])
            same = (number[has_images].unsqueeze(1) == number).double()
            accuracy = float((shares * same).sum(1).mean())
            found.append(AttributeControl(values, accuracy, float(same.mean())))
        return found

    @property
    def ignores_label(self) -> bool:
        """Whether a conditional generator is hardly better than chance."""
        limit = self.chance + IGNORES_LABEL * (1 - self.chance)
        return self.conditional and self.interval.high < limit

    @property
    def interval(self) -> Interval:
        """95 % confidence interval of the accuracy (sampling error only)."""
        return wilson_interval(int(self.confusion.diagonal().sum()), int(self.confusion.sum()))

    @property
    def worst_interval(self) -> Interval:
        """An interval that holds the accuracy of the worst class with at least 95 % confidence."""
        correct, drawn = self.confusion.diagonal(), self.confusion.sum(1)
        return minimum_interval(correct[drawn > 0].tolist(), drawn[drawn > 0].tolist())

    @property
    def relative(self) -> float | None:
        """The accuracy divided by the judge's on real images; None if that is not known or 0.

        A judge that reads real images wrongly reads drawn ones wrongly too. 1 means that drawn
        images are read as often as real ones; above 1, that they are easier than real ones, as
        those of a generator without variety are.
        """
        return self.accuracy / self.judge_accuracy if self.judge_accuracy else None

    @property
    def relative_interval(self) -> Interval | None:
        """95 % confidence interval of ``relative``, with the uncertainty of both accuracies."""
        real = self.judge_trials or self.judge_pictures
        if self.judge_accuracy is None or round(self.judge_accuracy * real) < 1:
            return None
        drawn = int(self.confusion.sum())
        return ratio_interval(self.accuracy, drawn, self.judge_accuracy, real)

    @property
    def intervals(self) -> list[Interval]:
        """The same interval by class."""
        correct, drawn = self.confusion.diagonal().tolist(), self.confusion.sum(1).tolist()
        return [wilson_interval(r, max(n, 1)) for r, n in zip(correct, drawn, strict=True)]

    @classmethod
    def of(
        cls,
        judge: Judge,
        target: Tensor,
        predicted: Tensor,
        conditional: bool = True,
        num_attributes: int = 1,
    ) -> Control:
        """Build it from requested and predicted classes, int64 (N,) each."""
        return cls(
            judge.classes,
            confusion_matrix(target, predicted, len(judge.classes)),
            conditional,
            judge.header.held_out_accuracy,
            judge.header.held_out_pictures,
            judge.name,
            judge.weights_digest,
            num_attributes,
        )

    def to_dict(self, with_confusion: bool = True) -> dict[str, Any]:
        """All figures as JSON."""
        confusion = {"confusion": self.confusion.tolist()} if with_confusion else {}
        attributes = [one._asdict() for one in self.per_attribute]
        return {
            "control_accuracy": self.accuracy,
            "interval": list(self.interval),
            "chance": self.chance,
            "conditional": self.conditional,
            "pictures": int(self.confusion.sum()),
            "judge": self.judge_digest,
            "judge_accuracy": self.judge_accuracy,
            "judge_pictures": self.judge_pictures,
            "control_relative": self.relative,
            "relative_interval": None if (found := self.relative_interval) is None else list(found),
            "worst_class": self.worst,
            "per_class": self.per_class,
            **({"per_attribute": attributes} if attributes else {}),
            **confusion,
        }


def check_judge(sampler: Sampler, judge: Judge) -> None:
    """Check that a judge fits a generator.

    Raises:
        MeasureError: it has other classes, or another image shape.
    """
    check_fit(sampler, "the judge knows", judge.classes, judge.header.image_shape)


def check_fit(
    sampler: Sampler, subject: str, classes: tuple[str, ...], image_shape: tuple[int, ...]
) -> None:
    """Raise ``MeasureError`` unless classes, in this order, and shape are the generator's.

    Args:
        sampler: the generator.
        subject: what has them, with a verb, for the message: "the judge knows".
        classes: the class names.
        image_shape: (C, H, W).
    """
    if classes != sampler.classes or image_shape != sampler.image_shape:
        raise MeasureError(
            f"{_describe_difference(sampler, subject, classes, image_shape)}: give the generator's "
            "training data with --data"
        )


def _describe_difference(
    sampler: Sampler, subject: str, classes: tuple[str, ...], image_shape: tuple[int, ...]
) -> str:
    if image_shape != sampler.image_shape:
        own, other = (" × ".join(map(str, shape)) for shape in (sampler.image_shape, image_shape))
        return f"the generator draws images of {own} and {subject} {other} values"
    if len(classes) != len(sampler.classes):
        return f"the generator has {len(sampler.classes)} classes and {subject} {len(classes)}"
    own, other = next(
        pair for pair in zip(sampler.classes, classes, strict=True) if pair[0] != pair[1]
    )
    return f"the generator has the class {quote(own)} where {subject} {quote(other)}"


@torch_defaults()
def measure_control(sampler: Sampler, judge: Judge, per_class: int = 1_000) -> Control:
    """Draw images of each class, each with a seed of its own, and classify them.

    The images of an unconditional GAN are counted as if each class had been requested in turn.

    Raises:
        MeasureError: the judge has other classes, or another image shape.
    """
    check_judge(sampler, judge)
    target, predicted = [], []
    for images, labels in draw_by_class(sampler, per_class):
        target.append(labels)
        predicted.append(judge.classify(images).cpu())
    return Control.of(
        judge,
        torch.cat(target),
        torch.cat(predicted),
        sampler.conditional,
        sampler.num_attributes,
    )


def confusion_matrix(target: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """int64 (num_classes, num_classes): row requested, column predicted; from labels (N,) each."""
    cells = torch.bincount(target * num_classes + predicted, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)
