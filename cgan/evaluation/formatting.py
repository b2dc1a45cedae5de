"""Format metrics as text, and build the metric table of the terminal and the HTML report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from cgan.evaluation.report import Report


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


def _merge(texts: list[str]) -> str:
    """The different texts, each once."""
    return " / ".join(dict.fromkeys(texts))
