"""Reports as one HTML file that needs nothing but itself: no network, no scripts, no other file."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jinja2 import Environment, StrictUndefined
from torch import Tensor

from cgan.learner import package_version
from cgan.metrics.report import Report
from cgan.png import encode_png, make_grid
from cgan.tables import say_share

if TYPE_CHECKING:
    from cgan.png import Pixels

TEMPLATE = Path(__file__).with_name("page.html.j2")

MOST_WITH_NUMBERS = 32
"""Of more classes than this, nobody could read the confusion matrix as numbers: it is drawn."""

HEAT = (28, 84, 148)
"""Colour of a full cell where the confusion matrix is drawn: the template's ``--heat`` by day."""

CHART = (240, 72)
"""Width and height of a curve, in the units of its drawing."""


class Picture(NamedTuple):
    """A PNG inside the page, and how wide it is shown where there is room."""

    uri: str
    width: int


class Row(NamedTuple):
    """One line of the table of figures; ``values`` has a text for each report."""

    title: str
    meaning: str
    values: list[str]
    real: str
    chance: str


class Chart(NamedTuple):
    """One curve of every run that has it; ``lines`` holds the report's number and its points."""

    name: str
    low: float
    high: float
    images: int
    lines: list[tuple[int, str]]


def render_page(reports: Sequence[Report]) -> str:
    """The HTML of one generator's report, or of several side by side.

    It names no day and no machine: the same reports and versions give the same page.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(say=say, interval=say_interval, grid=_grid, pair=_pair, heat=_heat)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        reports=reports,
        rows=_rows(reports),
        charts=_charts(reports),
        chart_size=CHART,
        most_with_numbers=MOST_WITH_NUMBERS,
        versions={"cgan": package_version(), "torch": torch.__version__},
    )


def say(value: float | None, share: bool = False) -> str:
    """``99.26 %`` of a share, else three digits (``0.0123``, ``1,230``); – where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if share:
        return say_share(value)
    rounded = float(f"{value:.3g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:#.3g}"
    return text.replace("-", "−")


def say_interval(interval: Sequence[float]) -> str:
    """``98.51–98.97 %``."""
    low, high = interval
    return f"{100 * low:.2f}–{say_share(high)}"


def _picture(pixels: Pixels, width: int) -> Picture:
    """A picture (C, H, W), to be shown about ``width`` wide: a whole multiple keeps it sharp."""
    uri = "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()
    own = pixels.shape[2]
    return Picture(uri, own * max(round(width / own), 1))


def _grid(grid: Tensor) -> Picture:
    return _picture(make_grid(grid.flatten(0, 1), columns=grid.shape[1]), width=600)


def _pair(pair: Tensor) -> Picture:
    return _picture(make_grid(pair, columns=2), width=120)


def _heat(confusion: Tensor) -> Picture:
    """A confusion matrix with a pixel a cell, shaded as the template shades its table."""
    shade = (confusion / confusion.sum(1, keepdim=True).clamp_min(1)).sqrt()
    ink = torch.tensor(HEAT).view(3, 1, 1)
    return _picture((255 + (ink - 255) * shade).round().to(torch.uint8), width=480)


def _rows(reports: Sequence[Report]) -> list[Row]:
    """The figures of all reports, each once, in the order in which they are told."""
    by_key = [{figure.key: figure for figure in report.figures} for report in reports]
    rows = []
    for key in dict.fromkeys(key for figures in by_key for key in figures):
        told = [figures.get(key) for figures in by_key]
        one = next(figure for figure in told if figure)
        values, real, chance = (
            [say(getattr(figure, column, None), one.share) for figure in told]
            for column in ("value", "real", "chance")
        )
        # Which class is the worst differs from report to report.
        title = one.title if len(reports) == 1 else one.title.partition(" (")[0]
        rows.append(Row(title, one.meaning, values, _once(real), _once(chance)))
    return rows


def _once(texts: list[str]) -> str:
    """What all reports agree on, or what each says."""
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def _charts(reports: Sequence[Report]) -> list[Chart]:
    """The curves of all runs, those of one name in one drawing from 0 images on."""
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
