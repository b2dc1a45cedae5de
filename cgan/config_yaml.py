"""A strict reader of YAML for configs: small files, plain values, nothing that can surprise.

A config needs no anchors, tags or deep nesting, so they are errors here. That leaves no way to
write a small file that takes much memory or time.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cgan.errors import ConfigError, quote

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
