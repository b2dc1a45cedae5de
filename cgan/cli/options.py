"""Options that several commands share, the consoles, and model loading."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cgan.console import SafeConsole
from cgan.errors import ConfigError, FileError

# Commands import torch and pydantic when they run, so that `cgan --help` is fast.
if TYPE_CHECKING:
    from cgan.sampling.sampler import Sampler

messages = SafeConsole(stderr=True)
results = SafeConsole()

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="A run folder, a generator file, mnist (the packaged generator) or hf-hub:owner/name. "
        "Default: the newest run, or mnist if there is none.",
        show_default=False,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps or xpu.")]
DataOption = Annotated[
    str | None,
    typer.Option(help="Data set or folder to use in place of the run's.", show_default=False),
]
DataDirOption = Annotated[
    str | None,
    typer.Option(help="Folder for (downloaded) data sets.", show_default="$CGAN_DATA or the cache"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_model(model: str | None) -> Sampler:
    """The requested generator, or the default one."""
    from cgan.sampling.sampler import load
    from cgan.storage.paths import newest_model

    return load(model if model is not None else newest_model())


def check_output(option: str, path: str | None, suffix: str) -> None:
    """Check the path of a file that is written at the end of long work.

    Raises:
        ConfigError: it has another suffix: it may be the path of another kind of file.
        FileError: nothing can be written there.
    """
    if path is None:
        return
    if Path(path).suffix != suffix:
        raise ConfigError(f"{option} takes a {suffix} file, not {path}")
    existing = next(folder for folder in Path(path).absolute().parents if os.path.exists(folder))
    if os.path.isdir(path):
        raise FileError(f"cannot write {path}: it is a folder; choose another place")
    if not existing.is_dir():
        raise FileError(f"cannot write {path}: {existing} is a file; choose another place")
    if not os.access(existing, os.W_OK):
        raise FileError(f"no permission to write {path}; choose another place")
