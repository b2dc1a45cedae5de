"""The report of one generator: its metrics, next to those of real images and of chance.

"Real" is the metric of real images. "Chance" is the metric of a generator that draws real images
but ignores its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from cgan.evaluation.control import Control
from cgan.evaluation.formatting import format_share, format_value
from cgan.evaluation.notebook import figures_html
from cgan.storage.metrics import Curves


@dataclass(frozen=True)
class Figure:
    """One metric with its references. A value is None if it could not be computed.

    Attributes:
        key: its name in JSON (``fid``, ``control_accuracy``).
        title: its name in tables.
        value: of the generator.
        real: of real images.
        chance: of a generator that ignores its label.
        share: whether it is a fraction in [0, 1], shown in %.
        meaning: a short explanation, with the better direction.
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
    """The metrics of one class. ``fid`` is the intra-class FID; None if it was left out."""

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
    """The evaluation of one generator.

    Attributes:
        model: its run folder, file or name.
        data: the name of the data.
        conditional: False for an unconditional GAN.
        features: the feature network's name. Do not compare metrics of different networks.
        pictures: the number of generated images.
        train_images: the number of training images.
        test_images: the number of test images, which the generator is compared with.
        splits: by name of the split, how the validation images (which choose the best generator
            during training) and the test images were chosen, as text.
        compared: the number of generated images in FID and similar metrics, and of training images
            in their column "real". The label proportions are those of the test images.
        images_seen: real images shown during the generator's training.
        seconds: duration of that training.
        control: control accuracy and the confusion matrix.
        figures: all metrics, control accuracy first.
        classes: the metrics of each class.
        warnings: problems of this generator, as text.
        left_out: metrics that could not be computed, and why, as text.
        grid: uint8 (K, columns, C, H, W), one row per class.
        pairs: uint8 (N, 2, C, H, W): generated images with their nearest training image, the
            closest of each class.
        pair_distances: their Euclidean distances over pixels in [0, 1], (N,).
        curves: metrics of the run by name: (images seen, value) pairs; empty without a run.
    """

    model: str
    data: str
    conditional: bool
    features: str
    pictures: int
    train_images: int
    test_images: int
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
    splits: dict[str, str] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)

    @property
    def test_set(self) -> str:
        """Number and choice of the test images, as text."""
        if not self.test_images:
            return "no test images (too few images)"
        chosen = f": {self.splits['test']}" if "test" in self.splits else ""
        return f"{self.test_images:,} test images{chosen}"

    def to_dict(self) -> dict[str, Any]:
        """All metrics as plain values for JSON, without images and curves."""
        return {
            "model": self.model,
            "data": self.data,
            "features": self.features,
            "train_images": self.train_images,
            "test_images": self.test_images,
            "splits": self.splits,
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

    def _repr_html_(self) -> str:
        """The figures and some samples, for notebooks."""
        title = f"{self.model}: control accuracy {format_share(self.control.accuracy)}"
        return figures_html(title, self.warnings, figure_rows([self]), self.grid)


class FigureRow(NamedTuple):
    """One row of the metric table; ``values`` has one text per report."""

    title: str
    meaning: str
    values: list[str]
    real: str
    chance: str


def figure_rows(reports: Sequence[Report]) -> list[FigureRow]:
    """The metrics of all reports, in order."""
    by_key = [{figure.key: figure for figure in report.figures} for report in reports]
    rows = []
    for key in dict.fromkeys(key for figures in by_key for key in figures):
        found = [figures.get(key) for figures in by_key]
        one = next(figure for figure in found if figure)
        values, real, chance = (
            [format_value(getattr(figure, column, None), one.share) for figure in found]
            for column in ("value", "real", "chance")
        )
        # The worst class may differ between reports.
        title = one.title if len(reports) == 1 else one.title.partition(" (")[0]
        rows.append(FigureRow(title, one.meaning, values, _merge(real), _merge(chance)))
    return rows


def _merge(texts: list[str]) -> str:
    """The different texts, each once."""
    return " / ".join(dict.fromkeys(texts))
