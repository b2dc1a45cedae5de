"""Format metrics as text."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
