"""What a model card says about a generator, from the header of its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgan.evaluation.formatting import format_interval, format_share, format_value
from cgan.models import count_parameters
from cgan.sampling.sampler import Sampler
from cgan.storage.headers import is_count, is_number, is_share, is_text
from cgan.storage.hub import hub_title
from cgan.storage.paths import GENERATOR_FILE

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


def title_of(sampler: Sampler) -> str:
    """A name without a path: of the repository on the Hub, of the run folder, or of the file."""
    if on_hub := hub_title(sampler.path):
        return on_hub
    path = Path(os.path.abspath(sampler.path))  # "." has no name; a link keeps its own
    return path.parent.name if path.name == GENERATOR_FILE else path.stem


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
