"""Class control: what a generator draws when it is asked for a class, as the judge sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cgan.errors import ConfigError
from cgan.metrics.classifier import Judge, count_answers
from cgan.sampling import Request, Sampler


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
        """The same share by class."""
        shares = self.confusion.diagonal().double() / self.confusion.sum(1)
        return dict(zip(self.classes, shares.tolist(), strict=True))

    @property
    def worst(self) -> str:
        """The class that is obeyed least."""
        return min(self.per_class, key=lambda name: self.per_class[name])

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "control_accuracy": self.accuracy,
            "chance": self.chance,
            "conditional": self.conditional,
            "pictures": int(self.confusion.sum()),
            "judge_accuracy": self.judge_accuracy,
            "judge_pictures": self.judge_pictures,
            "worst_class": self.worst,
            "per_class": self.per_class,
            "confusion": self.confusion.tolist(),
        }


def measure_control(sampler: Sampler, judge: Judge, per_class: int = 1_000) -> Control:
    """Draw so many pictures of each class and ask the judge what they show.

    The pictures are those of seeds 0 to ``per_class`` − 1 of each class. A plain GAN can't be
    asked: its pictures, all of different seeds, are counted as if each class had been.

    Raises:
        ConfigError: the judge knows other classes, or other pictures, than the generator.
    """
    if judge.classes != sampler.classes or judge.header.image_shape != sampler.image_shape:
        raise ConfigError(
            f"the generator draws {', '.join(sampler.classes[:5])}… of {sampler.image_shape} and "
            f"the judge knows {', '.join(judge.classes[:5])}… of {judge.header.image_shape}: "
            "give the data it was trained on with --data"
        )
    confusion = count_answers(judge, _ask(sampler, per_class), len(sampler.classes))
    return Control(
        sampler.classes,
        confusion,
        sampler.conditional,
        judge.header.held_out_accuracy,
        judge.header.held_out_pictures,
    )


def _ask(sampler: Sampler, per_class: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(pictures, class asked for) of every class."""
    classes = len(sampler.classes)
    if sampler.conditional:
        request = sampler.request(None, per_class)
    else:
        request = Request(None, tuple(range(classes * per_class)))
    asked = torch.arange(classes).repeat_interleave(per_class)
    start = 0
    for pictures, _ in sampler.batches(request):
        yield pictures, asked[start : start + len(pictures)]
        start += len(pictures)
