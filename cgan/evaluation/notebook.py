"""What reports and runs look like in a notebook: HTML without scripts and style sheets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import Environment
from torch import Tensor

from cgan.console import printable
from cgan.evaluation.formatting import format_value
from cgan.evaluation.pictures import CHART, grid_picture, make_charts
from cgan.storage.metrics import Curves

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
