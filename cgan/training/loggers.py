"""Loggers for the terminal, JSON lines, wandb and TensorBoard, with one common protocol."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from cgan.config import Config
from cgan.errors import ConfigError, FileError, one_line
from cgan.runtime.progress import ProgressLine, format_seconds
from cgan.storage.atomic import explain_write_error, write_atomically
from cgan.storage.metrics import METRICS_FILE, read_metrics

WANDB_ID_FILE = "wandb-run-id"
"""In the run folder: the id of its wandb run. A copy of the folder continues the same wandb run."""

Metrics = Mapping[str, float]

logger = logging.getLogger("cgan")


class Logger(Protocol):
    """Receives metrics and sample grids. ``images_seen`` is always among the metrics."""

    def log(self, metrics: Metrics) -> None:
        """Log one set of metrics."""
        ...

    def log_images(self, path: Path, images_seen: int) -> None:
        """Log the grid of samples stored at ``path``."""
        ...

    def close(self) -> None:
        """Release all resources."""
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

    def close(self) -> None:
        """Remove the progress line."""
        self.line.__exit__()


class Wandb:
    """Weights & Biases. ``WANDB_MODE=offline`` needs no account.

    The id of its run is stored in the run folder, so that a resumed run continues it. Curves are
    drawn over ``images_seen``. wandb's own step is a little more after a killed run was resumed:
    it must never fall, and the resumed state is from before the last log line.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = import_optional("wandb", "wandb")
        known = read_wandb_id(folder)
        try:
            self.run = wandb.init(
                project="cgan", name=folder.name, dir=str(folder), config=dict(config),
                id=known, resume="allow" if known else None,
                reinit="create_new" if wandb.run else None,  # leave a run of the caller alone
            )  # fmt: skip
        except wandb.Error as error:
            again = f", delete {folder / WANDB_ID_FILE} to start a new wandb run" if known else ""
            raise ConfigError(
                f"wandb failed to start ({one_line(error)}): log in with `wandb login`, "
                f"set WANDB_MODE=offline{again}, or leave out --wandb"
            ) from error
        self.run.define_metric("*", step_metric="images_seen")
        self.last_step = self.run.step - 1
        self.image = wandb.Image
        if known is None:
            try:
                write_atomically(folder / WANDB_ID_FILE, self.run.id.encode())
            except FileError:
                self.close()
                raise

    def log(self, metrics: Metrics) -> None:
        """Log one set of metrics."""
        self._log(dict(metrics))

    def log_images(self, path: Path, images_seen: int) -> None:
        """Log the grid."""
        self._log({"samples": self.image(str(path)), "images_seen": images_seen})

    def _log(self, row: dict[str, Any]) -> None:
        self.last_step = max(self.last_step + 1, int(row["images_seen"]))
        self.run.log(row, step=self.last_step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path) -> None:
        import_optional("tensorboard", "cgan[tensorboard]")
        writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self.writer = writer(log_dir=str(folder / "tensorboard"))

    def log(self, metrics: Metrics) -> None:
        """Log every metric over images seen."""
        for name, value in metrics.items():
            if name != "images_seen":
                self.writer.add_scalar(name, value, int(metrics["images_seen"]))

    def log_images(self, path: Path, images_seen: int) -> None:
        """Log the grid."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image)
        layout = "HW" if pixels.ndim == 2 else "HWC"
        self.writer.add_image("samples", pixels, images_seen, dataformats=layout)

    def close(self) -> None:
        """Flush."""
        self.writer.close()


class Loggers:
    """All loggers of a run."""

    def __init__(self, config: Config, folder: Path, images_seen: int, progress: bool) -> None:
        self.quiet: list[Logger] = [JsonLines(folder, images_seen)]
        self.terminal: Terminal | None = None
        try:
            if config.wandb:
                self.quiet.append(Wandb(folder, config.model_dump(mode="json")))
            if config.tensorboard:
                self.quiet.append(TensorBoard(folder))
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


def read_wandb_id(folder: Path) -> str | None:
    """The id of a folder's wandb run; None if there is none, or, with a warning, no valid one."""
    path = folder / WANDB_ID_FILE
    if not path.is_file():
        return None
    content = b""
    with suppress(OSError), path.open("rb") as file:
        content = file.read(200).strip()
    if not re.fullmatch(rb"[\w.-]{1,128}", content):
        logger.warning("%s holds no id of a wandb run: starting a new wandb run", path)
        return None
    return content.decode()


def import_optional(module: str, requirement: str) -> Any:
    """Import an optional package; raises ``ConfigError`` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} is not installed: pip install '{requirement}', or run without it"
        ) from error
