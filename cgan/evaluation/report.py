"""The report of one generator: its metrics, next to those of real images and of chance.

"Real" is the metric of real images. "Chance" is the metric of a generator that draws real images
but ignores its label. A report is also a table for notebooks, and one self-contained HTML file: no
network, no scripts, no other files.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from cgan import __version__
from cgan.attributes import display_order
from cgan.console import printable
from cgan.evaluation.artifacts import to_decibels
from cgan.evaluation.control import Control
from cgan.runtime.device import torch_defaults
from cgan.storage.images import encode_png, make_grid
from cgan.storage.run_files import Curves

if TYPE_CHECKING:
    from cgan.storage.images import Pixels


MAX_ROWS = 10
"""Classes whose samples are shown."""

FIGURES = """\
<b>{{ title }}</b>
{% for warning in warnings %}<p>⚠ {{ warning }}</p>{% endfor %}
<table>
<thead><tr><th>metric</th><th>value</th><th>real</th><th>chance</th></tr></thead>
<tbody>
{% for row in rows %}
<tr title="{{ row.meaning }}"><td>{{ row.title }}</td><td>{{ row["values"][0] }}</td>
<td>{{ row.real }}</td><td>{{ row.chance }}</td></tr>
{% endfor %}
</tbody>
</table>
<img src="{{ grid.uri }}" width="{{ grid.width }}" style="image-rendering:pixelated"
 alt="generated images, one row per class">
"""

CURVES = """\
<b>{{ title }}</b>
<div style="display:flex;flex-wrap:wrap;gap:1em">
{% for chart in charts %}
<div>{{ chart.name }}<br>
<svg viewBox="-4 -4 {{ size[0] + 8 }} {{ size[1] + 8 }}" width="{{ size[0] }}" role="img"
 aria-label="{{ chart.name }} over images seen">
{% for _, points in chart.lines %}
<polyline points="{{ points }}" fill="none" stroke="#1c5494" stroke-width="1.5"/>
{% endfor %}
</svg><br>{{ value(chart.low) }} to {{ value(chart.high) }}</div>
{% endfor %}
</div>
"""
CHART = (240, 72)
"""Width and height of a curve in SVG units."""
TEMPLATE, STYLE = (Path(__file__).with_name(name) for name in ("report.html.j2", "report.css"))
MAX_NUMBERED_CLASSES = 32
"""With more classes the confusion matrix is drawn as an image instead of numbers."""
HEAT = (28, 84, 148)
"""Colour of a full cell of the drawn confusion matrix: the template's ``--heat`` in light mode."""


def figures_html(title: str, warnings: list[str], rows: Iterable[Any], grid: Tensor) -> str:
    """A report.

    Args:
        title: above the table.
        warnings: problems, as text.
        rows: ``cgan.evaluation.report.FigureRow`` of one report.
        grid: uint8 (K, columns, C, H, W).
    """
    return _render(FIGURES, title=title, warnings=warnings, rows=rows, grid=_picture(grid))


def curves_html(title: str, curves: Curves) -> str:
    """A run: one chart for each metric, over images seen."""
    return _render(CURVES, title=title, charts=make_charts([curves]), size=CHART)


def _picture(grid: Tensor) -> Any:
    return grid_picture(grid[:MAX_ROWS])


def _render(template: str, **values: Any) -> str:
    environment = Environment(autoescape=True, trim_blocks=True, finalize=_finalize)
    environment.globals["value"] = format_value
    return environment.from_string(template).render(**values)


