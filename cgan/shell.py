"""What the commands share: options, messages, and which model is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

# torch, pydantic and all that imports them wait inside the commands: `cgan --help` answers at once.
if TYPE_CHECKING:
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


def load_model(model: str | None) -> Sampler:
    """The generator that is meant."""
    from cgan.places import newest_model
    from cgan.sampling import load

    return load(model if model is not None else newest_model())


def file_name(text: str) -> str:
    """A class name as a file may be called."""
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in text)


def file_names(names: Sequence[str]) -> list[str]:
    """The same for all classes, each another: "c#" and "c+" must not share a folder."""
    found = [file_name(name) for name in names]
    twice = {name.lower() for name in found if [f.lower() for f in found].count(name.lower()) > 1}
    return [f"{n}-{k}" if n.lower() in twice else n for k, n in enumerate(found)]
