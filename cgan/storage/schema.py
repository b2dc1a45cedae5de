"""What the header of each format must contain.

Whatever reads a header later relies on these checks. They use neither torch nor pydantic, because
the header of an ONNX export is checked without either. ``cgan.config`` checks a config's values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cgan.storage.safe_reading import MAX_CLASS_NAME, MAX_CLASSES, MAX_LATENT_DIM, MAX_SIDE


class Rule(NamedTuple):
    """What an entry must be: a test, and the same in words."""

    holds: Callable[[Any], bool]
    words: str
    required: bool = True


def find_fault(header: Mapping[str, Any], rules: Mapping[str, Rule]) -> str | None:
    """The first entry that is missing or breaks its rule, as text; None if there is none."""
    for key, rule in rules.items():
        if key not in header:
            if rule.required:
                return f"{key} is missing"
        elif not rule.holds(header[key]):
            return f"{key} is not {rule.words}"
    return None


def is_text(value: object) -> bool:
    """A text, possibly empty."""
    return isinstance(value, str)


def is_count(value: object) -> bool:
    """A whole number from 0."""
    return type(value) is int and value >= 0


def is_number(value: object) -> bool:
    """A finite number."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def is_duration(value: Any) -> bool:
    """Seconds: a finite number from 0."""
    return is_number(value) and value >= 0


def is_share(value: Any) -> bool:
    """A fraction in [0, 1]."""
    return is_number(value) and 0 <= value <= 1


def is_classes(value: object) -> bool:
    """Names of classes."""
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_CLASSES
        and all(isinstance(name, str) and 1 <= len(name) <= MAX_CLASS_NAME for name in value)
        and len(set(value)) == len(value)
    )


def is_image_shape(value: object) -> bool:
    """Channels, height and width of grey or colour images."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(one) is int for one in value)
        and value[0] in (1, 3)
        and all(1 <= side <= MAX_SIDE for side in value[1:])
    )


def is_conversion(value: object) -> bool:
    """How files became images: ``cgan.data.image_file.Conversion``."""
    return (
        isinstance(value, dict)
        and value.keys() == {"maximum", "background", "fit"}
        and is_count(value["maximum"])
        and 1 <= value["maximum"] <= 65_535
        and isinstance(value["background"], str)
        and re.fullmatch("white|black|#[0-9a-fA-F]{6}", value["background"]) is not None
        and value["fit"] in ("crop", "pad", "stretch")
    )


def is_config(value: object) -> bool:
    """A config, with the three entries that are used without ``cgan.config``."""
    if not isinstance(value, dict) or not isinstance(model := value.get("model"), dict):
        return False
    latent_dim = model.get("latent_dim")
    return (
        is_text(value.get("name"))
        and type(latent_dim) is int
        and 1 <= latent_dim <= MAX_LATENT_DIM
        and isinstance(model.get("conditional"), bool)
    )


def is_measured(value: object) -> bool:
    """An evaluation; empty if there was none."""
    if not isinstance(value, dict):
        return False
    return not value or (
        is_share(value.get("control_accuracy"))
        and (value.get("fid") is None or is_number(value["fid"]))
        and is_number(value.get("lowest_selection_score", 0.0))
    )


def is_card(value: object) -> bool:
    """A model card: its number of images, and figures with their references."""
    if not isinstance(value, dict) or not isinstance(figures := value.get("figures"), dict):
        return False
    columns = ("value", "real", "chance")
    return (
        is_text(value.get("features"))
        and is_count(value.get("pictures"))
        and all(isinstance(row, dict) and row.keys() >= {*columns} for row in figures.values())
        and all(
            row[column] is None or is_number(row[column])
            for row in figures.values()
            for column in columns
        )
    )


def is_steered(value: object) -> bool:
    """The generator without labels that a flow steers: ours, or an ONNX network."""
    if not isinstance(value, dict) or "model" not in value:
        return False
    if not is_text(value.get("name")) or not is_text(value.get("sha256")):
        return False
    if value["model"] is not None:
        return isinstance(value["model"], dict)
    limits = value.get("value_range")
    return (
        is_count(value.get("onnx_bytes"))
        and isinstance(value.get("latent_map"), bool)
        and isinstance(limits, list)
        and len(limits) == 2
        and all(map(is_number, limits))
        and limits[0] < limits[1]
    )


CLASSES = Rule(
    is_classes,
    f"a list of 1 to {MAX_CLASSES:,} different names, each of 1 to {MAX_CLASS_NAME} characters",
)
IMAGE_SHAPE = Rule(
    is_image_shape, f"channels (1 or 3), height and width (up to {MAX_SIDE:,} pixels)"
)
TEXT = Rule(is_text, "a text")
COUNT = Rule(is_count, "a whole number from 0")
DATA_CHANGED = Rule(lambda value: isinstance(value, bool), "true or false", required=False)
DURATION = Rule(is_duration, "a finite number from 0")

GENERATOR_RULES = {
    "config": Rule(
        is_config,
        f"a config with a name, model.latent_dim (1 to {MAX_LATENT_DIM:,}) and model.conditional",
    ),
    "classes": CLASSES,
    "num_attributes": COUNT._replace(required=False),
    "class_counts": Rule(
        lambda value: isinstance(value, list) and all(map(is_count, value)),
        "a list of whole numbers",
        required=False,
    ),
    "conversion": Rule(
        is_conversion,
        "a maximum of 1 to 65,535, a background and a fit",
        required=False,
    ),
    "image_shape": IMAGE_SHAPE,
    "data": TEXT,
    "images_seen": COUNT,
    "seconds": DURATION,
    "measured": Rule(is_measured, "an evaluation with a control accuracy"),
    "versions": Rule(
        lambda value: isinstance(value, dict) and all(map(is_text, value.values())),
        "a version by package",
    ),
    "card": Rule(is_card, "a model card", required=False),
    "data_digest": Rule(is_text, "a text", required=False),
    "data_changed": DATA_CHANGED,
    "steered": Rule(is_steered, "a generator without labels", required=False),
    "teacher": Rule(is_text, "a text", required=False),
}

JUDGE_RULES = {
    "data": TEXT,
    "digest": TEXT,
    "classes": CLASSES,
    "image_shape": IMAGE_SHAPE,
    "held_out_accuracy": Rule(lambda value: value is None or is_share(value), "a fraction or null"),
    "held_out_pictures": COUNT,
    "architecture": Rule(is_text, "a text", required=False),
}

STATE_RULES = {
    "images_seen": COUNT,
    "steps": COUNT,
    "seconds": DURATION,
    "classes": CLASSES._replace(required=False),
    "num_attributes": COUNT._replace(required=False),
    "data_digest": Rule(is_text, "a text", required=False),
    "unlabelled_digest": Rule(is_text, "a text", required=False),
    "steered_digest": Rule(is_text, "a text", required=False),
    "data_changed": DATA_CHANGED,
    "dataset_size": COUNT._replace(required=False),
    "teacher": Rule(is_text, "a text", required=False),
}

ENCODER_RULES = {
    "generator": Rule(is_text, "a text", required=False),
    "data_digest": TEXT,
    "distances": Rule(
        lambda value: isinstance(value, list) and all(map(is_number, value)), "a list of numbers"
    ),
}
