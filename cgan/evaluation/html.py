"""Reports as one self-contained HTML file: no network, no scripts, no other files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jinja2 import Environment, StrictUndefined
from torch import Tensor

from cgan import __version__
from cgan.console import printable
from cgan.evaluation.formatting import format_interval, format_value
from cgan.evaluation.pictures import CHART, Picture, grid_picture, make_charts, picture
from cgan.evaluation.report import Report, figure_rows
from cgan.runtime.device import torch_defaults
from cgan.storage.images import make_grid

TEMPLATE = Path(__file__).with_name("report.html.j2")

MAX_NUMBERED_CLASSES = 32
"""With more classes the confusion matrix is drawn as an image instead of numbers."""

HEAT = (28, 84, 148)
"""Colour of a full cell of the drawn confusion matrix: the template's ``--heat`` in light mode."""


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
        say=format_value, interval=format_interval, grid=grid_picture, pair=_pair, heat=_heat
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        reports=reports,
        rows=figure_rows(reports),
        charts=make_charts([report.curves for report in reports]),
        chart_size=CHART,
        max_numbered_classes=MAX_NUMBERED_CLASSES,
        versions={"cgan": __version__, "torch": torch.__version__},
    )


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
