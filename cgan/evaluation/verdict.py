"""Whether generated images help: rows of accuracies, their differences, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cgan.evaluation.distances import Difference, paired_difference

WORDS = {
    "yes": "they help",
    "no": "do not use them",
    "no difference": "they make no difference that can be shown",
}
"""Answers in words."""


@dataclass(frozen=True)
class Row:
    """The classifiers of one recipe, one per seed. Accuracies are in [0, 1].

    Attributes:
        name: the name of the recipe.
        generated: whether it has generated images.
        images: images that each classifier sees; 0 for a head on features.
        validation: mean accuracy of the classes on validation images.
        test: the same on test images.
        rarest: accuracy of the rarest class on test images; None if all classes are equally rare.
        curve: images seen, and mean accuracy on up to 500 validation images.
    """

    name: str
    generated: bool
    images: int
    validation: tuple[float, ...]
    test: tuple[float, ...]
    rarest: tuple[float, ...] | None = None
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The best recipe with generated images, minus one without.

    Attributes:
        control: the name of the recipe without.
        test: the difference of the mean accuracy of the classes on test images.
        rarest: that of the rarest class; None if there is none.
    """

    control: str
    test: Difference
    rarest: Difference | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether generated images help.

    Attributes:
        best: the recipe with generated images that validation images choose.
        comparisons: ``best`` against each recipe without.
        answer: ``yes``, ``no`` or ``no difference``.
        rarest: the answer for the rarest class; None if there is none.
        reason: the answers in one sentence.
    """

    best: str
    comparisons: list[Comparison]
    answer: str
    rarest: str | None
    reason: str


def judge_rows(
    rows: Sequence[Row],
    right: dict[str, Tensor],
    labels: Tensor,
    rarest: int | None = None,
    rarest_name: str = "",
) -> Verdict:
    """The verdict: validation images choose, test images decide.

    Args:
        rows: at least one with generated images, and one without.
        right: by the name of a row, whether each test image is right, (seeds, N).
        labels: the classes of the test images, int64 (N,).
        rarest: the rarest class, or None.
        rarest_name: its name.
    """
    best, rival = (
        max((row for row in rows if row.generated is kind), key=lambda row: _mean(row.validation))
        for kind in (True, False)
    )
    comparisons = []
    for row in (row for row in rows if not row.generated):
        first, second = right[best.name], right[row.name]
        rare = None
        if rarest is not None:
            of_it = labels == rarest
            rare = paired_difference(first[:, of_it], second[:, of_it], labels[of_it])
        test = paired_difference(first, second, labels)
        comparisons.append(Comparison(row.name, test, rare))
    means = {row.name: _mean(row.test) for row in rows}
    tests = {one.control: one.test for one in comparisons}
    answer, reason = decide(best.name, rival.name, tests, means)
    if rarest is None:
        return Verdict(best.name, comparisons, answer, None, reason)
    means = {row.name: _mean(row.rarest or ()) for row in rows}
    tests = {one.control: one.rarest for one in comparisons if one.rarest is not None}
    of_rarest, why = decide(best.name, rival.name, tests, means)
    reason += f"; in the rarest class, {rarest_name}, {why}"
    return Verdict(best.name, comparisons, answer, of_rarest, reason)


def decide(
    best: str, rival: str, differences: dict[str, Difference], means: dict[str, float]
) -> tuple[str, str]:
    """The answer, and the figures that decide.

    ``yes`` if the recipe ``best`` surely beats every one without generated images, ``no`` if
    ``rival`` surely beats it; the intervals of the differences decide. Else ``no difference``. If
    any of five could say ``no``, one of them would do so by chance too often.

    Args:
        best: the recipe with generated images.
        rival: the one without that is best on validation images.
        differences: by recipe without generated images, ``best`` minus it.
        means: the mean accuracy of each recipe.
    """
    answer = "no difference"
    if min(one.low for one in differences.values()) > 0:
        answer = "yes"
    elif differences[rival].high < 0:
        answer = "no"
    against = rival if answer == "no" else min(differences, key=lambda one: differences[one].mean)
    return answer, (
        f"{WORDS[answer]} ({best}: {100 * means[best]:.1f} % of test images are right; {against}: "
        f"{100 * means[against]:.1f} %; difference {format_difference(differences[against])})"
    )


def format_difference(difference: Difference) -> str:
    """``+1.2 points (−0.3 to +2.7)``."""
    ends = (difference.mean, difference.low, difference.high)
    mean, low, high = (f"{100 * one:+.1f}".replace("-", "−") for one in ends)
    return f"{mean} points ({low} to {high})"


def rarest_class(train: Tensor, test: Tensor) -> int | None:
    """The class with the fewest training images, from the labels (N,) of both splits.

    None if no class has less than half as many as the largest one, or it has no test images.
    """
    counts = torch.bincount(train)
    rarest = int(counts.argmin())
    is_rare = 2 * counts.min() < counts.max() and bool((test == rarest).any())
    return rarest if is_rare else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
