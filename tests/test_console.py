"""Text of unknown origin on a terminal."""

from __future__ import annotations

import pytest
from rich.table import Table

from cgan.console import SafeConsole, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Käse 犬 × − ·", "Käse 犬 × − ·"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b\x85\x07\r\n\t\0", r"\x9b\x85\x07\r\n\t\x00"),
        ("a\u202eb\u2028\u2066\u200f", r"a\u202eb\u2028\u2066\u200f"),
        ("caf\udce9", r"caf\udce9"),
        ("\U000e0041", r"\U000e0041"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("stderr", [False, True])
def test_console_prints_each_string_as_one_plain_line(
    stderr: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    SafeConsole(stderr).print("a\nb \x1b[2J [bold]c[/] :smile: 1", style="red")
    assert capsys.readouterr()[stderr] == "a\\nb \\x1b[2J [bold]c[/] :smile: 1\n"


def test_tables_are_escaped_and_stay_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title="\x1b]0;t\x07")
    table.add_column("\u202e[red]h")
    table.add_row("\r\x9b1m")
    SafeConsole().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == r"\x1b]0;t\x07"
    assert r"\u202e[red]h" in lines[2]
    assert r"\r\x9b1m" in lines[4]
    assert len(set(map(len, lines[1:]))) == 1
