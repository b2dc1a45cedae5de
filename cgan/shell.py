"""What the commands share: options, messages, and which model is meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

# torch, pydantic and all that imports them wait inside the commands: `cgan --help` answers at once.
if TYPE_CHECKING:
    from cgan.config import DataConfig
    from cgan.sampling import Sampler

messages = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="A run's folder, a generator file, or mnist, which is in the package; without it, the "
        "newest run, or mnist where there is none."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
DataOption = Annotated[
    str | None, typer.Option(help="The data it was trained on, where the run doesn't tell.")
]
DataDirOption = Annotated[
    str | None,
    typer.Option(help="Where data sets lie or are downloaded to [$CGAN_DATA]."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def source_of(data: str) -> str:
    """A known name as it is, a folder as its full path."""
    from cgan.config import DATA_NAMES

    return data if data in DATA_NAMES or not Path(data).is_dir() else str(Path(data).resolve())


def load_model(model: str | None) -> Sampler:
    """The generator that is meant."""
    from cgan.runs import newest_model
    from cgan.sampling import load

    return load(model if model is not None else newest_model())


def place_of(sampler: Sampler) -> str:
    """What a generator is called: a name of the package, its run's folder, or its file."""
    from cgan.checkpoint import GENERATOR_FILE, PACKAGED
    from cgan.runs import CONFIG_FILE

    path = sampler.path
    if path.parent.parent == PACKAGED:
        return f"{path.parent.name} (in the package)"
    in_run = path.name == GENERATOR_FILE and (path.parent / CONFIG_FILE).exists()
    return str(path.parent if in_run else path)


def data_of(sampler: Sampler, data: str | None, data_dir: str | None) -> DataConfig:
    """The data that a generator was trained on, where they lie now.

    Raises:
        ConfigError: they are not there.
    """
    from cgan.config import DATA_NAMES, load_config
    from cgan.errors import ConfigError
    from cgan.runs import CONFIG_FILE

    beside = sampler.path.parent / CONFIG_FILE
    described = (load_config(beside) if beside.exists() else sampler.config).data
    changes: dict[str, object] = {}
    if data is not None:
        changes["source"] = source_of(data)
    if data_dir is not None:
        changes["data_dir"] = str(Path(data_dir).resolve())
    if described.size is None:
        changes["size"] = sampler.image_shape[1]
    described = described.model_copy(update=changes)
    if described.source not in DATA_NAMES and not Path(described.source).is_dir():
        raise ConfigError(
            f"the data it was trained on, {described.source}, is not there: "
            "say where it is with --data"
        )
    return described


def file_name(text: str) -> str:
    """A class name as a file may be called."""
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in text)
