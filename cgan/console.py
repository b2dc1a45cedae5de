"""Consoles for text of unknown origin: control characters are shown escaped, never sent raw."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text


def printable(text: str) -> str:
    r"""Escape control, format, bidi and other invisible characters, and lone surrogates.

    These are the characters that ``repr`` escapes, and they look the same: ``\x1b``, ``\u202e``,
    ``\n``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class SafeConsole(Console):
    """Prints strings as they are, without rich's markup, and ``printable``.

    Each string is one line, because a newline in it may come from a file. Strings in tables are
    escaped too.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Rich calls this for every string that it prints."""
        return super().render_str(printable(text), **options)
