"""Hooks of mkdocs that adapt docstrings and links to the site."""

import logging
import re
from pathlib import Path
from typing import Any

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")
"""``:func:`` and its relatives before a name: docstrings use them, mkdocs does not know them."""

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]*)[^)]*\)")
"""A link from docs/ to another file of the repository, which the site does not contain."""

logger = logging.getLogger("mkdocs.hooks.cgan")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace links to files outside docs/ by their text, and warn if there is no such file."""
    if "/" in page.file.src_uri:
        return markdown
    root = Path(config.config_file_path).parent
    for _text, target in OUTSIDE.findall(markdown):
        if not (root / target).exists():
            logger.warning("%s links to ../%s, which does not exist", page.file.src_uri, target)
    return OUTSIDE.sub(r"\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Remove the role before a name, so that only the name remains."""
    return ROLE.sub("", html)
