"""Read a config from YAML, apply overrides, report mistakes, write it back."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cgan.config import RENAMED_KEYS, Config
from cgan.config_values import check_path
from cgan.config_yaml import parse_yaml, read_yaml
from cgan.errors import ConfigError, UnknownNameError, quote, suggest

DEFAULT_FOR_DATA = {
    "digits": "digits-mlp",
    "mnist": "mnist-dcgan",
    "fashion-mnist": "fashion-dcgan",
    "kmnist": "fashion-dcgan",
}

MAX_MISTAKES = 10
"""Mistakes that one message describes; it counts the others."""

logger = logging.getLogger("cgan")


def default_config_name(source: str | None = None, backbone: str | None = None) -> str:
    """The packaged config for a data set; folders and unlisted data sets use folder-dcgan."""
    if (source, backbone) == ("mnist", "mlp"):
        return "mnist-mlp"
    return DEFAULT_FOR_DATA.get(source or "digits", "folder-dcgan")


def config_folder() -> Path:
    """The folder of the packaged configs: inside the package, or next to it in a git checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def config_names() -> list[str]:
    """Names of the packaged configs."""
    return sorted(path.stem for path in config_folder().glob("*.yaml"))


def load_config(
    name_or_path: str | Path = "digits-mlp",
    overrides: Mapping[str, object] | None = None,
    *,
    warn: bool = True,
) -> Config:
    """Read a config and apply overrides.

    Args:
        name_or_path: the name of a packaged config, or a YAML file (such as a run's
            ``config.yaml``).
        overrides: values by dotted key, for example ``{"model.width": 64, "images": "600k"}``.
            Setting ``images`` clears ``minutes`` and the other way round.
        warn: log a warning for keys that have been renamed.

    Raises:
        ConfigError: no such config, unknown key, value out of range, or contradiction.
    """
    try:
        check_path(str(name_or_path))
    except ValueError as error:
        raise ConfigError(f"{error}, not {quote(str(name_or_path))}") from error
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if (path / "config.yaml").is_file():
            raise ConfigError(
                f"{path} is a run, not a config: continue it with --resume --out {path}, or name "
                f"its file {path / 'config.yaml'}"
            )
        if str(name_or_path) not in config_names():
            raise UnknownNameError("config", name_or_path, config_names())
        path = config_folder() / f"{name_or_path}.yaml"
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a config: it must contain keys and values")
    values.setdefault("name", path.stem)
    return make_config(values, overrides, warn=warn)


def make_config(
    values: Mapping[str, Any], overrides: Mapping[str, object] | None = None, *, warn: bool = True
) -> Config:
    """Validate nested dicts of plain values and build a config.

    Args:
        values: sections and values, as read from YAML.
        overrides: values by dotted key, applied on top.
        warn: log a warning for keys that have been renamed.

    Raises:
        ConfigError: the message names the mistakes, up to ``MAX_MISTAKES``.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"a config is keys and values, not {quote(values)}")
    merged: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    _rename_keys(merged, warn)
    for dotted, value in (overrides or {}).items():
        _set(merged, dotted, dict(value) if isinstance(value, Mapping) else value)
    _rename_keys(merged, warn)  # an override may be a whole section
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        sentences = [_sentence(mistake) for mistake in mistakes[:MAX_MISTAKES]]
        if more := len(mistakes) - len(sentences):
            sentences.append(f"and {more:,} more mistakes")
        raise ConfigError("; ".join(sentences)) from error


def parse_assignment(text: str) -> tuple[str, object]:
    """``"model.width=64"`` to ``("model.width", 64)``; the value is parsed as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key=value, like model.width=64, not {quote(text)}")
    return key.strip(), parse_yaml(value, f"the value of {quote(key.strip())}")


def to_yaml(config: Config) -> str:
    """The config as YAML; ``load_config`` reads it back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(config: Config) -> dict[str, object]:
    """All values by dotted key."""
    return dict(_flatten(config.model_dump(mode="json")))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    return [
        pair
        for key, value in values.items()
        for pair in (
            _flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else [(f"{prefix}{key}", value)]
        )
    ]


def _rename_keys(values: dict[str, Any], warn: bool) -> None:
    for old, new in RENAMED_KEYS.items():
        *path, old_key = old.split(".")
        section = values
        for name in path:
            section = section.get(name, {})
        if isinstance(section, dict) and old_key in section:
            section.setdefault(new.rpartition(".")[2], section.pop(old_key))
            if warn:
                logger.warning("the config key %s is now called %s", old, new)


def _set(values: dict[str, Any], dotted: str, value: object) -> None:
    if dotted in RENAMED_KEYS:
        logger.warning("the config key %s is now called %s", dotted, RENAMED_KEYS[dotted])
        dotted = RENAMED_KEYS[dotted]
    *sections, key = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{quote(dotted)}: {quote(section)} is a single value, not a section")
        values = inner
    if not sections and key in ("images", "minutes") and value is not None:
        values["minutes" if key == "images" else "images"] = None
    values[key] = value


def _sentence(error: Any) -> str:
    """Describe one pydantic error, with its dotted key."""
    path = [part for part in error["loc"] if isinstance(part, str)]
    dotted = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"unknown key {quote(dotted)}{suggest(path[-1], _known_keys(path[:-1]))}"
    value = quote(error["input"])
    if error["type"] == "literal_error":
        hint = suggest(value.strip("'"), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
        return f"{dotted}: no {path[-1]} {value}{hint}"
    if error["type"] == "invalid_key" or (not dotted and error["type"] == "string_unicode"):
        return f"a key must be a name, not {value}"
    if error["type"] == "model_type":
        return f"{dotted} is a section, with keys and values, not {value}"
    message = error["msg"].removeprefix("Value error, ")
    if not dotted:
        return str(message)
    return f"{dotted}: {message[0].lower()}{message[1:]}, not {value}"


def _known_keys(path: list[str]) -> list[str]:
    section: Any = Config
    for part in path:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
