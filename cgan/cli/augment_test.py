"""``cgan augment-test``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cgan.cli.options import (
    DataDirOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    load_model,
)

MinutesOption = Annotated[
    float, typer.Option(min=0, help="About the longest training time of all classifiers together.")
]
SeedsOption = Annotated[int, typer.Option(min=2, help="Classifiers per row.")]


def augment_test(
    model: ModelArgument = None,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    minutes: MinutesOption = 30.0,
    seeds: SeedsOption = 3,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure whether generated images help a classifier of the real ones."""
    from cgan.cli.tables import print_augment_test
    from cgan.evaluation.augment_test import augment_test as run

    result = run(
        load_model(model), data=data, data_dir=data_dir, minutes=minutes, seeds=seeds,
        device=device, progress=True,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result.to_dict(), allow_nan=False))
    else:
        print_augment_test(result)
