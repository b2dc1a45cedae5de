"""What the commands print to stdout: plans, runs, generator files, reports."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from cgan.attributes import sort_for_display
from cgan.cli.options import results
from cgan.config import Config
from cgan.config_io import to_yaml
from cgan.console import SafeConsole
from cgan.data import dataset_info
from cgan.data.scan_facts import describe_counts
from cgan.evaluation.augment_test import AugmentTest, format_range
from cgan.evaluation.control import Control
from cgan.evaluation.report import Report, figure_rows, format_share, format_value
from cgan.evaluation.verdict import format_difference
from cgan.models import build_networks, count_parameters
from cgan.runtime.device import find_device
from cgan.sampling.sampler import Sampler
from cgan.storage.paths import RUNS
from cgan.training.trainer import Run

CARD = ("what", "command", "machine", "data", "data_licence", "licence", "limits")
"""The text entries of a model card."""

MAX_COLUMNS = 10
"""A confusion matrix with more classes does not fit a terminal; the HTML report shows it."""
SHARES = {"precision", "recall", "coverage", "copied_share", "cas"}
"""Metrics of a model card that are fractions, in addition to the accuracies."""


def print_plan(config: Config, out: str | Path | None, resumed: Path | None = None) -> None:
    """The resolved config, and what training would do."""
    image_shape, classes = dataset_info(config.data)
    pair = build_networks(config.model, image_shape, len(classes))
    kind = "conditional" if config.model.conditional else "plain"
    budget = f"{config.images:,} images" if config.images else f"{config.minutes:g} minutes"
    print_yaml(to_yaml(config))
    results.print()
    print_rows(
        {
            "would train": f"a {kind} GAN for {budget} on {find_device(config.device)}",
            "images": f"{format_shape(image_shape)}, {len(classes)} classes",
            "generator": f"{count_parameters(pair.generator):,} parameters",
            "discriminator": f"{count_parameters(pair.discriminator):,} parameters",
            "would write": str(
                resumed or f"{out or RUNS / config.name} (with a number if it exists)"
            ),
        }
    )


def print_run(run: Run, sampler: Sampler) -> None:
    """The result of training, and the command that generates images with it."""
    rows = {
        "trained on": f"{run.images_seen:,} images in {run.seconds / 60:.1f} minutes",
        "run": str(run.folder),
    }
    if run.control is not None:
        rows["control accuracy"] = format_control(run.control)
    name = sampler.classes[min(7, len(sampler.classes) - 1)]
    option = f" --digit {name}" if sampler.has_digits else f" --class {shlex.quote(name)}"
    rows["draw"] = (
        f"cgan generate {shlex.quote(str(run.folder))}{option if sampler.conditional else ''}"
    )
    print_rows(rows)


def print_file(sampler: Sampler) -> None:
    """A generator file."""
    header = sampler.header
    measured = header["measured"]
    accuracy = format_share(measured["control_accuracy"]) if measured else "not measured"
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    print_rows(
        {
            "file": f"{sampler.path} (format {header['format_version']})",
            "classes": _counted(sampler) + ("" if sampler.conditional else " (cannot be chosen)"),
            "images": format_shape(sampler.image_shape),
            "trained on": f"{header['data']}: {header['images_seen']:,} images, "
            f"{header['seconds'] / 60:.1f} minutes",
            "parameters": f"{count_parameters(sampler.generator):,}",
            "control accuracy": accuracy,
            **_steered_row(header),
            "written by": versions,
        }
    )
    if card := header.get("card"):
        print_card(card)
    results.print()
    print_yaml(yaml.safe_dump(header["config"], sort_keys=False))


def _counted(sampler: Sampler) -> str:
    """The classes with their training images, if the header has the numbers."""
    counts = sampler.header.get("class_counts", [])
    if len(counts) != len(sampler.classes):
        return ", ".join(sort_for_display(sampler.classes))
    return describe_counts(sampler.classes, counts)


def _steered_row(header: Mapping[str, Any]) -> dict[str, str]:
    """The generator that a steered one steers."""
    if (steered := header.get("steered")) is None:
        return {}
    kind = "an ONNX network, " if steered["model"] is None else ""
    return {"steers": f"{steered['name']} ({kind}SHA-256 {steered['sha256'][:16]}…)"}


def print_card(card: Mapping[str, Any]) -> None:
    """The model card of a packaged generator."""
    results.print()
    print_rows({key.replace("_", " "): card[key] for key in CARD if key in card})
    table = Table(title=f"{card['pictures']:,} images; features: {card['features']}")
    table.add_column("metric")
    for heading in ("generated", "real", "chance"):
        table.add_column(heading, justify="right")
    for key, row in sorted(card["figures"].items(), key=lambda row: "control" not in row[0]):
        share = "accuracy" in key or key in SHARES
        numbers = [format_value(row[column], share) for column in ("value", "real", "chance")]
        table.add_row(key.replace("_", " "), *numbers)
    results.print(table)


def print_report(report: Report) -> None:
    """One report, class control first."""
    results.print(report.model)
    rows = {"control accuracy": format_control(report.control), "judge": report.control.judge}
    if report.splits:
        rows["training"] = f"{report.train_images:,} real images"
        rows["validation"] = f"{report.splits['validation']}, used to choose the best generator"
    print_rows({**rows, "test": f"{report.test_set}, for this report"})
    print_warnings(report)
    print_figures([report])
    print_classes(report)
    if len(report.control.classes) <= MAX_COLUMNS:
        print_confusion(report.control)


def print_classes(report: Report) -> None:
    """Control, FID within the class (or KID, if there are few images) and diversity."""
    table = Table(title="metrics per class")
    table.add_column("class")
    few = all(one.fid is None for one in report.classes)
    distance = "KID" if few else "FID"
    for heading in ("control", "95 % interval", "real", distance, "real", "diversity"):
        table.add_column(heading, justify="right")
    for one in report.shown_classes:
        interval = f"{100 * one.control_low:.1f}–{100 * one.control_high:.1f} %"
        real = format_value(one.control_real, share=True)
        distances = (one.kid, one.kid_real) if few else (one.fid, one.fid_real)
        numbers = [format_value(value) for value in (*distances, one.diversity)]
        table.add_row(one.name, format_share(one.control), interval, real, *numbers)
    results.print(table)


def print_confusion(control: Control) -> None:
    """The confusion matrix in %; · means 0."""
    table = Table(title="requested class (rows), class predicted by the judge (columns), %")
    table.add_column("")
    shown = control.for_display()
    for name in shown.classes:
        table.add_column(name[:5], justify="right")
    for name, row in zip(shown.classes, shown.confusion, strict=True):
        shares = (100 * row / row.sum()).tolist()
        table.add_row(name, *[f"{share:.1f}" if share else "·" for share in shares])
    results.print(table)


def print_comparison(reports: Sequence[Report]) -> None:
    """Several reports side by side."""
    print_figures(reports)
    judges = dict.fromkeys(report.control.judge for report in reports)
    print_rows({"judge": "; ".join(judges)})
    for report in reports:
        results.print(report.model)
        print_warnings(report)


def print_warnings(report: Report) -> None:
    """Problems of a generator, and metrics that were left out."""
    for warning in report.warnings:
        results.print(f"warning: {warning}", style="yellow")
    for reason in report.left_out:
        results.print(f"left out: {reason}", style="dim")


def print_figures(reports: Sequence[Report]) -> None:
    """All metrics, next to those of real images and of chance."""
    test_sets = " or ".join(dict.fromkeys(f"{report.test_images:,}" for report in reports))
    networks = ", ".join(dict.fromkeys(report.features for report in reports))
    counts = ", ".join(dict.fromkeys(f"{report.pictures:,}" for report in reports))
    results.print(f"{counts} generated images against {test_sets} test images", style="italic")
    results.print(f"features: {networks}", style="italic")
    table = Table()
    table.add_column("metric")
    for report in reports:
        table.add_column(report.model if len(reports) > 1 else "generated", justify="right")
    table.add_column("real", justify="right")
    table.add_column("chance", justify="right")
    for row in figure_rows(reports):
        table.add_row(row.title, *row.values, row.real, row.chance)
    results.print(table)


def print_yaml(text: str) -> None:
    """YAML, line by line."""
    for line in text.rstrip().split("\n"):
        results.print(line)


def print_rows(rows: dict[str, str]) -> None:
    """Names and values, aligned."""
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        results.print(f"{name:<{width}}  {value}")


def format_control(control: Control) -> str:
    """Control accuracy with its interval, chance, and the judge's accuracy on real images."""
    known = control.judge_accuracy
    real = f"; real test images {format_share(known)}" if known is not None else ""
    if control.relative is not None and control.relative_interval is not None:
        least, most = control.relative_interval
        real += f", so {control.relative:.2f} of real ones: {least:.2f} to {most:.2f}"
    low, high = control.interval
    return (
        f"{format_share(control.accuracy)} (95 % interval {100 * low:.2f} to {format_share(high)}; "
        f"chance {format_share(control.chance)}{real})"
    )


