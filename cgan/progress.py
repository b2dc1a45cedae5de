"""How far a count has come, on stderr."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cgan.loggers import PLAIN_LINE_EVERY_SECONDS, say_seconds


class PictureProgress:
    """One progress line on a terminal, a plain line every few seconds in a pipe; to stderr."""

    def __init__(self, total: int, wanted: bool) -> None:
        self.total, self.wanted = total, wanted
        self.begun = self.last_line = time.monotonic()
        self.done = self.drawn = 0
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self.bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            disable=not (wanted and self.console.is_terminal),
        )
        self.task = self.bar.add_task("starting", total=total)

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def skip(self, count: int) -> None:
        """These were there."""
        self.done += count

    def add(self, count: int) -> None:
        """These are drawn."""
        self.done += count
        self.drawn += count
        speed = self.drawn / max(time.monotonic() - self.begun, 1e-3)
        text = (
            f"{self.done:,} of {self.total:,} pictures · {speed:,.0f} pictures/s"
            f" · {say_seconds((self.total - self.done) / speed)} left"
        )
        if not self.bar.disable:
            self.bar.update(self.task, completed=self.done, description=text)
        elif self.wanted and time.monotonic() - self.last_line >= PLAIN_LINE_EVERY_SECONDS:
            self.last_line = time.monotonic()
            self.console.print(f"{100 * self.done / self.total:3.0f} % · {text}")
