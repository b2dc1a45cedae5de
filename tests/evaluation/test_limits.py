"""Limits of a report, and what the shell makes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import Result

import cgan
from cgan.errors import ConfigError, UnknownNameError
from cgan.evaluation.reference import check_limits, parse_limits
from cgan.evaluation.report import Figure, Report

Shell = Callable[..., Result]


def report(**values: float | None) -> Report:
    """A report of some figures."""
    figures = [
        Figure(key, key.replace("_", " "), value, share="control" in key or key == "recall")
        for key, value in values.items()
    ]
    return cast(Report, SimpleNamespace(model="runs/pets", figures=figures))


def test_parsing() -> None:
    limits = parse_limits(["control=0.99", "fid=2", "worst_class=.9", "recall=0.8"])
    assert limits == {
        "control_accuracy": 0.99, "fid": 2.0, "control_accuracy_worst_class": 0.9, "recall": 0.8,
    }  # fmt: skip
    for text in ("control", "control=", "=1", "control=nan", "control=high"):
        with pytest.raises(ConfigError, match="takes NAME=NUMBER, like control=0.99"):
            parse_limits([text])
    with pytest.raises(UnknownNameError, match="no figure 'controll'; did you mean 'control'"):
        parse_limits(["controll=1"])


@pytest.mark.parametrize(
    ("key", "value", "limit", "passed"),
    [
        ("control_accuracy", 0.99, 0.99, True),
        ("control_accuracy", 0.9899, 0.99, False),
        ("fid", 2.0, 2.0, True),
        ("fid", 2.01, 2.0, False),
        ("copied_share", 0.3, 0.1, False),
        ("recall", None, 0.0, False),
        ("fid", float("nan"), 100.0, False),
    ],
)
def test_which_figures_pass(key: str, value: float | None, limit: float, passed: bool) -> None:
    (check,) = check_limits(report(**{key: value}), {key: limit})
    assert check.passed is passed


def test_sentences() -> None:
    found = report(control_accuracy=0.5, fid=3.21, recall=None)
    checks = check_limits(found, {"control_accuracy": 0.4, "fid": 2.0, "recall": 0.1})
    assert [check.sentence for check in checks] == [
        "control accuracy is 50.00 %; required: at least 40.00 %",
        "fid is 3.21; required: at most 2.00",
        "recall was not measured; required: at least 10.00 %",
    ]
    (missing,) = check_limits(found, {"coverage": 0.9})  # it was left out
    assert not missing.passed
    assert missing.sentence == "coverage was not measured; required: at least 0.900"


def test_the_shell(small_run: cgan.Run, shell: Shell, tmp_path: Path) -> None:
    words = ("evaluate", small_run.folder, "--per-class", 20, "--device", "cpu")
    result = shell(*words, "--fail-under", "control=0.1", "--json")
    assert result.exit_code == 0, result.stderr
    (check,) = json.loads(result.stdout)["checks"]
    assert (check["key"], check["limit"], check["passed"]) == ("control_accuracy", 0.1, True)
    limits = ("--fail-under", "control=1.01", "--fail-under", "fid=1e9")
    result = shell(*words, *limits)
    assert result.exit_code == 1
    assert "FAILED: control accuracy is " in result.stderr
    assert "required: at least 101.00 %" in result.stderr
    assert "passed: FID is " in result.stderr
    assert "control accuracy" in result.stdout  # the report itself


def test_refused_before_the_evaluation(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*_: Any, **__: Any) -> None:
        pytest.fail("it was evaluated")

    monkeypatch.setattr("cgan.evaluation.api.evaluate", evaluate)
    of_second = ("judge_agreement=0.9", "control_relative_second_judge=0.9")
    limits = ("x=1", "fid", "cas=0.9", *of_second)
    for limit in limits:
        result = shell("evaluate", "mnist", "--fail-under", limit)
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1
