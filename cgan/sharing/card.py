"""What a model card says about a generator, and the README.md of its repository on the Hub.

The figures come from the header of the generator's file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from cgan.attributes import sort_for_display
from cgan.console import printable
from cgan.evaluation.report import format_interval, format_share, format_value
from cgan.models import count_parameters
from cgan.sampling.sampler import Sampler
from cgan.storage.schema import is_count, is_number, is_share, is_text

FIGURES = {
    "fid": "FID",
    "recall": "recall",
    "coverage": "coverage",
    "diversity_least": "least diversity of a class",
    "copied_share": "closer to a training image than 99 % of held-out images are",
}
"""Figures on a card, with their names."""
SHARES = ("recall", "coverage", "copied_share")
OF_FEATURES = ("fid", "recall", "coverage", "diversity_least")
"""Figures that depend on the judge's features; the others depend on pixels."""
DATASETS = {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist"}
"""Data sets on the Hub that a card can link to."""
MAX_NAMES = 100
"""Classes that a card names."""


def measured_control(header: Mapping[str, Any]) -> str | None:
    """Control accuracy with its interval and number of images; None if it was not measured."""
    measured = header["measured"]
    if not measured:
        return None
    details = []
    interval = measured.get("interval")
    if isinstance(interval, list) and len(interval) == 2 and all(map(is_share, interval)):
        details.append(f"95 % interval {format_interval(interval)}")
    if is_count(measured.get("pictures")):
        details.append(f"{measured['pictures']:,} images")
    text = format_share(measured["control_accuracy"])
    return f"{text} ({', '.join(details)})" if details else text


def worst_class(header: Mapping[str, Any]) -> tuple[str, float] | None:
    """The class with the lowest control accuracy; None if it is unknown."""
    found = header["measured"].get("per_class")
    if not isinstance(found, dict) or not found or not all(map(is_share, found.values())):
        return None
    name = min(found, key=found.__getitem__)
    return name, float(found[name])


def figures(header: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    """The figures of ``FIGURES`` that were measured: each with that of real images, if known."""
    measured, card = header["measured"], header.get("card", {}).get("figures", {})
    found = {}
    for key in FIGURES:
        value, real = measured.get(key), measured.get(f"{key}_real")
        if key in card:
            value, real = card[key]["value"], card[key]["real"]
        if is_number(value):
            found[key] = (float(value), float(real) if is_number(real) else None)
    return found


def confusion(header: Mapping[str, Any]) -> list[list[int]] | None:
    """The confusion matrix, counts by requested and by recognised class; None if unknown."""
    rows, size = header["measured"].get("confusion"), len(header["classes"])
    if not isinstance(rows, list) or len(rows) != size:
        return None
    for row in rows:
        if not isinstance(row, list) or len(row) != size or not all(map(is_count, row)):
            return None
    return rows


def card_rows(sampler: Sampler) -> dict[str, str]:
    """The lines of a model card: control first, then what it learned from, and its limits."""
    header, card = sampler.header, sampler.header.get("card", {})
    measured = header["measured"]
    rows: dict[str, str | None] = {}
    if sampler.conditional:
        rows["control accuracy"] = measured_control(header)
        if is_share(measured.get("judge_accuracy")):
            rows["real test images"] = f"{format_share(measured['judge_accuracy'])} recognised"
        if worst := worst_class(header):
            rows["worst class"] = f"{worst[0]}, {format_share(worst[1])}"
    for key, (value, real) in figures(header).items():
        share = key in SHARES
        against = "" if real is None else f" (real images: {format_value(real, share)})"
        rows[FIGURES[key]] = format_value(value, share) + against
    if is_text(features := measured.get("features")):
        rows["features of FID"] = features
    channels, height, width = sampler.image_shape
    rows |= {
        "learned from": card.get("data", header["data"]),
        "licence of the data": card.get("data_licence"),
        "images": f"{width}×{height}, {'grey' if channels == 1 else 'colour'}, "
        f"{len(sampler.classes):,} classes",
        "training": f"{header['images_seen']:,} images in {header['seconds'] / 60:.1f} minutes",
        "machine": card.get("machine"),
        "parameters": f"{count_parameters(sampler.generator):,}",
        "licence": card.get("licence"),
        "limits": card.get("limits"),
    }
    return {name: text for name, text in rows.items() if isinstance(text, str)}


def render_readme(sampler: Sampler, name: str, license: str, files: set[str]) -> str:
    """The README.md of a repository, with the metadata that the Hub reads."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["md"] = escape_markdown
    template = (Path(__file__).parent / "README.md.j2").read_text(encoding="utf-8")
    classes = sort_for_display(sampler.classes)
    first = classes[0]
    rows = card_rows(sampler)
    channels, height, width = sampler.image_shape
    limits = rows.pop("limits", None) or (
        f"It draws {width}×{height} images in the style of its training images, which are "
        f"{sampler.header['data']}, and some of them show another class or nothing recognisable."
    )
    return environment.from_string(template).render(
        metadata=_metadata(sampler, name, license),
        title=name.rpartition("/")[2], name=name, sampler=sampler, header=sampler.header,
        shape=f"{width}×{height} {'grey' if channels == 1 else 'colour'}",
        example=f" --class {shlex.quote(printable(first))}" if sampler.conditional else "",
        first_class=f"{first!a}, " if sampler.conditional else "",
        classes=classes[:MAX_NAMES], more_classes=len(classes) - MAX_NAMES,
        rows={**rows, "licence": license}, limits=limits, files=files,
    )  # fmt: skip


def _metadata(sampler: Sampler, name: str, license: str) -> str:
    """The YAML at the head of a card, with the measurements as ``model-index``."""
    from huggingface_hub import EvalResult, ModelCardData

    header = sampler.header
    source = str(header["config"]["data"]["source"])
    on_hub = DATASETS.get(source)
    metrics: list[tuple[str, str, float]] = []
    measured = header["measured"]
    if measured and sampler.conditional:
        metrics.append(("control_accuracy", "control accuracy", measured["control_accuracy"]))
    worst = worst_class(header)
    if worst and sampler.conditional:
        words = f"control accuracy of the worst class, {worst[0]}"
        metrics.append(("control_accuracy_worst_class", words, worst[1]))
    features = str(measured.get("features", "the judge's"))
    for key, (value, _) in figures(header).items():
        words = f" (features: {features})" if key in OF_FEATURES else ""
        metrics.append((key, FIGURES[key] + words, value))
    results = [
        EvalResult(
            task_type="unconditional-image-generation",
            task_name=f"{'class-conditional' if sampler.conditional else 'plain'} image generation",
            dataset_type=on_hub or source, dataset_name=str(header["data"]),
            metric_type=kind, metric_name=words, metric_value=value,
        )
        for kind, words, value in metrics
    ]  # fmt: skip
    tags = ["gan", "cgan", "image-generation"]
    data = ModelCardData(
        license=license,
        library_name="cgan",
        tags=[*tags, "conditional-gan"] if sampler.conditional else tags,
        datasets=[on_hub] if on_hub else None,
        model_name=name.rpartition("/")[2],
        eval_results=results or None,
    )
    return str(data.to_yaml())


def escape_markdown(text: object) -> str:
    """Any text as one line of Markdown without markup, links and invisible characters."""
    line = printable(" ".join(str(text).split()))
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|<>&~$:@])", r"\\\1", line)
    return escaped.replace("www.", r"www\.")
