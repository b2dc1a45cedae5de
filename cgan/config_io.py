"""Configs as YAML: read strictly, apply overrides, report mistakes, write back.

A config needs no anchors, tags or deep nesting, so they are errors here. That leaves no way to
write a small file that takes much memory or time.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError

from cgan.config import REMOVED_KEYS, Config, check_path
from cgan.errors import ConfigError, UnknownNameError, quote, suggest

MAX_BYTES = 1 << 16
"""Largest config file in bytes. A file with every key takes 2 kB."""

MAX_DEPTH = 8
"""Deepest nesting. A config has sections and lists, which is 3 levels."""

MAX_NUMBER = 40
"""Longest number in characters. Longer ones take quadratic time to read."""

MAX_PROBLEM = 120
"""Longest description of a syntax error, in characters."""

PLAIN_TYPES = ("bool", "int", "float", "null")
"""What YAML recognises besides text. A date such as 2026-01-31 is text here, and so is ``<<``."""
DEFAULT_FOR_DATA = {
    "digits": "digits-mlp",
    "mnist": "mnist-dcgan",
    "fashion-mnist": "fashion-dcgan",
    "kmnist": "fashion-dcgan",
    "emnist-letters": "mnist-dcgan",
    "emnist-balanced": "mnist-dcgan",
}
MAX_MISTAKES = 10
"""Mistakes that one message describes; it counts the others."""


class StrictLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` without anchors, aliases, tags, dates, deep nesting and repeated keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (yaml declares it so)
        first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] in PLAIN_TYPES]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Build one node, after checking what it uses."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            _fail(event, f"the alias *{quote(event.anchor)} is not allowed: repeat the value")
        if event.anchor is not None:
            _fail(event, f"the anchor &{quote(event.anchor)} is not allowed: leave it out")
        if event.tag is not None:
            _fail(event, f"the tag {quote(event.tag)} is not allowed: leave it out")
        if self.depth == MAX_DEPTH:
            _fail(event, "too deeply nested for a config")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """The value of one node; a number must be short and valid."""
        if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_NUMBER:
            _fail(node, f"{quote(node.value)} is too long for a number")
        try:
            return super().construct_object(node, deep)
        except ValueError:  # such as 0x_
            _fail(node, f"{quote(node.value)} is not a number")

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A dict; its keys must be different texts."""
        seen = set()
        for key, _ in node.value:
            if not key.tag.endswith(":str"):
                kind = quote(key.value) if isinstance(key, yaml.ScalarNode) else "a list or section"
                _fail(key, f"a key must be a name, not {kind}")
            if key.value in seen:
                _fail(key, f"the key {quote(key.value)} appears twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """The plain values in a YAML file (UTF-8, with or without a byte order mark).

    Raises:
        ConfigError: there is no such file, or it is not YAML that a config may contain.
    """
    try:
        if not path.is_file():  # opening a pipe would wait, and a device has no end
            missing = not path.exists()
            raise ConfigError(
                f"there is no config file {path}" if missing else f"{path} is not a file"
            )
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} is too large for a config: at most {MAX_BYTES >> 10} KiB")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path} is UTF-16 text: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text: save it as UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> object:
    """The plain values in a YAML text.

    Args:
        text: the YAML.
        source: what the text is, for messages.

    Raises:
        ConfigError: it is not YAML that a config may contain; the message says in which line.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source} is too long: at most {MAX_BYTES:,} characters")
    try:
        return StrictLoader(text).get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character U+{error.character:04X} is not allowed"
    except yaml.MarkedYAMLError as error:
        line, problem = _describe(error)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{source}: a number or an escape such as \\UFFFFFFFF is out of range"
        ) from error
    raise ConfigError(f"{source}, line {line}: {problem}")


def _describe(error: Any) -> tuple[int, str]:
    """The line and the description of a syntax error."""
    problem = error.problem[:MAX_PROBLEM]
    if isinstance(error, yaml.composer.ComposerError):
        problem = "a second document begins here, and a config is one document"
    elif "'\\t'" in problem:
        problem = "a tab cannot be here: use spaces"
    return error.problem_mark.line + 1, problem


def _fail(where: Any, problem: str) -> NoReturn:
    """Raise the error of a node or event."""
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


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
    strict: bool = True,
) -> Config:
    """Read a config and apply overrides.

    Args:
        name_or_path: the name of a packaged config, or a YAML file (such as a run's
            ``config.yaml``).
        overrides: values by dotted key, for example ``{"model.width": 64, "images": "600k"}``.
            Setting ``images`` clears ``minutes`` and the other way round.
        strict: refuse keys that are gone; without it, as for files, they are left out.

    Raises:
        ConfigError: no such config, unknown key, value out of range, or contradiction.
    """
    try:
        check_path(str(name_or_path))
    except ValueError as error:
        raise ConfigError(f"{error}, not {quote(str(name_or_path))}") from error
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if os.path.isfile(path / "config.yaml"):  # Path.is_file raises for a name that is too long
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
    return make_config(values, overrides, strict=strict)


def make_config(
    values: Mapping[str, Any], overrides: Mapping[str, object] | None = None, *, strict: bool = True
) -> Config:
    """Validate nested dicts of plain values and build a config.

    Args:
        values: sections and values, as read from YAML.
        overrides: values by dotted key, applied on top.
        strict: refuse keys that are gone; without it, as for files, they are left out.

    Raises:
        ConfigError: the message names the mistakes, up to ``MAX_MISTAKES``.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"a config is keys and values, not {quote(values)}")
    merged: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    for dotted, value in (overrides or {}).items():
        _set(merged, dotted, dict(value) if isinstance(value, Mapping) else value)
    _check_removed(merged, strict)
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
    if value.strip().startswith("#"):  # a colour; to YAML it is a comment
        return key.strip(), value.strip()
    return key.strip(), parse_yaml(value, f"the value of {quote(key.strip())}")


def to_yaml(config: Config) -> str:
    """The config as YAML; ``load_config`` reads it back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys with dots: ``{"model": {"width": 8}}`` as ``{"model.width": 8}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _check_removed(values: dict[str, Any], strict: bool) -> None:
    for removed, advice in REMOVED_KEYS.items():
        where, _, key = removed.partition(".")
        inner = values.get(where)
        if isinstance(inner, dict) and inner.pop(key, None) and strict:
            raise ConfigError(f"the config key {removed} is gone since version 0.4: {advice}")


def _set(values: dict[str, Any], dotted: str, value: object) -> None:
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
