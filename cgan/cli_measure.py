"""The commands that measure: ``cgan evaluate`` and ``cgan compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cgan.shell import (
    DataDirOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    load_model,
    messages,
)

if TYPE_CHECKING:
    from cgan.metrics.report import Report

PerClassOption = Annotated[int, typer.Option(min=1, help="Pictures a class.")]
FeaturesOption = Annotated[str, typer.Option(help="judge, or inception (downloads its weights).")]
HtmlOption = Annotated[
    str | None, typer.Option("--html", help="Write a page with pictures here.", metavar="FILE")
]


def evaluate(
    model: ModelArgument = None,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    per_class: PerClassOption = 1_000,
    features: FeaturesOption = "judge",
    cas: Annotated[
        bool, typer.Option("--cas", help="Also train a classifier on generated pictures.")
    ] = False,
    html: HtmlOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a generator against real pictures: control, quality, diversity, copying."""
    from cgan import tables
    from cgan.evaluation import evaluate as measure_model

    report = measure_model(
        load_model(model), data=data, data_dir=data_dir, per_class=per_class, features=features,
        cas=cas, device=device,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False))
    else:
        tables.print_report(report)
    _write_page(html, [report])


def compare(
    models: Annotated[list[str], typer.Argument(help="Runs, generator files, or mnist.")],
    data: DataOption = None,
    data_dir: DataDirOption = None,
    per_class: PerClassOption = 1_000,
    features: FeaturesOption = "judge",
    html: HtmlOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure several generators and set them side by side."""
    from cgan import tables
    from cgan.evaluation import compare as compare_models

    reports = compare_models(
        models, data=data, data_dir=data_dir, per_class=per_class, features=features, device=device
    )
    if as_json:
        told = [report.to_dict() for report in reports]
        typer.echo(json.dumps(told, ensure_ascii=False, allow_nan=False))
    else:
        tables.print_comparison(reports)
    _write_page(html, reports)


def _write_page(html: str | None, reports: list[Report]) -> None:
    if html is not None:
        from cgan.files import write_atomically
        from cgan.page import render_page

        write_atomically(Path(html), render_page(reports).encode())
        messages.print(f"page: {html}")
