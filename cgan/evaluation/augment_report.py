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


def decide(rows: list[Row]) -> tuple[str, str]:
    """The verdict and its reason.

    The best training set with generated images, and the best without, are chosen by their mean
    accuracy on validation images. Then every seed of one must be better on test images than every
    seed of the other.
    """
    with_them, without = (
        max(
            (row for row in rows if row.generated == generated),
            key=lambda row: _mean(row.validation),
        )
        for generated in (True, False)
    )
    if min(with_them.test) > max(without.test):
        verdict, words = "yes", "they help"
    elif max(with_them.test) < min(without.test):
        verdict, words = "no", "do not use them"
    else:
        verdict, words = "no difference", "they make no difference that these seeds can show"
    return verdict, f"{words} ({_describe(with_them)}; {_describe(without)})"


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _describe(row: Row) -> str:
    low, high = min(row.test), max(row.test)
    percent = f"{100 * _mean(row.test):.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    return f"{row.name}: {percent} of test images are right"
