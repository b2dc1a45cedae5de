"""Reports as one self-contained HTML file: no network, no scripts, no other files."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jinja2 import Environment, StrictUndefined
from torch import Tensor

from cgan import __version__
from cgan.console import printable
from cgan.evaluation.formatting import figure_rows, format_interval, format_value
from cgan.evaluation.report import Report
from cgan.runtime.device import torch_defaults
from cgan.storage.images import encode_png, make_grid

if TYPE_CHECKING:
    from cgan.storage.images import Pixels

TEMPLATE = Path(__file__).with_name("report.html.j2")

MAX_NUMBERED_CLASSES = 32
"""With more classes the confusion matrix is drawn as an image instead of numbers."""

HEAT = (28, 84, 148)
"""Colour of a full cell of the drawn confusion matrix: the template's ``--heat`` in light mode."""

CHART = (240, 72)
"""Width and height of a curve in SVG units."""


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


@torch_defaults()
def render_page(reports: Sequence[Report]) -> str:
    """The HTML page of one report, or of several side by side.

    It contains no date and no machine name: the same reports and versions give the same page.
    """
    environment = Environment(
        autoescape=True, finalize=finalize, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        say=format_value, interval=format_interval, grid=_grid, pair=_pair, heat=_heat
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        reports=reports,
        rows=figure_rows(reports),
        charts=_charts(reports),
        chart_size=CHART,
        max_numbered_classes=MAX_NUMBERED_CLASSES,
        versions={"cgan": __version__, "torch": torch.__version__},
    )


def finalize(value: object) -> object:
    """What the template prints for a value; text of unknown origin must not reorder the page."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _picture(pixels: Pixels, width: int) -> Picture:
    """An image (C, H, W), scaled by a whole factor to about ``width`` pixels."""
    uri = "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()
    own = pixels.shape[2]
    return Picture(uri, own * max(round(width / own), 1))


def _grid(grid: Tensor) -> Picture:
    return _picture(make_grid(grid.flatten(0, 1), columns=grid.shape[1]), width=600)


def _pair(pair: Tensor) -> Picture:
    return _picture(make_grid(pair, columns=2), width=120)


def _heat(confusion: Tensor) -> Picture:
    """A confusion matrix with one pixel per cell, in the colours of the template's table."""
    shade = (confusion / confusion.sum(1, keepdim=True).clamp_min(1)).sqrt()
    ink = torch.tensor(HEAT).view(3, 1, 1)
    return _picture((255 + (ink - 255) * shade).round().to(torch.uint8), width=480)


def _charts(reports: Sequence[Report]) -> list[Chart]:
    """The curves of all runs: one chart per metric, over images seen."""
    charts = []
    for name in dict.fromkeys(name for report in reports for name in report.curves):
        runs = {
            number: [(x, y) for x, y in report.curves.get(name, ()) if math.isfinite(y)]
            for number, report in enumerate(reports)
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
