"""The commands that measure: ``cgan evaluate`` and ``cgan compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

    report = _measure(model, data, data_dir, per_class, features, device, cas)
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

    reports = [_measure(model, data, data_dir, per_class, features, device) for model in models]
    _write_page(html, reports)
    if as_json:
        typer.echo(json.dumps([report.to_dict() for report in reports], ensure_ascii=False))
    else:
        tables.print_comparison(reports)


def _measure(
    model: str | None,
    data: str | None,
    data_dir: str | None,
    per_class: int,
    features: str,
    device: str,
    cas: bool = False,
) -> Report:
    """Load model, data and judge, and measure."""
    from dataclasses import replace

    from cgan.data import load_split, say_held_out
    from cgan.device import find_device
    from cgan.loggers import read_curves
    from cgan.metrics.classifier import find_judge
    from cgan.metrics.measure import measure

    place = find_device(device)
    sampler = load_model(model)
    described = data_of(sampler, data, data_dir)
    splits: dict[str, Any] = {}

    def load(split: Any) -> Any:
        if split not in splits:
            splits[split] = load_split(described, split)
        return splits[split]

    judge = find_judge(load, place, beside=sampler.path.parent)
    messages.print(f"measuring {place_of(sampler)}")
    report = measure(
        sampler.to(place),
        judge,
        load,
        held_out=say_held_out(described.source),
        per_class=per_class,
        features=features,
        cas=cas,
    )
    return replace(report, model=place_of(sampler), curves=read_curves(sampler.path.parent))


def _write_page(html: str | None, reports: list[Report]) -> None:
    if html is not None:
        from cgan.files import write_atomically
        from cgan.page import render_page

        write_atomically(Path(html), render_page(reports).encode())
        messages.print(f"page: {html}")