def _finalize(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def format_value(value: float | None, share: bool = False) -> str:
    """``99.26 %`` for a fraction, else three significant digits; – for None or not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    if share:
        return format_share(value)
    rounded = float(f"{value:.3g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:#.3g}"
    return text.replace("-", "−")


def format_share(share: float) -> str:
    """``0.98765`` as ``98.77 %``."""
    return f"{100 * share:.2f} %"


def format_interval(interval: Sequence[float]) -> str:
    """``98.51–98.97 %``."""
    low, high = interval
    return f"{100 * low:.2f}–{format_share(high)}"


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
        interval: the 95 % interval of the value, where there is one.
    """

    key: str
    title: str
    value: float | None
    real: float | None = None
    chance: float | None = None
    share: bool = False
    meaning: str = ""
    interval: tuple[float, float] | None = None

    @property
    def text(self) -> str:
        """The value with its interval."""
        value = format_value(self.value, self.share)
        if self.value is None or self.interval is None:
            return value
        if self.share:
            return f"{value} ({format_interval(self.interval)})"
        low, high = (format_value(end) for end in self.interval)
        return f"{value} ({low} to {high})"


@dataclass(frozen=True)
class ClassFigures:
    """The metrics of one class; None if one was left out.

    ``fid`` and ``kid`` compare images of the class alone. KID has no bias, so it is also right
    where there are few of them.
    """

    name: str
    control: float
    control_low: float
    control_high: float
    control_real: float | None
    fid: float | None
    fid_real: float | None
    kid: float | None
    kid_real: float | None
    coverage: float | None
    coverage_real: float | None
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
        compared: the number of generated images in FID and similar metrics, and of validation
            images in their column "real". The label proportions are those of the test images.
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
        taught_by: the networks that took part in training the generator, as text.
        reader: what the judge has in common with them, as text.
        spectra: power by spatial frequency of generated and of real images, (R,) each; None
            without images.
        positions: uint8 (2, 2, C, H, W): mean and deviation of generated and of real images.
        compared_features: (N, F), what FID compares.
        data_facts: how the folder of the data was understood, one sentence each.
        curves: metrics of the run by name: (images seen, value) pairs; empty without a run.
        generator: the SHA-256 of the generator's file; empty if the file is gone.
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
    taught_by: str = ""
    reader: str = ""
    spectra: tuple[Tensor, Tensor] | None = None
    positions: Tensor | None = None
    compared_features: Tensor | None = None
    splits: dict[str, str] = field(default_factory=dict)
    data_facts: tuple[str, ...] = ()
    curves: Curves = field(default_factory=dict)
    generator: str = ""

    @property
    def test_set(self) -> str:
        """Number and choice of the test images, as text."""
        if not self.test_images:
            return "no test images (too few images)"
        chosen = f": {self.splits['test']}" if "test" in self.splits else ""
        return f"{self.test_images:,} test images{chosen}"

    @property
    def shown_classes(self) -> list[ClassFigures]:
        """``classes`` in the order of pages and tables (``cgan.attributes.display_order``)."""
        return [self.classes[index] for index in display_order([one.name for one in self.classes])]

    @property
    def shown_grid(self) -> Tensor:
        """The rows of ``grid`` in the same order."""
        order = display_order(self.control.classes)
        return self.grid[[index for index in order if index < len(self.grid)]]

    def to_dict(self) -> dict[str, Any]:
        """All metrics as plain values for JSON, without images and curves, by class index."""
        return {
            "model": self.model,
            "generator": self.generator,
            "data": self.data,
            "features": self.features,
            "train_images": self.train_images,
            "test_images": self.test_images,
            "splits": self.splits,
            "data_facts": self.data_facts,
            "compared": self.compared,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "taught_by": self.taught_by,
            "reader": self.reader,
            **self.control.to_dict(),
            "figures": {
                figure.key: {
                    "value": figure.value,
                    "real": figure.real,
                    "chance": figure.chance,
                    "interval": figure.interval,
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
        return figures_html(title, self.warnings, figure_rows([self]), self.shown_grid)


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
        values = [format_value(None) if figure is None else figure.text for figure in found]
        real, chance = (
            [format_value(getattr(figure, column, None), one.share) for figure in found]
            for column in ("real", "chance")
        )
        # The worst class may differ between reports.
        title = one.title if len(reports) == 1 else one.title.partition(" (")[0]
        rows.append(FigureRow(title, one.meaning, values, _merge(real), _merge(chance)))
    return rows


def _merge(texts: list[str]) -> str:
    """The different texts, each once."""
    return " / ".join(dict.fromkeys(texts))


class Picture(NamedTuple):
    """A PNG as a data URI, and its display width in pixels."""

    uri: str
    width: int


class Chart(NamedTuple):
    """One metric of all runs that have it; ``lines`` holds report numbers and SVG points."""

    name: str
    low: float
    high: float
    images: int
    lines: list[tuple[int, str]]


def picture(pixels: Pixels, width: int) -> Picture:
    """An image (C, H, W), scaled by a whole factor to about ``width`` pixels."""
    uri = "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()
    own = pixels.shape[2]
    return Picture(uri, own * max(round(width / own), 1))


def grid_picture(grid: Tensor) -> Picture:
    """Images (K, columns, C, H, W), one row for each of the K."""
    return picture(make_grid(grid.flatten(0, 1), columns=grid.shape[1]), width=600)


def make_charts(curves: Sequence[Curves]) -> list[Chart]:
    """The curves of several runs: one chart per metric, over images seen."""
    charts = []
    for name in dict.fromkeys(name for run in curves for name in run):
        runs = {
            number: [(x, y) for x, y in run.get(name, ()) if math.isfinite(y)]
            for number, run in enumerate(curves)
        }
        points = [point for run in runs.values() for point in run]
        if not points:
            continue
        last, heights = max(x for x, _ in points), [y for _, y in points]
        low, high = min(heights), max(heights)
        across, up = CHART[0] / (last or 1), CHART[1] / (high - low or 1)
        lines = [
            (number, " ".join(f"{across * x:.1f},{up * (high - y):.1f}" for x, y in run))
            for number, run in runs.items()
            if run
        ]
        charts.append(Chart(name, low, high, last, lines))
    return charts


def spectrum_lines(spectra: tuple[Tensor, Tensor]) -> list[str]:
    """SVG points of both spectra in decibels: generated, real."""
    decibels = [to_decibels(power) for power in spectra]
    low, high = (float(extreme) for extreme in torch.cat(decibels).aminmax())
    across, up = CHART[0] / max(len(spectra[0]) - 1, 1), CHART[1] / ((high - low) or 1)
    return [
        " ".join(f"{across * x:.1f},{up * (high - y):.1f}" for x, y in enumerate(line.tolist()))
        for line in decibels
    ]


@torch_defaults()
def render_report(reports: Sequence[Report]) -> str:
    """The HTML page of one report, or of several side by side.

    It contains no date and no machine name: the same reports and versions give the same page.
    """
    environment = page_environment()
    environment.filters.update(
        say=format_value,
        interval=format_interval,
        grid=grid_picture,
        pair=_pair,
        heat=_heat,
        spectrum=spectrum_lines,
        position=partial(picture, width=96),
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        css=page_style(),
        reports=reports,
        rows=figure_rows(reports),
        charts=make_charts([report.curves for report in reports]),
        chart_size=CHART,
        max_numbered_classes=MAX_NUMBERED_CLASSES,
        versions={"cgan": __version__, "torch": torch.__version__},
    )


def page_environment() -> Environment:
    """The templates of pages: everything is escaped, and an unknown name is an error."""
    return Environment(
        autoescape=True, finalize=finalize, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def page_style() -> Markup:
    """The style sheet of pages."""
    return Markup(STYLE.read_text(encoding="utf-8").rstrip())


def finalize(value: object) -> object:
    """What the template prints for a value; text of unknown origin must not reorder the page."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _pair(pair: Tensor) -> Picture:
    return picture(make_grid(pair, columns=2), width=120)


def _heat(confusion: Tensor) -> Picture:
    """A confusion matrix with one pixel per cell, in the colours of the template's table."""
    shade = (confusion / confusion.sum(1, keepdim=True).clamp_min(1)).sqrt()
    ink = torch.tensor(HEAT).view(3, 1, 1)
    return picture((255 + (ink - 255) * shade).round().to(torch.uint8), width=480)
