"""The README.md of a repository on the Hub: a model card with the metadata that the Hub reads."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from cgan.console import printable
from cgan.sampling.sampler import Sampler
from cgan.sharing import card

DATASETS = {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist"}
"""Data sets on the Hub that a card can link to."""
MAX_NAMES = 100
"""Classes that a card names."""


def render_readme(sampler: Sampler, name: str, license: str, files: set[str]) -> str:
    """The README.md of a repository, with the metadata that the Hub reads."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["md"] = escape_markdown
    template = (Path(__file__).parent / "README.md.j2").read_text(encoding="utf-8")
    first = sampler.classes[0]
    rows = card.card_rows(sampler)
    channels, height, width = sampler.image_shape
    limits = rows.pop("limits", None) or (
        f"It draws {width}×{height} images in the style of its training images, which are "
        f"{sampler.header['data']}, and some of them show another class or nothing recognisable."
    )
    return environment.from_string(template).render(
        metadata=_metadata(sampler, name, license),
        title=name.rpartition("/")[2],
        sampler=sampler,
        header=sampler.header,
        shape=f"{width}×{height} {'grey' if channels == 1 else 'colour'}",
        name=name,
        example=f" --class {shlex.quote(printable(first))}" if sampler.conditional else "",
        first_class=f"{first!a}, " if sampler.conditional else "",
        classes=sampler.classes[:MAX_NAMES],
        more_classes=len(sampler.classes) - MAX_NAMES,
        rows={**rows, "licence": license},
        limits=limits,
        files=files,
    )


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
    worst = card.worst_class(header)
    if worst and sampler.conditional:
        words = f"control accuracy of the worst class, {worst[0]}"
        metrics.append(("control_accuracy_worst_class", words, worst[1]))
    features = str(measured.get("features", "the judge's"))
    for key, (value, _) in card.figures(header).items():
        words = f" (features: {features})" if key in card.OF_FEATURES else ""
        metrics.append((key, card.FIGURES[key] + words, value))
    results = [
        EvalResult(
            task_type="unconditional-image-generation",
            task_name=f"{'class-conditional' if sampler.conditional else 'plain'} image generation",
            dataset_type=on_hub or source,
            dataset_name=str(header["data"]),
            metric_type=kind,
            metric_name=words,
            metric_value=value,
        )
        for kind, words, value in metrics
    ]
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
