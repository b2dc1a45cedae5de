"""Class control: what a generator draws when it is asked for a class, as the judge sees it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import Any

import torch
from torch import Tensor

from cgan.errors import MeasureError
from cgan.metrics.classifier import Judge
from cgan.metrics.distances import Interval, wilson_interval
from cgan.metrics.gather import draw_by_class
from cgan.sampling import Sampler

DEAF = 0.15
"""Less than this share of the way from chance to perfect is not listening."""


@dataclass(frozen=True)
class Control:
    """The measured control of one generator.

    Attributes:
        classes: the class names.
        confusion: int64, (K, K): row asked for, column seen by the judge.
        conditional: False is a plain GAN, whose pictures were counted under each class in turn.
        judge_accuracy: share of held-out real pictures that the judge names rightly: the ceiling.
        judge_pictures: how many those were.
    """

    classes: tuple[str, ...]
    confusion: Tensor
    conditional: bool
    judge_accuracy: float | None
    judge_pictures: int

    @property
    def accuracy(self) -> float:
        """Share of pictures that show the class asked for; in [0, 1]."""
        return float(self.confusion.diagonal().sum()) / float(self.confusion.sum())

    @property
    def chance(self) -> float:
        """What a generator gets that does not listen."""
        return 1 / len(self.classes)

    @property
    def per_class(self) -> dict[str, float]:
        """The same share by class; nan of a class of which there is no picture."""
        shares = self.confusion.diagonal().double() / self.confusion.sum(1)
        return dict(zip(self.classes, shares.tolist(), strict=True))

    @property
    def worst(self) -> str:
        """The class that is obeyed least."""
        shares = {name: share for name, share in self.per_class.items() if not isnan(share)}
        return min(shares, key=lambda name: shares[name])

    @property
    def deaf(self) -> bool:
        """Whether it was told classes and does not listen: hardly better than chance."""
        return self.conditional and self.interval.high < self.chance + DEAF * (1 - self.chance)

    @property
    def interval(self) -> Interval:
        """Where the accuracy lies with 95 % confidence, had more pictures been drawn."""
        return wilson_interval(int(self.confusion.diagonal().sum()), int(self.confusion.sum()))

    @property
    def intervals(self) -> list[Interval]:
        """The same by class."""
        right, drawn = self.confusion.diagonal().tolist(), self.confusion.sum(1).tolist()
        return [wilson_interval(r, max(n, 1)) for r, n in zip(right, drawn, strict=True)]

    @classmethod
    def of(cls, judge: Judge, asked: Tensor, named: Tensor, conditional: bool = True) -> Control:
        """From the class asked for and the class the judge sees, int64 (N,) each."""
        return cls(
            judge.classes,
            confusion_matrix(asked, named, len(judge.classes)),
            conditional,
            judge.header.held_out_accuracy,
            judge.header.held_out_pictures,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "control_accuracy": self.accuracy,
            "interval": list(self.interval),
            "chance": self.chance,
            "conditional": self.conditional,
            "pictures": int(self.confusion.sum()),
            "judge_accuracy": self.judge_accuracy,
            "judge_pictures": self.judge_pictures,
            "worst_class": self.worst,
            "per_class": self.per_class,
            "confusion": self.confusion.tolist(),
        }


def check_judge(sampler: Sampler, judge: Judge) -> None:
    """Refuse a judge of other data.

    Raises:
        MeasureError: it knows other classes, or other pictures, than the generator.
    """
    if judge.classes != sampler.classes or judge.header.image_shape != sampler.image_shape:
        raise MeasureError(
            f"the generator draws {', '.join(sampler.classes[:5])}… of {sampler.image_shape} and "
            f"the judge knows {', '.join(judge.classes[:5])}… of {judge.header.image_shape}: "
            "give the data it was trained on with --data"
        )


def measure_control(sampler: Sampler, judge: Judge, per_class: int = 1_000) -> Control:
    """Draw so many pictures of each class and ask the judge what they show.

    The pictures are those of seeds 0 to ``per_class`` − 1 of each class. A plain GAN can't be
    asked: its pictures, all of different seeds, are counted as if each class had been.

    Raises:
        MeasureError: the judge knows other classes, or other pictures, than the generator.
    """
    check_judge(sampler, judge)
    asked, named = [], []
    for pictures, labels in draw_by_class(sampler, per_class):
        asked.append(labels)
        named.append(judge.classify(pictures).cpu())
    return Control.of(judge, torch.cat(asked), torch.cat(named), sampler.conditional)


def confusion_matrix(asked: Tensor, named: Tensor, num_classes: int) -> Tensor:
    """int64 (num_classes, num_classes): row asked for, column seen; from labels (N,) each."""
    cells = torch.bincount(asked * num_classes + named, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)
