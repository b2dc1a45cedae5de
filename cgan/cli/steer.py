"""``cgan steer``."""

from __future__ import annotations

from typing import Annotated

import typer

from cgan.cli.options import DataDirOption, DeviceOption
from cgan.cli.train import (
    ImagesOption,
    MinutesOption,
    SeedOption,
    SetOption,
    read_overrides,
    report,
)
from cgan.errors import ConfigError

GeneratorArgument = Annotated[
    str,
    typer.Argument(help="The run folder or generator file of a plain GAN.", show_default=False),
]
LabelledDataOption = Annotated[
    str | None,
    typer.Option(
        help="Labelled images: a data set, a folder, a ZIP or TAR file, or hf-datasets:NAME.",
        show_default="the data of the plain GAN",
    ),
]
OutOption = Annotated[
    str | None, typer.Option(help="The run folder.", show_default="GENERATOR-steered")
]


def steer(
    generator: GeneratorArgument,
    data: LabelledDataOption = None,
    data_dir: DataDirOption = None,
    images: ImagesOption = None,
    minutes: MinutesOption = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    out: OutOption = None,
    assignments: SetOption = None,
) -> None:
    """Add class control to a plain GAN without changing its generator."""
    if images is not None and minutes is not None:
        raise ConfigError("give the budget either in --images or in --minutes")
    options = {"images": images, "minutes": minutes, "seed": seed}
    overrides = read_overrides(options, assignments or [])
    from cgan.training.steer import steer as run

    report(
        run(
            generator, data, data_dir=data_dir, out=out, device=device, overrides=overrides,
            progress=True,
        )
    )  # fmt: skip
