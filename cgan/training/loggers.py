"""Loggers of a run, with one common protocol: JSON lines, the terminal, trackers, your own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from cgan.config import Config
from cgan.errors import FileError
from cgan.evaluation.control import Control
from cgan.runtime.progress import ProgressLine, format_seconds
from cgan.storage.atomic import explain_write_error, write_atomically
from cgan.storage.metrics import read_metrics
from cgan.storage.paths import METRICS_FILE
from cgan.training.trackers import Metrics, Mlflow, TensorBoard, Wandb


class Logger(Protocol):
    """Receives what a run measures, for ``cgan.train(config, loggers=[…])``.

    All methods are called in rank 0 only, between training steps; what they raise ends the run.
    ``images_seen`` is always among the metrics.
    """

    def log(self, metrics: Metrics) -> None:
        """Log one set of metrics."""
        ...

    def log_images(self, path: Path, images_seen: int) -> None:
        """Log the grid of samples stored at ``path``."""
        ...

    def log_result(self, generator: Path, images_seen: int, control: Control | None) -> None:
        """Log the final generator file and its evaluation on test images, once, at the end."""
        ...

    def close(self) -> None:
        """Release all resources; also called if training fails."""
        ...


class JsonLines:
    """``metrics.jsonl``: one JSON object per line, flushed after each.

    Args:
        folder: the run folder.
        images_seen: images seen when the run resumes; lines after that are removed.
    """

    def __init__(self, folder: Path, images_seen: int = 0) -> None:
        self.path = folder / METRICS_FILE
        if self.path.exists():
            kept = [row for row in read_metrics(folder) if row["images_seen"] <= images_seen]
            lines = "".join(json.dumps(row) + "\n" for row in kept)
            write_atomically(self.path, lines.encode())
        try:
            self.file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise FileError(explain_write_error(error, self.path)) from error

    def log(self, metrics: Metrics) -> None:
        """Append one line."""
        try:
            self.file.write(json.dumps(dict(metrics)) + "\n")
            self.file.flush()
        except OSError as error:
            raise FileError(explain_write_error(error, self.path)) from error

    def log_images(self, path: Path, images_seen: int) -> None:
        """Do nothing: the grid is a file already."""

    def log_result(self, generator: Path, images_seen: int, control: Control | None) -> None:
        """Do nothing: the generator is a file already."""

    def close(self) -> None:
        """Close the file. Every line has been flushed."""
        with suppress(OSError):
            self.file.close()


class Terminal:
    """Progress, speed, time left and losses on stderr."""

    def __init__(self) -> None:
        self.line = ProgressLine().__enter__()

    def log(self, metrics: Metrics) -> None:
        """Update the progress line; metrics of an evaluation are not shown."""
        if "share" not in metrics:
            return
        self.line.show(
            metrics["share"],
            f"{metrics['images_seen']:,} images · {metrics['images_per_second']:,.0f} images/s"
            f" · {format_seconds(metrics['seconds_left'])} left"
            f" · loss G {metrics['loss_G']:.3f} D {metrics['loss_D']:.3f}",
        )

    def log_images(self, path: Path, images_seen: int) -> None:
        """Do nothing: a terminal shows no images."""

    def log_result(self, generator: Path, images_seen: int, control: Control | None) -> None:
        """Do nothing: the result is printed later."""

    def close(self) -> None:
        """Remove the progress line."""
        self.line.__exit__()


class Loggers:
    """All loggers of a run.

    Args:
        config: its config, which names the trackers.
        folder: the run folder.
        images_seen: images seen when the run resumes.
        progress: show progress on the terminal.
        others: loggers of the caller.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        images_seen: int,
        progress: bool,
        others: Sequence[Logger] = (),
    ) -> None:
        self.quiet: list[Logger] = [JsonLines(folder, images_seen), *others]
        self.terminal: Terminal | None = None
        values = config.model_dump(mode="json")
        try:
            if config.wandb:
                self.quiet.append(Wandb(folder, values))
            if config.tensorboard:
                self.quiet.append(TensorBoard(folder, values))
            if config.mlflow:
                self.quiet.append(Mlflow(folder, values))
        except Exception:
            self.close()
            raise
        if progress:
            self.terminal = Terminal()

    def log(self, metrics: Metrics) -> None:
        """Log to all."""
        for logger in self._all():
            logger.log(metrics)

    def log_images(self, path: Path, images_seen: int) -> None:
        """Log a grid to all."""
        for logger in self._all():
            logger.log_images(path, images_seen)

    def log_result(self, generator: Path, images_seen: int, control: Control | None) -> None:
        """Log the final generator to all."""
        for logger in self._all():
            logger.log_result(generator, images_seen, control)

    def close_terminal(self) -> None:
        """Remove the progress line, so that other lines can follow."""
        if self.terminal is not None:
            self.terminal.close()
            self.terminal = None

    def close(self) -> None:
        """Close all, even if one fails."""
        with ExitStack() as stack:
            for logger in self._all():
                stack.callback(logger.close)

    def _all(self) -> list[Logger]:
        return [*self.quiet, *([self.terminal] if self.terminal else [])]
