"""The result of ``cgan augment-test``: accuracies, and a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """The accuracies of the classifiers of one training set, one per seed, each in [0, 1].

    Attributes:
        name: the name of the training set.
        generated: whether it has generated images.
        validation: mean accuracy of the classes on validation images.
        test: the same on test images.
        rarest: accuracy of the rarest class on test images; None if all classes are equally rare.
    """

    name: str
    generated: bool
    validation: tuple[float, ...]
    test: tuple[float, ...]
    rarest: tuple[float, ...] | None


@dataclass(frozen=True)
class AugmentTest:
    """The result of ``augment_test``.

    Attributes:
        model: the generator.
        train_images, test_images: numbers of real images.
        shown_images: training images that each classifier was shown.
        rarest_class: the class with the fewest training images; None if all are equally rare.
        rows: one per training set.
        verdict: ``yes``, ``no`` or ``no difference``.
        reason: the verdict in one sentence.
        left_out: training sets that could not be made, and why.
        warnings: reasons why the figures may be wrong.
        seconds: how long it took.
    """

    model: str
    train_images: int
    test_images: int
    shown_images: int
    rarest_class: str | None
    rows: list[Row]
    verdict: str
    reason: str
    left_out: list[str]
    warnings: list[str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON."""
        return asdict(self)


WORDS = {
    "yes": "they help",
    "no": "do not use them",
    "no difference": "they make no difference that these seeds can show",
}
"""Verdicts in words."""


def decide(rows: list[Row]) -> tuple[str, str]:
    """The verdict and its reason.

    The best training set with generated images, and the best without, are chosen by their mean
    accuracy on validation images. Then every seed of one must be better on test images than every
    seed of the other. The reason also compares the accuracies of the rarest class.
    """
    with_them, without = (
        max(
            (row for row in rows if row.generated == generated),
            key=lambda row: _mean(row.validation),
        )
        for generated in (True, False)
    )
    verdict = compare(with_them.test, without.test)
    reason = (
        f"{WORDS[verdict]} ({with_them.name}: {_describe(with_them.test)} of test images are "
        f"right; {without.name}: {_describe(without.test)})"
    )
    if with_them.rarest and without.rarest:
        rarest = compare(with_them.rarest, without.rarest)
        reason += (
            f"; in the rarest class {WORDS[rarest]} ({_describe(with_them.rarest)} against "
            f"{_describe(without.rarest)})"
        )
    return verdict, reason


def compare(with_them: tuple[float, ...], without: tuple[float, ...]) -> str:
    """``yes`` if every accuracy with generated images is higher, ``no`` if every one is lower.

    If they made no difference, n seeds would give either verdict by chance once in ½ · C(2n, n)
    times: once in 10 for three seeds. The choice of the test images is not considered.
    """
    if min(with_them) > max(without):
        return "yes"
    return "no" if max(with_them) < min(without) else "no difference"


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _describe(values: tuple[float, ...]) -> str:
    return f"{100 * _mean(values):.1f} % ({100 * min(values):.1f} to {100 * max(values):.1f})"
