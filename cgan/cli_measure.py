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
    data_of,
    load_model,
    messages,
    place_of,
)

if TYPE_CHECKING:
    from cgan.data import Split
    from cgan.metrics.report import Report

SPLITS: tuple[Split, Split] = ("train", "test")
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

    (report,) = _measure([model], data, data_dir, per_class, features, device, cas)
    _write_page(html, [report])
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        tables.print_report(report)


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

    reports = _measure(list(models), data, data_dir, per_class, features, device)
    _write_page(html, reports)
    if as_json:
        typer.echo(json.dumps([report.to_dict() for report in reports], ensure_ascii=False))
    else:
        tables.print_comparison(reports)


def _measure(
    models: list[str | None],
    data: str | None,
    data_dir: str | None,
    per_class: int,
    features: str,
    device: str,
    cas: bool = False,
) -> list[Report]:
    """Load models, data and judges, and measure; the same data are looked at once."""
    from dataclasses import replace

    from cgan.data import load_split, say_held_out
    from cgan.device import find_device
    from cgan.loggers import read_curves
    from cgan.metrics.classifier import find_judge
    from cgan.metrics.measure import measure
    from cgan.metrics.reference import Reference

    place = find_device(device)
    samplers = [load_model(model).to(place) for model in models]
    references: dict[str, Reference] = {}
    reports = []
    for sampler in samplers:
        described = data_of(sampler, data, data_dir)
        key = described.model_dump_json()
        if key not in references:
            splits = {split: load_split(described, split) for split in SPLITS}
            references[key] = Reference(
                find_judge(splits.__getitem__, place, beside=sampler.path.parent),
                splits.__getitem__,
                held_out=say_held_out(described.source),
                per_class=per_class,
                features=features,
                device=place,
            )
        messages.print(f"measuring {place_of(sampler)}")
        report = measure(sampler, references[key], cas=cas)
        curves = read_curves(sampler.path.parent)
        reports.append(replace(report, model=place_of(sampler), curves=curves))
    return reports


def _write_page(html: str | None, reports: list[Report]) -> None:
    if html is not None:
        from cgan.files import write_atomically
        from cgan.page import render_page

        write_atomically(Path(html), render_page(reports).encode())
        messages.print(f"page: {html}")
