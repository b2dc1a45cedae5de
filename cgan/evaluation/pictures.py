"""Images as data URIs and curves as SVG points, for reports and notebooks."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from cgan.storage.images import encode_png, make_grid
from cgan.storage.metrics import Curves

if TYPE_CHECKING:
    from cgan.storage.images import Pixels

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
