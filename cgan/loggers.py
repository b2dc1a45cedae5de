"""Where a run's figures go: the terminal, JSON lines, wandb, TensorBoard, behind one protocol."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cgan.config import Config
from cgan.errors import ConfigError, FileError
from cgan.files import explain, write_atomically

Figures = Mapping[str, float]
METRICS_FILE = "metrics.jsonl"
CURVES = {"loss_G", "loss_D", "penalty", "control_accuracy", "fid", "background_ink"}
"""What is worth a picture over images seen."""
PLAIN_LINE_EVERY_SECONDS = 5.0


class Logger(Protocol):
    """What a trainer tells. Each figure's name carries its unit; ``images_seen`` is among them."""

    def log(self, figures: Figures) -> None:
        """Take the figures of one moment."""
        ...

    def picture(self, path: Path, images_seen: int) -> None:
        """Take a grid of samples that lies at ``path``."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class JsonLines:
    """``metrics.jsonl``: one JSON object a line, appended and flushed."""

    def __init__(self, folder: Path, images_seen: int = 0) -> None:
        self.path = folder / METRICS_FILE
        if self.path.exists():  # a run that goes on: what was written after its state comes again
            kept = [row for row in read_metrics(folder) if row["images_seen"] <= images_seen]
            lines = "".join(json.dumps(row) + "\n" for row in kept)
            write_atomically(self.path, lines.encode())
        try:
            self.file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise FileError(explain(error, self.path)) from error

    def log(self, figures: Figures) -> None:
        """Append one line."""
        try:
            self.file.write(json.dumps(dict(figures)) + "\n")
            self.file.flush()
        except OSError as error:
            raise FileError(explain(error, self.path)) from error

    def picture(self, path: Path, images_seen: int) -> None:
        """Nothing: the picture is a file already."""

    def close(self) -> None:
        """Close the file; each line was flushed, or its failure told, when it came."""
        with suppress(OSError):
            self.file.close()


class Terminal:
    """One progress line on a terminal, a plain line every few seconds in a pipe; to stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.last_line = float("-inf")
        self.progress: Progress | None = None
        if self.console.is_terminal:
            self.progress = Progress(
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.description}", markup=False),
                console=self.console,
            )
            self.task = self.progress.add_task("starting", total=1.0)
            self.progress.start()

    def log(self, figures: Figures) -> None:
        """Show what is known of the losses and of the time left."""
        if "share" not in figures:
            return
        text = (
            f"{figures['images_seen']:,} images · {figures['images_per_second']:,.0f} images/s"
            f" · {say_seconds(figures['seconds_left'])} left"
            f" · loss G {figures['loss_G']:.3f} D {figures['loss_D']:.3f}"
        )
        if self.progress is not None:
            self.progress.update(self.task, completed=figures["share"], description=text)
        elif time.monotonic() - self.last_line >= PLAIN_LINE_EVERY_SECONDS:
            self.last_line = time.monotonic()
            self.console.print(
                f"{100 * figures['share']:3.0f} % · {text}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def picture(self, path: Path, images_seen: int) -> None:
        """Nothing: a terminal shows no pictures."""

    def close(self) -> None:
        """Take the progress line away."""
        if self.progress is not None:
            self.progress.stop()


class Wandb:
    """Weights & Biases; ``WANDB_MODE=offline`` works without an account."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = import_optional("wandb", "wandb")
        try:
            self.run = wandb.init(
                project="cgan", name=folder.name, dir=str(folder), config=dict(config)
            )
        except wandb.Error as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise ConfigError(
                f"wandb will not start ({reason}): log in with `wandb login`, "
                "set WANDB_MODE=offline, or leave out --wandb"
            ) from error
        self.image = wandb.Image

    def log(self, figures: Figures) -> None:
        """One step, counted in images."""
        self.run.log(dict(figures), step=int(figures["images_seen"]))

    def picture(self, path: Path, images_seen: int) -> None:
        """The grid beside the figures."""
        self.run.log({"samples": self.image(str(path))}, step=images_seen)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path) -> None:
        import_optional("tensorboard", "cgan[tensorboard]")
        writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self.writer = writer(log_dir=str(folder / "tensorboard"))

    def log(self, figures: Figures) -> None:
        """Every figure as a curve over images seen."""
        for name, value in figures.items():
            if name != "images_seen":
                self.writer.add_scalar(name, value, int(figures["images_seen"]))

    def picture(self, path: Path, images_seen: int) -> None:
        """The grid beside the curves."""
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
    """All the loggers that a config asks for, told together."""

    def __init__(self, config: Config, folder: Path, images_seen: int, progress: bool) -> None:
        described = config.model_dump(mode="json")
        self.quiet: list[Logger] = [JsonLines(folder, images_seen)]
        if config.wandb:
            self.quiet.append(Wandb(folder, described))
        if config.tensorboard:
            self.quiet.append(TensorBoard(folder))
        self.terminal = Terminal() if progress else None

    def log(self, figures: Figures) -> None:
        """Tell all."""
        for logger in self._all():
            logger.log(figures)

    def picture(self, path: Path, images_seen: int) -> None:
        """Show all."""
        for logger in self._all():
            logger.picture(path, images_seen)

    def leave_terminal(self) -> None:
        """End the progress line, so that other lines can follow."""
        if self.terminal is not None:
            self.terminal.close()
            self.terminal = None

    def close(self) -> None:
        """Close all."""
        with ExitStack() as stack:  # all of them, even if one fails
            for logger in self._all():
                stack.callback(logger.close)

    def _all(self) -> list[Logger]:
        return [*self.quiet, *([self.terminal] if self.terminal else [])]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The figures of a run, in the order they came; a torn last line is left out."""
    rows = []
    for line in (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What a run logged, by name: (images seen, value); nothing where it logged nothing."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in read_metrics(folder) if (folder / METRICS_FILE).exists() else ():
        for name in CURVES & row.keys():
            curves.setdefault(name, []).append((int(row["images_seen"]), row[name]))
    return {name: curves[name] for name in sorted(curves)}


def import_optional(module: str, requirement: str) -> Any:
    """Import a package that not everybody has; one clear sentence where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} is not installed: pip install '{requirement}', or run without it"
        ) from error


def say_seconds(seconds: float) -> str:
    """``75.2`` as ``1:15``, ``4000`` as ``1:06:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
