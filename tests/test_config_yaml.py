"""Configs are hostile input: what a YAML file may contain, and one sentence for anything else."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import Result

from cgan.config import Config
from cgan.config_io import (
    MAX_BYTES,
    config_folder,
    config_names,
    flatten,
    load_config,
    make_config,
    parse_assignment,
    parse_yaml,
    read_yaml,
    to_yaml,
)
from cgan.errors import ConfigError

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
PACKAGED = [(config_folder() / f"{name}.yaml").read_text() for name in config_names()]
DIGITS = load_config("digits-mlp").model_dump(mode="json")
KEYS = [*flatten(DIGITS), "data", "model", "penalty", "x", "lr.x"]
VALID = ["mnist", "600k", "1.5M", "0x10", "[0.5, 0.9]", "{r1: 1}", "true", "null", "cuda:1", "1e-3"]
BOUNDED = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("images: 100\nlr: 1.5", {"images": 100, "lr": 1.5}),
        ("wandb: true\nminutes: null\nmodel: {width: 8}\nbetas: [0, 0.9]",
         {"wandb": True, "minutes": None, "model": {"width": 8}, "betas": [0, 0.9]}),
        ("name: 2026-01-31", {"name": "2026-01-31"}),
        ("name: 2026-99-99", {"name": "2026-99-99"}),
        ("<<: {a: 1}\nb: =", {"<<": {"a": 1}, "b": "="}),
        ("\ufeffseed: 1", {"seed": 1}),
        ("--- # a comment\nseed: 1\n...\n", {"seed": 1}),
        ("", None),
        ("seed: 12345678901234567890", {"seed": 12345678901234567890}),
    ],
)  # fmt: skip
def test_plain_values(text: str, values: object) -> None:
    assert parse_yaml(text, "it") == values


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (BOMB, 1, "the anchor &'a' is not allowed: leave it out"),
        ("a: 1\nb: *a", 2, "the alias *'a' is not allowed: repeat the value"),
        ("a: &x\n", 1, "the anchor &'x' is not allowed: leave it out"),
        ("a: 1\nb: !!python/object:os.system x", 2,
         "the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed: leave it out"),
        ("a: !!int '3'", 1, "the tag 'tag:yaml.org,2002:int' is not allowed: leave it out"),
        ("a: 1\nlr: 2\nlr: 3", 3, "the key 'lr' appears twice"),
        ("model: {width: 8, width: 8}", 1, "the key 'width' appears twice"),
        ("a: 1\n\tb: 2", 2, "a tab cannot be here: use spaces"),
        ("a: 1\n---\nb: 2", 2, "a second document begins here, and a config is one document"),
        ("a: 1\n1: 2", 2, "a key must be a name, not '1'"),
        ("null: 3", 1, "a key must be a name, not 'null'"),
        ("[1, 2]: x", 1, "a key must be a name, not a list or section"),
        ("{a: 1}: x", 1, "a key must be a name, not a list or section"),
        ("a: \n  - x\x00", 2, "the character U+0000 is not allowed"),
        ("a: '\x1b[31m'", 1, "the character U+001B is not allowed"),
        ("a: 0x_", 1, "'0x_' is not a number"),
        ("a: b: c", 1, "mapping values are not allowed here"),
        ("a: [1", 1, "expected ',' or ']', but got '<stream end>'"),
        ("x: " + "[" * 60_000, 1, "too deeply nested for a config"),
        ("x: " + "{a: " * 10_000, 1, "too deeply nested for a config"),
        ("- " * 30_000, 1, "too deeply nested for a config"),
    ],
)  # fmt: skip
def test_what_a_config_needs_not_is_refused(text: str, line: int, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "it")
    assert str(caught.value) == f"it, line {line}: {problem}"


def test_8_levels_are_the_limit() -> None:
    assert parse_yaml("[" * 8 + "]" * 8, "it") == [[[[[[[[]]]]]]]]
    with pytest.raises(ConfigError, match="^it, line 1: too deeply nested for a config$"):
        parse_yaml("[" * 9 + "]" * 9, "it")


@pytest.mark.parametrize(
    "number", ["9" * 41, "1:" * 20_000 + "1", "0x" + "f" * 39, "1" * 40 + ".5"]
)
def test_numbers_are_short(number: str) -> None:
    with pytest.raises(ConfigError, match=r"^it, line 2: '.+' is too long for a number$") as caught:
        parse_yaml(f"a: 1\nseed: {number}", "it")
    assert len(str(caught.value)) < 130
    assert parse_yaml("9" * 40, "it") == int("9" * 40)


@pytest.mark.parametrize("text", ['a: "\\UFFFFFFFF"', f"%YAML {'9' * 5_000}.1\n---\na: 1"])
def test_numbers_in_the_syntax(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^it: a number or an escape .* is out of range$"):
        parse_yaml(text, "it")


def test_encodings(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfimages: 100\r\nname: \xc3\xa9\r\n")
    assert read_yaml(path) == {"images": 100, "name": "é"}
    assert load_config(path).name == "é"
    for encoding in ("utf-16-le", "utf-16-be"):
        path.write_bytes("\ufeffimages: 100".encode(encoding))
        with pytest.raises(ConfigError, match=r"c\.yaml is UTF-16 text: save it as UTF-8$"):
            read_yaml(path)
    path.write_bytes(b"images: 100\nname: \xe9")
    with pytest.raises(ConfigError, match=r"c\.yaml, line 2: not UTF-8 text: save it as UTF-8$"):
        read_yaml(path)


def test_only_small_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: 1\n".ljust(MAX_BYTES, "#"))
    assert read_yaml(path) == {"a": 1}
    path.write_text("a: 1\n".ljust(MAX_BYTES + 1, "#"))
    with pytest.raises(ConfigError, match=r"c\.yaml is too large for a config: at most 64 KiB$"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="^it is too long: at most 65,536 characters$"):
        parse_yaml("#" * (MAX_BYTES + 1), "it")
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a sparse file
    tracemalloc.start()
    with pytest.raises(ConfigError, match="too large"):
        read_yaml(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_only_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.yaml")  # opening it would wait for ever
    for name in ("folder", "zero", "pipe"):
        with pytest.raises(ConfigError, match=f"/{name}.yaml is not a file$"):
            load_config(tmp_path / f"{name}.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name in ("loop", "none"):
        with pytest.raises(ConfigError, match=f"^there is no config file .*/{name}.yaml$"):
            load_config(tmp_path / f"{name}.yaml")
    with pytest.raises(ConfigError, match=r"^[^\n]+$"):  # the sentence depends on the system
        load_config(tmp_path / f"{'a' * 300}.yaml")


def test_the_shell_says_one_sentence(shell: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMB)
    (tmp_path / "twice.yaml").write_text("images: 100\nlr: 0.1\nlr: 0.2\n")
    for words, sentence in (
        (("bomb.yaml",), "bomb.yaml, line 1: the anchor &'a' is not allowed: leave it out"),
        (("twice.yaml",), "twice.yaml, line 3: the key 'lr' appears twice"),
        (("--set", "lr=&a 1"), "the value of 'lr', line 1: the anchor &'a' is not allowed: "
         "leave it out"),
        (("--set", "seed=1" + "0" * 30), "seed: input should be less than 9223372036854775808, "
         "not 1000000000000000000000000000000"),
        (("--data", "a\nb"), "a path is UTF-8 text without line breaks or other control "
         "characters, not 'a\\nb'"),
        (("--data", "a" * 300), f"'{'a' * 37}...{'a' * 38}' cannot be read: File name too long"),
        (("--set", 'data.data_dir="a\\0"'), "data.data_dir: a path is UTF-8 text without line "
         "breaks or other control characters, not 'a\\x00'"),
    ):  # fmt: skip
        result = shell("train", *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert isinstance(result.exception, SystemExit)
        assert result.stderr.splitlines()[-1] == f"cgan: {sentence}"
    assert not (tmp_path / "runs").exists()


def check(make: Callable[[], Config]) -> None:
    """It gives a config that survives writing and reading, or one short sentence."""
    sentence, config = "", None
    try:
        config = make()
    except ConfigError as error:
        sentence = str(error)
    assert sentence.isprintable()
    assert len(sentence) < 3_000
    if config is not None:
        assert make_config(parse_yaml(to_yaml(config), "it")) == config  # type: ignore[arg-type]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A packaged config with a few pieces replaced."""
    text = draw(st.sampled_from(PACKAGED))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, min(start + 30, len(text))))
        pieces = st.one_of(st.text(max_size=8), st.sampled_from(text.split()))
        text = text[:start] + draw(pieces) + text[stop:]
    return text


@BOUNDED
@given(st.one_of(st.text(), mutated()))
@example("a: " + "[" * 1_000)
@example('"\\ud800": 1')
@example('name: "\\ud800"')
@example("images: 1" + "0" * 30)
@example("model: 3\ndata: [1]\npenalty:\nimages: 1\n")
def test_any_text_loads_or_is_refused(text: str) -> None:
    check(lambda: make_config(parse_yaml(text, "it"), strict=False))  # type: ignore[arg-type]


VALUES = st.one_of(st.text(), st.integers().map(str), st.floats().map(str), st.sampled_from(VALID))


@BOUNDED
@given(st.sampled_from(KEYS), VALUES)
@example("images", "1" * 400)
@example("images", "1" * 39)
@example("images", "999999999999999M")
@example("lr", "1e400")
@example("seed", ".inf")
def test_any_assignment_loads_or_is_refused(key: str, value: str) -> None:
    check(lambda: load_config("digits-mlp", dict([parse_assignment(f"{key}={value}")])))
