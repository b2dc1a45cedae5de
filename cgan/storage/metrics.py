"""``metrics.jsonl``: the metrics of a run, one JSON object per line."""

from __future__ import annotations

import json
from pathlib import Path

METRICS_FILE = "metrics.jsonl"
PLOTTED_METRICS = {"loss_G", "loss_D", "penalty", "control_accuracy", "fid", "background_ink"}
"""Metrics that are plotted over images seen."""

Curves = dict[str, list[tuple[int, float]]]
"""By metric: (images seen, value) pairs."""


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run in order. An incomplete last line is ignored."""
    rows = []
    for line in (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def read_curves(folder: Path) -> Curves:
    """The curves of a run by metric; empty if there is no log."""
    curves: Curves = {}
    for row in read_metrics(folder) if (folder / METRICS_FILE).exists() else ():
        for name in PLOTTED_METRICS & row.keys():
            curves.setdefault(name, []).append((int(row["images_seen"]), row[name]))
    return {name: curves[name] for name in sorted(curves)}
