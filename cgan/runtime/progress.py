"""A progress line on stderr: a bar on a terminal, one line that changes in a notebook, and a plain
line every few seconds in a pipe."""

from __future__ import annotations

import logging
import sys
import time
from typing import ClassVar

from rich.progress import BarColumn, Progress, TextColumn

from cgan.console import SafeConsole, printable
from cgan.runtime.process import rank_and_world_size

LINE_SECONDS = 5.0
"""Time between two plain lines,"""
NOTEBOOK_SECONDS = 0.5
"""and between two changes of the line in a notebook."""


def is_asked_for() -> bool:
    """Whether long work that nobody asked for by name shows its progress.

    The command line logs at INFO, and a library call by default does not.
    """
    return logging.getLogger("cgan").isEnabledFor(logging.INFO) and rank_and_world_size()[0] == 0


class ProgressLine:
    """Shows a fraction in [0, 1] and a text. A line inside of another one takes its place.

    A transient bar leaves the terminal at its end.
    """

    outer: ClassVar[ProgressLine | None] = None

    def __init__(self, enabled: bool = True, transient: bool = False) -> None:
        self.enabled = enabled
        self.console = SafeConsole(stderr=True)
        self.bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            transient=transient,
            disable=not (enabled and self.console.is_terminal),
        )
        self.task = self.bar.add_task("starting", total=1.0)
        self.last_line = float("-inf")
        self.width = 0  # of the line in a notebook

    def __enter__(self) -> ProgressLine:
        if not self.enabled or ProgressLine.outer is not None:
            return self
        ProgressLine.outer = self
        if not self.bar.disable:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if ProgressLine.outer is not self:
            return
        ProgressLine.outer = None
        if not self.bar.disable:
            self.bar.stop()
        elif self.width:
            sys.stderr.write("\n")
            self.width = 0

    def show(self, fraction: float, text: str) -> None:
        """Update the bar, or write a line if the last one is old enough."""
        if self.enabled and ProgressLine.outer not in (self, None):
            ProgressLine.outer.show(fraction, text)
            return
        if not self.bar.disable:
            self.bar.update(self.task, completed=fraction, description=text)
            return
        seconds = NOTEBOOK_SECONDS if self.console.is_jupyter else LINE_SECONDS
        if not self.enabled or time.monotonic() - self.last_line < seconds:
            return
        self.last_line = time.monotonic()
        line = f"{100 * fraction:3.0f} % · {text}"
        if self.console.is_jupyter:
            line = printable(line)
            sys.stderr.write(f"\r{line:<{self.width}}")  # spaces cover the line before
            sys.stderr.flush()
            self.width = len(line)
        else:
            self.console.print(line)


class CountProgress:
    """Progress of generating ``total`` images, with speed and time left."""

    def __init__(self, total: int, enabled: bool) -> None:
        self.total, self.line = total, ProgressLine(enabled)
        self.begun = self.line.last_line = time.monotonic()
        self.done = self.drawn = 0

    def __enter__(self) -> CountProgress:
        self.line.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.line.__exit__(*error)

    def skip(self, count: int) -> None:
        """Count images that already exist; they do not count towards the speed."""
        self.done += count

    def add(self, count: int) -> None:
        """Count images drawn now."""
        self.done += count
        self.drawn += count
        if not self.total:
            return
        speed = self.drawn / max(time.monotonic() - self.begun, 1e-3)
        self.line.show(
            self.done / self.total,
            f"{self.done:,} of {self.total:,} images · {speed:,.0f} images/s"
            f" · {format_seconds((self.total - self.done) / speed)} left",
        )


def format_seconds(seconds: float) -> str:
    """``75.2`` as ``1:15``, ``4000`` as ``1:06:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
