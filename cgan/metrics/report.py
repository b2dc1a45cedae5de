"""Everything that is measured of one generator, beside the same of held-out real pictures.

The reference is the part of the data that neither generator nor judge learned from. "Real" beside
a figure is what as many pictures of the training part get against that reference: the ceiling.
"Chance" is what a generator gets that draws real pictures but does not listen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from cgan.metrics.control import Control


@dataclass(frozen=True)
class Figure:
    """One measured number beside what real pictures and chance get; None where it can't be had.

    Attributes:
        key: its name in JSON, with its unit where it has one (``fid``, ``control_accuracy``).
        title: its name for people.
        value: of the generator.
        real: of real pictures.
        chance: of a generator that ignores its label.
        share: whether it is a share in [0, 1], to be shown in %.
        meaning: one clause for who does not know it, and which way is good.
    """

    key: str
    title: str
    value: float | None
    real: float | None = None
    chance: float | None = None
    share: bool = False
    meaning: str = ""


@dataclass(frozen=True)
class ClassFigures:
    """What was measured of one class: ``fid`` is the intra-class FID; None where left out."""

    name: str
    control: float
    control_low: float
    control_high: float
    control_real: float | None
    fid: float | None
    fid_real: float | None
    diversity: float | None


@dataclass(frozen=True)
class Report:
    """One generator, measured.

    Attributes:
        model: its run folder, file or name.
        data: the data's name.
        conditional: False is a plain GAN.
        features: the feature network's name; figures of different ones are never to be compared.
        pictures: how many were drawn.
        held_out: in words, what the reference is.
        compared: how many training pictures stand beside it as "real", and at most so many drawn
            ones were compared in FID and its like, which depend on the number.
        images_seen: real pictures that the generator's training has shown.
        seconds: that its training took.
        control: control accuracy with its confusion matrix.
        figures: all figures in the order in which they are told; control accuracy first.
        classes: the same, class by class.
        warnings: in words, what is wrong with this generator.
        left_out: in words, which figures could not be had and why.
        grid: uint8 (K, columns, C, H, W), a row a class; of a plain GAN what each class got.
        pairs: uint8 (N, 2, C, H, W): generated pictures with the nearest training picture of each,
            the closest of each class.
        pair_distances: Euclidean over pixels in [0, 1], (N,).
        curves: of the run, by name: (images seen, value) pairs; empty where there is no run.
    """

    model: str
    data: str
    conditional: bool
    features: str
    pictures: int
    held_out: str
    compared: int
    images_seen: int
    seconds: float
    control: Control
    figures: list[Figure]
    classes: list[ClassFigures]
    warnings: list[str]
    left_out: list[str]
    grid: Tensor
    pairs: Tensor
    pair_distances: Tensor
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, as JSON holds it (no pictures, no curves)."""
        return {
            "model": self.model,
            "data": self.data,
            "features": self.features,
            "held_out": self.held_out,
            "compared": self.compared,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            **self.control.to_dict(),
            "figures": {
                figure.key: {
                    "value": figure.value,
                    "real": figure.real,
                    "chance": figure.chance,
                }
                for figure in self.figures
            },
            "classes": [asdict(one) for one in self.classes],
            "warnings": self.warnings,
            "left_out": self.left_out,
        }
