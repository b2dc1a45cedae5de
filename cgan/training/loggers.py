"""Loggers of a run, with one common protocol: JSON lines, the terminal, your own, and trackers.

Trackers are Weights & Biases, TensorBoard and MLflow.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from cgan.config import Config
from cgan.config_io import flatten
from cgan.errors import ConfigError, FileError, one_line
from cgan.evaluation.control import Control
from cgan.runtime.progress import ProgressLine, format_seconds
from cgan.storage.atomic import explain_write_error, write_atomically
from cgan.storage.paths import METRICS_FILE
from cgan.storage.run_files import read_metrics

WANDB_ID_FILE = "wandb-run-id"
MLFLOW_ID_FILE = "mlflow-run-id"
"""In the run folder: the id of its run there. A copy of the folder continues the same run."""

Metrics = Mapping[str, float]

logger = logging.getLogger("cgan")


class Wandb:
    """Weights & Biases. ``WANDB_MODE=offline`` needs no account.

    The id of its run is stored in the run folder, so that a resumed run continues it. Curves are
    drawn over ``images_seen``. wandb's own step is a little more after a killed run was resumed:
    it must never fall, and the resumed state is from before the last log line.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = import_optional("wandb", "wandb")
        known = read_run_id(folder / WANDB_ID_FILE, "wandb")
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
        self.wandb, self.name = wandb, folder.name
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
        self._log({"samples": self.wandb.Image(str(path)), "images_seen": images_seen})

    def log_result(self, generator: Path, images_seen: int, control: Control | None) -> None:
        """Log the confusion matrix as a table, and the generator file as an artifact."""
        artifact = self.wandb.Artifact(
            re.sub(r"[^\w.-]", "-", self.name, flags=re.ASCII)[:128], type="model"
        )
        artifact.add_file(str(generator))
        self.run.log_artifact(artifact)
        if control is not None:
            columns = ["requested", "recognised", "images"]
            table = self.wandb.Table(columns=columns, data=confusion_rows(control.for_display()))
            self._log({"confusion": table, "images_seen": images_seen})

    def _log(self, row: dict[str, Any]) -> None:
        self.last_step = max(self.last_step + 1, int(row["images_seen"]))
        self.run.log(row, step=self.last_step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import_optional("tensorboard", "cgan[tensorboard]")
        writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self.writer = writer(log_dir=str(folder / "tensorboard"))
        self.config = config

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

    def log_result(self, generator: Path, images_seen: int, control: Control | None) -> None:
        """Log the config as hparams with the control accuracy, and the confusion matrix."""
        if control is None:
            return
        hparams = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in flatten(self.config).items()
        }
        metrics = {"hparam/control_accuracy": control.accuracy}
        self.writer.add_hparams(hparams, metrics, run_name=".", global_step=images_seen)
        cells = control.for_display().confusion
        shares = cells / cells.sum(1, keepdim=True).clamp_min(1)
        self.writer.add_image("confusion", 1 - shares, images_seen, dataformats="HW")

    def close(self) -> None:
        """Flush."""
        self.writer.close()


class Mlflow:
    """MLflow, at ``MLFLOW_TRACKING_URI``, in the experiment ``MLFLOW_EXPERIMENT_NAME`` or cgan.

    The id of its run is stored in the run folder, so that a resumed run continues it.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it is read by the import
        mlflow = import_optional("mlflow", "cgan[mlflow]")
        known = read_run_id(folder / MLFLOW_ID_FILE, "MLflow")
        try:
            self.client = mlflow.MlflowClient()
            self.run_id = known or self._create_run(mlflow, folder, config)
            self.client.update_run(self.run_id, status="RUNNING")
            self.metric, self.warned = mlflow.entities.Metric, False
            self.handled = sys.exc_info()[1]  # training may be what a caller's `except` does
        except mlflow.exceptions.MlflowException as error:
            raise ConfigError(
                f"MLflow failed to start ({one_line(error)}): set MLFLOW_TRACKING_URI, delete "
                f"{folder / MLFLOW_ID_FILE} if it exists, or set mlflow to false"
            ) from error
        write_atomically(folder / MLFLOW_ID_FILE, self.run_id.encode())

    def _create_run(self, mlflow: Any, folder: Path, config: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "cgan")
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        run_id: str = self.client.create_run(experiment, run_name=folder.name).info.run_id
        params = [mlflow.entities.Param(key, str(value)) for key, value in flatten(config).items()]
        self.client.log_batch(run_id, params=params)
        return run_id

    def log(self, metrics: Metrics) -> None:
        """Log every metric over images seen."""
        step, now = int(metrics["images_seen"]), round(1000 * time.time())
        rows = [
            self.metric(name, value, now, step)
            for name, value in metrics.items()
            if name != "images_seen"
        ]
        self._call("log_batch", metrics=rows)

    def log_images(self, path: Path, images_seen: int) -> None:
        """Store the grid as an artifact."""
        self._call("log_artifact", str(path), "samples")

    def log_result(self, generator: Path, images_seen: int, control: Control | None) -> None:
        """Store the generator file and the confusion matrix as artifacts."""
        self._call("log_artifact", str(generator))
        if control is not None:
            columns = ["requested", "recognised", "images"]
            table = {"columns": columns, "data": confusion_rows(control)}
            self._call("log_dict", table, "confusion.json")

    def close(self) -> None:
        """End the run; it has failed if an exception is on its way."""
        failed = sys.exc_info()[1] not in (None, self.handled)
        self._call("set_terminated", "FAILED" if failed else "FINISHED")

    def _call(self, method: str, *arguments: Any, **options: Any) -> None:
        """Call the server; a failure is a warning, and does not end the training."""
        try:
            getattr(self.client, method)(self.run_id, *arguments, **options)
        except Exception as error:  # MLflow's, and those of the connection
            if not self.warned:
                logger.warning("MLflow does not receive everything: %s", one_line(error))
            self.warned = True


def confusion_rows(control: Control) -> list[list[Any]]:
    """Requested class, recognised class and number of images, for each pair that occurred."""
    names = control.classes
    return [
        [names[requested], names[recognised], int(control.confusion[requested, recognised])]
        for requested, recognised in control.confusion.nonzero().tolist()
    ]


def read_run_id(path: Path, service: str) -> str | None:
    """The id of a run in a file; None if there is none, or, with a warning, no valid one."""
    if not path.is_file():
        return None
    content = b""
    with suppress(OSError), path.open("rb") as file:
        content = file.read(200).strip()
    if not re.fullmatch(rb"[\w.-]{1,128}", content):
        logger.warning("%s holds no id of a %s run: starting a new %s run", path, service, service)
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
