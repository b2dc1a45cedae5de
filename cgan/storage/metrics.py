"""``metrics.jsonl``: the metrics of a run, one JSON object per line."""

from __future__ import annotations

from pathlib import Path

from cgan.errors import FileError, one_line
from cgan.storage.headers import is_count
from cgan.storage.limits import MAX_METRICS_BYTES
from cgan.storage.paths import METRICS_FILE
from cgan.storage.safe_reading import parse_json_object, read_bytes

PLOTTED_METRICS = {"loss_G", "loss_D", "penalty", "control_accuracy", "fid", "background_ink"}
"""Metrics that are plotted over images seen."""

Curves = dict[str, list[tuple[int, float]]]
"""By metric: (images seen, value) pairs."""


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run in order; each row has ``images_seen``.

    A last line that a stopped process left incomplete is ignored.

    Raises:
        FileError: the file cannot be read, or another line is damaged.
    """
    path = folder / METRICS_FILE
    lines = read_bytes(path, MAX_METRICS_BYTES).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_parse_row(line))
        except ValueError as error:
            if number < len(lines):
                raise FileError(
                    f"line {number} of {path} is damaged ({one_line(error)}): remove the line"
                ) from error
    return rows


def read_curves(folder: Path) -> Curves:
    """The curves of a run by metric; empty if there is no log. Raises like ``read_metrics``."""
    curves: Curves = {}
    for row in read_metrics(folder) if (folder / METRICS_FILE).exists() else ():
        for name in PLOTTED_METRICS & row.keys():
            curves.setdefault(name, []).append((int(row["images_seen"]), row[name]))
    return {name: curves[name] for name in sorted(curves)}


def _parse_row(line: bytes) -> dict[str, float]:
    """One line; a metric may be NaN."""
    row = parse_json_object(line, allow_nan=True)
    if not is_count(row.get("images_seen")):
        raise ValueError("images_seen is not a whole number from 0")
    for name, value in row.items():
        if type(value) not in (int, float):
            raise ValueError(f"{name[:80]!r} is not a number")
    return row
