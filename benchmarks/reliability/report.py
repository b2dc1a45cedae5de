"""The figures of the campaign: docs/reliability.json and the table in docs/reliability.md."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

START, END = "<!-- table -->", "<!-- end of table -->"
SHOWN = 20
"""Findings of a row that are kept; the count of failures covers all."""


class Part(StrEnum):
    """A part of the campaign: a module of this package with ``measure``."""

    writes = "writes"
    kills = "kills"
    mutations = "mutations"
    processes = "processes"
    environments = "environments"
    soak = "soak"


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what: what was done.
        count: how many times it was done.
        full: how many times its full length does it.
        failed: how many of them lost something or ended as they must not.
        worst_seconds: the longest of them.
        peak_mib: the largest resident memory of a process, in MiB.
        findings: one line for each failure, at most ``SHOWN``.
        figures: further figures of this row.
    """

    what: str
    count: int = 0
    full: int | None = None
    failed: int = 0
    worst_seconds: float = 0.0
    peak_mib: float = 0.0
    findings: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, seconds: float, peak_mib: float = 0.0, count: int = 1) -> None:
        """Count one more."""
        self.count += count
        self.worst_seconds = max(self.worst_seconds, round(seconds, 2))
        self.peak_mib = max(self.peak_mib, round(peak_mib, 1))

    def fail(self, finding: str) -> None:
        """Count a failure."""
        self.failed += 1
        if len(self.findings) < SHOWN:
            self.findings.append(" ".join(finding.split())[:500])


class Budget:
    """The time of one part; without minutes, its full length.

    Args:
        seconds: None for the full length. With 0, each part does the least that it can.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.is_least = seconds, seconds == 0
        self.ends = None if seconds is None else time.monotonic() + seconds

    def allows(self, done: int, full: int, least: int = 1) -> bool:
        """Whether to do one more: always up to ``least``, never beyond ``full``."""
        if done < least or done >= full:
            return done < least
        return self.ends is None or time.monotonic() < self.ends


def merge(path: Path, part: str, about: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """Replace the rows of one part in the JSON file; returns the figures of all parts."""
    figures = json.loads(path.read_text("utf-8")) if path.exists() else {}
    figures[part] = {**about, "rows": [asdict(row) for row in rows]}
    figures = {name: figures[name] for name in Part if name in figures}
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return figures


def to_table(figures: dict[str, Any]) -> str:
    """The Markdown table of all parts, their findings, and their machines."""
    lines = [
        "| part | what was done | count | failed | worst time | peak memory |",
        "|---|---|--:|--:|--:|--:|",
    ]
    notes, machines = [], []
    for part, figure in figures.items():
        for row in figure["rows"]:
            count = f"{row['count']:,}"
            if row["full"] is not None and row["count"] < row["full"]:
                count += f" of {row['full']:,}"
            more = "".join(f"; {name} {value}" for name, value in row["figures"].items())
            lines.append(
                f"| {part} | {row['what']}{more} | {count} | {row['failed']} "
                f"| {row['worst_seconds']:.1f} s | {_peak(row['peak_mib'])} |"
            )
            notes += [f"- {part}, {row['what']}: `{found}`" for found in row["findings"]]
        spent = f"{figure['seconds'] / 60:.1f} minutes"
        machines.append(f"- {part}: {spent}, seed {figure['seed']}, cgan {figure['cgan']}, ")
        machines[-1] += figure["machine"]
    said = ["", "Failures:", "", *notes] if notes else []
    return "\n".join([*lines, *said, "", "Measured on:", "", *machines])


def _peak(mib: float) -> str:
    return f"{mib:,.0f} MiB" if mib else "–"


def write_page(path: Path, table: str) -> None:
    """Put the table between its marks in the page; without a page, do nothing."""
    if path.exists():
        before, _, rest = path.read_text("utf-8").partition(START)
        after = rest.partition(END)[2]
        path.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")
