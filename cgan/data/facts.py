"""What is said of a data set: logged at once, and collected for its reports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("cgan")

_collected: ContextVar[tuple[list[str], ...]] = ContextVar("collected", default=())


@contextmanager
def collect() -> Iterator[list[str]]:
    """Collect the facts that are said meanwhile, one sentence each."""
    facts: list[str] = []
    token = _collected.set((*_collected.get(), facts))
    try:
        yield facts
    finally:
        _collected.reset(token)


def inform(text: str, *values: object) -> None:
    """Say how something was understood; ``text`` and ``values`` are those of ``logging``."""
    logger.info(text, *values)
    _add(text, values)


def warn(text: str, *values: object) -> None:
    """Say what a user would not expect."""
    logger.warning(text, *values)
    _add(text, values)


def _add(text: str, values: tuple[object, ...]) -> None:
    said = text % values
    for facts in _collected.get():
        if said not in facts:
            facts.append(said)
