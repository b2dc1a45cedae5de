"""Class names and paths that a stranger chose: nothing outside the folder, no raw characters."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from typer.testing import Result

from cgan.cli import main, tables
from cgan.cli.options import load_model
from cgan.console import printable
from cgan.evaluation.control import Control
from cgan.storage.checkpoint import GENERATOR, read_header, save_tensors
from cgan.storage.paths import PACKAGED
from tests.conftest import make_pets
from tests.evaluation.test_html import CONFUSION, make_report
from tests.processes import Process

Shell = Callable[..., Result]
CLASSES = [
    "..", "con", "a/b", "a\\b", "x" * 250, "dataset.json", "[red]\x1b[2J\x9b\u202e\u2028",
    "'; rm -r ~'", "😀", "e\nf\r\x07g",
]  # fmt: skip
FOLDERS = [
    "__", "_con", "a_b-2", "a_b-3", "x" * 120, "_dataset.json", "_red___2J___", "__ rm -r __", "_",
    "e_f__g",
]  # fmt: skip


@pytest.fixture
def unsafe(tmp_path: Path) -> Path:
    """The packaged generator of digits under other class names."""
    packaged = PACKAGED / "mnist" / "generator.safetensors"
    header = {**read_header(packaged, GENERATOR), "classes": CLASSES}
    path = tmp_path / "unsafe.safetensors"
    save_tensors(path, load_file(packaged), header)
    return path


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_printable(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text), ascii(text)


def test_images_stay_in_the_folder(shell: Shell, unsafe: Path, tmp_path: Path) -> None:
    result = shell("generate", unsafe, "-n", 1, "--out", "deep/drawn")
    assert result.exit_code == 0, result.output
    assert result.stdout == "deep/drawn\n"
    drawn = {f"deep/drawn/{folder}/seed-000000.png" for folder in FOLDERS}
    assert files_in(tmp_path) == {unsafe.name, *drawn}


def test_a_data_set_stays_in_the_folder_and_continues(
    shell: Shell, unsafe: Path, tmp_path: Path
) -> None:
    words = ("generate", unsafe, "--format", "folder", "--out", "deep/set", "--count")
    assert shell(*words, 10).exit_code == 0
    drawn = {f"deep/set/{folder}/{key:09}.png" for key, folder in enumerate(FOLDERS)}
    beside = {f"deep/set/{name}" for name in ("dataset.json", "README.md", "shard-00000.csv")}
    assert files_in(tmp_path) == {unsafe.name, *beside, *drawn}
    with (tmp_path / "deep/set/shard-00000.csv").open(encoding="utf-8", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(map(printable, CLASSES))
    again = shell(*words, 10)
    assert again.exit_code == 0, again.output
    assert "10 images of 10 classes, 10 of them from an earlier run" in again.stderr
    longer = shell(*words, 20)
    assert longer.exit_code == 0, longer.output
    more = {f"deep/set/{folder}/{key + 10:09}.png" for key, folder in enumerate(FOLDERS)}
    assert files_in(tmp_path) == {unsafe.name, *beside, *drawn, *more}


def test_name_of_a_grid_is_safe_and_short(shell: Shell, unsafe: Path) -> None:
    def drawn(*classes: str) -> str:
        words = [word for name in classes for word in ("--class", name)]
        return str(shell("generate", unsafe, "-n", 1, *words).stdout)

    assert drawn("..") == "generated/unsafe/__-n1-seed0.png\n"
    assert drawn("a/b", "e\nf\r\x07g") == "generated/unsafe/a_b-2-e_f__g-n1-seed0.png\n"
    assert drawn(CLASSES[4], CLASSES[4]) == f"generated/unsafe/{'x' * 120}-n1-seed0.png\n"
    assert len(list(Path("generated/unsafe").iterdir())) == 3


def test_info_is_printable(shell: Shell, unsafe: Path) -> None:
    said = shell("info", unsafe)
    assert said.exit_code == 0, said.output
    assert_printable(said.stdout)
    assert r"[red]\x1b[2J\x9b\u202e\u2028, '; rm -r ~', 😀, e\nf\r\x07g" in said.stdout
    told = shell("info", unsafe, "--json").stdout
    assert_printable(told)
    assert json.loads(told)["classes"] == CLASSES


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "mnist", "--class", "\x1b[2J\u202e"),
        ("generate", "no\x1b[2J\n\u202e"),
        ("generate", "mnist", "--out", "\x9b2J.jpg"),
        ("generate", "mnist", "-n", "\x1b[2J\u202e"),
        ("generate", "mnist", "\x1b[2J\u202e"),
        ("generate", "--\x1b[2J\u202e"),
        ("\x1b[2J\u202e",),
        ("--\x1b[2J\u202e",),
        ("train", "--set", "\x1b[2J\u202e=1"),
        ("train", "--set", "\x1b[2J\u202e"),
        ("train", "--data", "\x1b[2J\u202e"),
    ],
)
def test_errors_are_printable(words: tuple[str, ...], shell: Shell) -> None:
    result = shell(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert_printable(result.stderr)


def test_log_messages_and_shown_config_are_printable(shell: Shell, tmp_path: Path) -> None:
    folder = make_pets(tmp_path / "my \u202epets")
    (folder / "cat" / "\x1b[2J\n.png").write_bytes(b"broken")
    result = shell("train", "--data", folder, "--skip-broken", "--dry-run")
    assert result.exit_code == 0, result.output
    assert_printable(result.output)
    assert r"cat/\x1b[2J\n.png" in result.stderr


def test_reports_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("\x1b[2J\n", "[red]x[/]", "\u202ethree")
    report = make_report(
        model="runs/\x9b2J\r", splits={"test": "\u2028", "validation": "\x85"}, features="\x07",
        warnings=["\x1b[1m"], left_out=["\n"],
        control=Control(names, CONFUSION, True, 0.9875, 1_500),
    )  # fmt: skip
    tables.print_report(report)
    tables.print_comparison([report, report])
    printed = capsys.readouterr().out
    assert_printable(printed)
    assert r"runs/\x9b2J\r" in printed.splitlines()
    assert "[red]" in printed


def test_suggested_command_is_quoted(capsys: pytest.CaptureFixture[str], unsafe: Path) -> None:
    run = SimpleNamespace(images_seen=1, seconds=1.0, folder=Path("my run"), control=None)
    tables.print_run(run, load_model(str(unsafe)))  # type: ignore[arg-type]
    command = r"""cgan generate 'my run' --class ''"'"'; rm -r ~'"'"''"""
    assert capsys.readouterr().out.splitlines()[-1].endswith(command)


def info_in_ascii(path: str) -> None:
    assert isinstance(sys.stdout, TextIOWrapper)
    sys.stdout.reconfigure(encoding="ascii", errors="strict")  # as PYTHONIOENCODING does
    sys.argv = ["cgan", "info", path]
    main()


def test_stdout_that_is_not_utf_8(unsafe: Path) -> None:
    done = Process(info_in_ascii, str(unsafe))
    assert done.wait() == 0, done.stderr
    assert r"\U0001f600, e\nf\r\x07g" in done.stdout
    assert r"28\xd728, grey" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_paths_that_are_not_utf_8(shell: Shell, unsafe: Path, tmp_path: Path) -> None:
    latin = Path(os.fsdecode(b"caf\xe9"))
    make_pets(latin)
    make_pets(tmp_path / "pets", classes={str(latin): 200, "dog": 50})
    for words in (
        ("info", latin),
        ("train", "--out", latin),
        ("train", "--data", latin),
        ("train", "--data", tmp_path / "pets"),
        ("evaluate", unsafe, "--data", latin),
    ):
        result = shell(*words)
        assert result.exit_code == 2, words
        assert "UTF-8" in result.stderr
        assert r"caf\udce9" in result.stderr
    drawn = shell("generate", unsafe, "-n", 1, "--out", latin / "drawn")
    assert drawn.stdout == "caf\\udce9/drawn\n"
    assert len(list((latin / "drawn").iterdir())) == 10
