"""Every Python block of docs/notes.md runs as it stands, and what it asserts is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

NOTES = Path(__file__).parents[2] / "docs" / "notes.md"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_blocks(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the number of its first line of code."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)) + 1, found[1]) for found in FENCE.finditer(text)]


BLOCKS = read_blocks(NOTES)


def test_the_page_has_blocks_and_none_is_missed() -> None:
    assert len(BLOCKS) >= 8
    assert len(BLOCKS) == NOTES.read_text(encoding="utf-8").count("```python")


@pytest.mark.parametrize(
    ("line", "code"), [pytest.param(*block, id=f"{NOTES.name}:{block[0]}") for block in BLOCKS]
)
def test_block(line: int, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    padded = "\n" * (line - 1) + code  # so that a traceback names the line of the page
    exec(compile(padded, str(NOTES), "exec"), {"__name__": "notes"})
    assert "assert " in code or "pytest.raises(" in code
    assert capsys.readouterr().out == ""
