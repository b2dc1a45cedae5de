"""File names for classes: safe on every system, different on every disk."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cgan.storage.paths import (
    GENERATOR_FILE,
    METRICS_FILE,
    PACKAGED,
    RUNS,
    newest_model,
    safe_file_name,
    safe_file_names,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # with lone surrogates
ALIKE = st.text("aAſsS\u00df01-_. /\u00b2\u212a\u00e9e\u0301\ufb01\u0130\u1100\u1161\u0345")
DEVICES = st.sampled_from(["con", "NUL", "nul ", "Com1.txt", "lpt\u00b9", "aux .x", "conin"])

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
RESERVED = {"CON", "PRN", "AUX", "NUL"} | {
    port + number for port in ("COM", "LPT") for number in "0123456789\u00b9\u00b2\u00b3"
}


def check_safe(name: str) -> None:
    """What Linux, macOS and Windows ask of a name."""
    assert name
    assert name[0] != "."
    assert name[-1] not in ". "
    assert not set(name) & set('/\\<>:"|?*')
    assert not {unicodedata.category(c) for c in name} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert name.split(".")[0].rstrip(" ").upper() not in RESERVED
    assert len(name.encode()) <= 143
    assert unicodedata.normalize("NFC", name) == name


def check_different(names: list[str]) -> None:
    """No disk takes two for the same, whatever it does with case and accents."""
    for form in FORMS:
        for other in FORMS:
            folded = {
                unicodedata.normalize(other, unicodedata.normalize(form, name).casefold())
                for name in names
            }
            assert len(folded) == len(names)


@settings(deadline=None, database=None, max_examples=300)
@given(st.lists(ANY_TEXT | ALIKE | DEVICES, max_size=30))
@example(["a-1", "A", "a"])
@example(["a-1", "a-1_", "a-2", "A", "a"])
@example(["", "_", ".", "\0", "\ud800"])
@example(["x" * 300, "X" * 301, "\u00e9" * 300, "con." + "y" * 300, "con" + " " * 300 + "z"])
def test_names_are_safe_and_different(names: list[str]) -> None:
    found = safe_file_names(names)
    assert len(found) == len(names)
    for name in found:
        check_safe(name)
    check_different(found)


@pytest.mark.parametrize(
    "name", ["cat", "T-shirt_top", "Ankle boot", "7", "v1.0", "Käse", "犬", "a..b", "-x", "cond"]
)
def test_ordinary_names_stay(name: str) -> None:
    assert safe_file_names([name, "other"]) == [name, "other"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("T-shirt/top", "T-shirt_top"),
        ("..", "__"),
        (".", "_"),
        ("", "_"),
        (" ", "_"),
        (".hidden", "_hidden"),
        ("../../etc", "_._.._etc"),
        ("a\\b:c\0d\n", "a_b_c_d_"),
        ("\x1b[2J\u202e", "__2J_"),
        ("end. ", "end._"),
        ("con", "_con"),
        ("Nul .txt", "_Nul .txt"),
        ("COM\u00b9", "_COM\u00b9"),
        ("dataset.json", "_dataset.json"),
        ("shard-00000.csv", "_shard-00000.csv"),
        ("\ud800", "_"),
        ("\u212b", "\u00c5"),
        ("cafe\u0301", "caf\u00e9"),
        ("हिन्दी", "हिन्दी"),
        ("x" * 300, "x" * 120),
        ("犬" * 100, "犬" * 40),
        ("ab" + "犬" * 100, "ab" + "犬" * 39),
    ],
)
def test_unsafe_names(name: str, safe: str) -> None:
    assert safe_file_name(name) == safe


@pytest.mark.parametrize(
    ("names", "different"),
    [
        (["c#", "c+", "d"], ["c_-0", "c_-1", "d"]),
        (["Cat", "cat"], ["Cat-0", "cat-1"]),
        (["a", "b", "A"], ["a-0", "b", "A-2"]),
        (["a-1", "A", "a"], ["a-1", "A-1_", "a-2"]),
        (["ß", "ss"], ["ß-0", "ss-1"]),
        (["\u00e9", "e\u0301"], ["\u00e9-0", "\u00e9-1"]),
    ],
)
def test_names_that_would_share_a_folder_get_numbers(
    names: list[str], different: list[str]
) -> None:
    assert safe_file_names(names) == different


def test_many_names_alike_take_linear_time() -> None:
    """Comparing each with each would take minutes."""
    count = 20_000
    names = ["a"] * count + [f"a-{index}" for index in range(count)]
    found = safe_file_names(names)
    assert found[count:] == names[count:]
    assert len(set(found)) == 2 * count
    assert all(re.fullmatch(r"a-\d+_", name) for name in found[:count])


def test_a_run_without_a_step_is_not_the_newest_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert newest_model() == PACKAGED / "mnist"
    for age, (name, metrics) in enumerate((("trained", "{}"), ("stopped", "")), start=1):
        run = RUNS / name
        run.mkdir(parents=True)
        (run / GENERATOR_FILE).touch()
        os.utime(run / GENERATOR_FILE, (age, age))
        (run / METRICS_FILE).write_text(metrics)
    assert newest_model() == RUNS / "trained"
    (RUNS / "trained" / METRICS_FILE).unlink()
    assert newest_model() == RUNS / "stopped"