def format_shape(image_shape: tuple[int, int, int]) -> str:
    """``28×28, grey``."""
    channels, height, width = image_shape
    return f"{width}×{height}, {'grey' if channels == 1 else 'colour'}"


def print_augment_test(result: AugmentTest, console: SafeConsole) -> None:
    """Accuracies by recipe, the differences that decide, and the verdict."""
    console.print(
        f"{result.model}: {result.train_images:,} training and {result.test_images:,} test images; "
        f"each classifier sees {result.shown_images:,} real images; of {result.drawn_images:,} "
        f"generated ones, judges assign {format_share(result.left_out)} to another class",
        style="italic",
    )
    table = Table(title="right in %: mean (lowest–highest seed)")
    table.add_column("trained on")
    for heading in ("validation", "test", *([result.rarest_class] if result.rarest_class else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result.rows:
        columns = [row.validation, row.test, *([row.rarest] if row.rarest else [])]
        table.add_row(row.name, *map(format_range, columns))
    console.print(table)
    console.print(f"{result.verdict.best}, on test images:")
    for one in result.verdict.comparisons:
        text = format_difference(one.test)
        if one.rarest is not None:
            text += f"; {result.rarest_class}: {format_difference(one.rarest)}"
        console.print(f"  against {one.control}: {text}")
    for note in result.notes:
        console.print(f"note: {note}", style="yellow")
    console.print(f"verdict: {result.verdict.reason}")
