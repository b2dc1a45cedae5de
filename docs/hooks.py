"""Hooks of mkdocs: docstrings mark names as Sphinx does, which mkdocs does not read."""

import re
from typing import Any

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")


def on_page_content(html: str, **_: Any) -> str:
    """Remove the role before a name: ``:func:`cgan.load``` becomes plain code."""
    return ROLE.sub("", html)
