"""What the shell prints of a plan, a run, a file and a measurement: plain lines to stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from cgan.config import Config, to_yaml
from cgan.data import look_at
from cgan.device import find_device
from cgan.metrics.control import Control
from cgan.metrics.report import Figure, Report
from cgan.models import build_networks, count_parameters
from cgan.places import RUNS
from cgan.sampling import Sampler
from cgan.trainer import Run

CARD = ("what", "command", "machine", "data", "data_licence", "licence", "limits")
"""What a model card says in words."""

MOST_COLUMNS = 10
"""A confusion matrix of more classes does not fit a terminal; the page has it."""

results = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_plan(config: Config, out: str | Path | None) -> None:
    """The resolved config, and what training would do with it."""
    image_shape, classes = look_at(config.data)
    pair = build_networks(config.model, image_shape, len(classes))
    kind = "conditional" if config.model.conditional else "plain"
    budget = f"{config.images:,} images" if config.images else f"{config.minutes:g} minutes"
    results.print(to_yaml(config).rstrip() + "\n")
    print_rows(
        {
            "would train": f"a {kind} GAN for {budget} on {find_device(config.device)}",
            "pictures": f"{say_shape(image_shape)}, {len(classes)} classes",
            "generator": f"{count_parameters(pair.generator):,} parameters",
            "discriminator": f"{count_parameters(pair.discriminator):,} parameters",
            "would write": f"{out or RUNS / config.name} (a number is added if that is taken)",
        }
    )


def print_run(run: Run, sampler: Sampler) -> None:
    """What training made, where, how good it is, and the command that draws from it."""
    rows = {
        "learned from": f"{run.images_seen:,} images in {run.seconds / 60:.1f} minutes",
        "run": str(run.folder),
    }
    if run.control is not None:
        rows["control accuracy"] = say_control(run.control)
    name = sampler.classes[min(7, len(sampler.classes) - 1)]
    option = f" --digit {name}" if sampler.has_digits else f" --class '{name}'"
    rows["draw"] = f"cgan generate {run.folder}{option if sampler.conditional else ''}"
    print_rows(rows)


def print_file(sampler: Sampler) -> None:
    """What a generator file is."""
    header = sampler.header
    measured = header["measured"]
    accuracy = say_share(measured["control_accuracy"]) if measured else "not measured"
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    print_rows(
        {
            "file": f"{sampler.path} (format {header['format_version']})",
            "draws": ", ".join(sampler.classes) + ("" if sampler.conditional else " (unasked)"),
            "pictures": say_shape(sampler.image_shape),
            "learned from": f"{header['data']}: {header['images_seen']:,} images, "
            f"{header['seconds'] / 60:.1f} minutes",
            "parameters": f"{count_parameters(sampler.generator):,}",
            "control accuracy": accuracy,
            "written by": versions,
        }
    )
    if card := header.get("card"):
        print_card(card)
    results.print("\n" + yaml.safe_dump(header["config"], sort_keys=False).rstrip())


def print_card(card: Mapping[str, Any]) -> None:
    """The model card of a generator that comes with the package."""
    results.print()
    print_rows({key.replace("_", " "): card[key] for key in CARD if key in card})
    table = Table(title=f"{card['pictures']:,} pictures; features: {card['features']}")
    table.add_column("figure")
    for heading in ("generated", "real", "chance"):
        table.add_column(heading, justify="right")
    first = sorted(card["figures"].items(), key=lambda row: not row[0].startswith("control"))
    for key, row in first:
        numbers = [say_number(row[column]) for column in ("value", "real", "chance")]
        table.add_row(key.replace("_", " "), *numbers)
    results.print(table)


def print_report(report: Report) -> None:
    """Everything that was measured of one generator, class control first."""
    control = report.control
    results.print(f"{report.model}\ncontrol accuracy  {say_control(control)}")
    print_warnings(report)
    print_figures([report])
    by_class = Table(title="class by class")
    by_class.add_column("class")
    for heading in ("obeyed", "95 % interval", "real", "intra-class FID", "real", "diversity"):
        by_class.add_column(heading, justify="right")
    for one in report.classes:
        interval = f"{100 * one.control_low:.1f}–{100 * one.control_high:.1f} %"
        real = "–" if one.control_real is None else say_share(one.control_real)
        numbers = [say_number(value) for value in (one.fid, one.fid_real, one.diversity)]
        by_class.add_row(one.name, say_share(one.control), interval, real, *numbers)
    results.print(by_class)
    if len(control.classes) <= MOST_COLUMNS:
        print_confusion(control)


def print_confusion(control: Control) -> None:
    """Row asked for, column seen; · is never."""
    table = Table(title="asked for (rows), seen by the judge (columns), % of the row")
    table.add_column("")
    for name in control.classes:
        table.add_column(name[:5], justify="right")
    for name, row in zip(control.classes, control.confusion, strict=True):
        shares = (100 * row / row.sum()).tolist()
        table.add_row(name, *[f"{share:.1f}" if share else "·" for share in shares])
    results.print(table)


def print_comparison(reports: Sequence[Report]) -> None:
    """Several generators, side by side."""
    print_figures(reports)
    for report in reports:
        results.print(report.model)
        print_warnings(report)


def print_warnings(report: Report) -> None:
    """In words: what is wrong, and what could not be measured."""
    for warning in report.warnings:
        results.print(f"warning: {warning}", style="yellow")
    for reason in report.left_out:
        results.print(f"left out: {reason}", style="dim")


def print_figures(reports: Sequence[Report]) -> None:
    """Every figure of every report, beside what real pictures and chance get."""
    first = reports[0]
    networks = ", ".join(dict.fromkeys(report.features for report in reports))
    counts = ", ".join(dict.fromkeys(f"{report.pictures:,}" for report in reports))
    table = Table(
        title=f"{counts} pictures against {first.held_out}\nfeatures: {networks}",
        title_justify="left",
    )
    table.add_column("figure")
    for report in reports:
        table.add_column(report.model if len(reports) > 1 else "generated", justify="right")
    table.add_column("real", justify="right")
    table.add_column("chance", justify="right")
    by_key = [{figure.key: figure for figure in report.figures} for report in reports]
    for key in dict.fromkeys(key for figures in by_key for key in figures):
        known = [figures[key] for figures in by_key if key in figures]
        figure = known[0]
        title = figure.title if len(reports) == 1 else figure.title.partition(" (")[0]
        told = [figures.get(key) for figures in by_key]
        values = [say_figure(one, "value") for one in told]
        real, chance = (
            " / ".join(dict.fromkeys(say_figure(one, column) for one in told))
            for column in ("real", "chance")
        )
        table.add_row(title, *values, real, chance)
    results.print(table)


def print_rows(rows: dict[str, str]) -> None:
    """Names and values, aligned."""
    width = max(map(len, rows))
    for name, value in rows.items():
        results.print(f"{name:<{width}}  {value}")


def say_control(control: Control) -> str:
    """The first number, between chance and what real pictures get."""
    ceiling = control.judge_accuracy
    real = f"; held-out real pictures {say_share(ceiling)}" if ceiling is not None else ""
    low, high = control.interval
    return (
        f"{say_share(control.accuracy)} (95 % interval {100 * low:.2f} to {say_share(high)}; "
        f"chance {say_share(control.chance)}{real})"
    )


def say_figure(figure: Figure | None, column: str) -> str:
    """One cell: a share as %, another number to four digits, – where there is none."""
    value = None if figure is None else getattr(figure, column)
    if figure is None or value is None:
        return "–"
    return say_share(value) if figure.share else say_number(value)


def say_number(value: float | None) -> str:
    """To four digits; – for none."""
    return "–" if value is None else f"{value:.4g}"


def say_share(share: float) -> str:
    """``0.98765`` as ``98.77 %``."""
    return f"{100 * share:.2f} %"


def say_shape(image_shape: tuple[int, int, int]) -> str:
    """``28×28, 1 channel``."""
    channels, height, width = image_shape
    return f"{height}×{width}, {'grey' if channels == 1 else 'colour'}"
