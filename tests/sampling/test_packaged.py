"""The generator in the package: there after installation, small, described, and obedient."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

import cgan
from cgan.evaluation.control import measure_control
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import find_judge, measure_accuracy
from cgan.storage.paths import GENERATOR_FILE, JUDGE_FILE, PACKAGED, packaged_names

Shell = Callable[..., Result]


def test_it_is_small_and_nothing_else_is_there() -> None:
    assert packaged_names() == ["mnist"]
    files = sorted((PACKAGED / "mnist").iterdir())
    assert {GENERATOR_FILE, JUDGE_FILE} <= {path.name for path in files}
    assert {path.name for path in files} <= {GENERATOR_FILE, JUDGE_FILE, "generator.onnx"}
    assert sum(path.stat().st_size for path in files) <= 4_000_000


def test_it_obeys() -> None:
    control = measure_control(cgan.load("mnist"), Judge.load(PACKAGED / "mnist" / JUDGE_FILE), 200)
    assert control.accuracy >= 0.995
    assert control.per_class[control.worst] >= 0.975  # of 200: three standard deviations of 99 %


def test_a_seven_right_after_installation(shell: Shell, tmp_path: Path) -> None:
    drawn = shell("generate", "--digit", 7)
    assert drawn.exit_code == 0, drawn.output
    assert "drawn by mnist (in the package)" in drawn.stderr
    assert "% of the time" in drawn.stderr
    with Image.open(drawn.stdout.strip()) as image:
        assert image.mode == "L"
    verified = shell("generate", "mnist", "--verify", "-n", 20, "--out", "all.png")
    assert verified.exit_code == 0, verified.output
    assert "the judge accepted 200 of" in verified.stderr


def test_a_run_of_ones_own_goes_first(shell: Shell, tmp_path: Path, small_run: cgan.Run) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "own").symlink_to(small_run.folder)
    assert "drawn by runs/own" in shell("generate", "--digit", 7).stderr
    assert "in the package" in shell("generate", "mnist", "--digit", 7).stderr


def test_a_folder_of_that_name_goes_first(
    shell: Shell, tmp_path: Path, small_run: cgan.Run
) -> None:
    (tmp_path / "mnist").symlink_to(small_run.folder)
    assert "drawn by mnist" in shell("generate", "mnist", "--digit", 7).stderr
    assert "in the package" not in shell("generate", "mnist", "--digit", 7).stderr


def test_its_card(shell: Shell) -> None:
    said = shell("info", "mnist").stdout
    for words in ("cgan train mnist", "CC BY-SA 3.0", "control accuracy", "judge of MNIST", "real"):
        assert words in said
    card = json.loads(shell("info", "mnist", "--json").stdout)["card"]
    assert card["figures"]["control_accuracy"]["value"] >= 0.995
    assert card["figures"]["control_accuracy_worst_class"]["value"] >= 0.99
    fid = card["figures"]["fid"]
    assert fid["value"] <= 1.5 * fid["real"]
    for key in ("recall", "coverage"):
        assert card["figures"][key]["value"] >= 0.9 * card["figures"][key]["real"]


@pytest.mark.slow
@pytest.mark.mnist
def test_its_card_is_true() -> None:
    report = cgan.evaluate("mnist", device="cpu")
    told = cgan.load("mnist").header["card"]["figures"]
    for figure in report.figures:
        # Another machine rounds otherwise, which moves a picture or two of 10,000.
        assert figure.value == pytest.approx(told[figure.key]["value"], rel=0.05, abs=0.002)
        assert figure.real == pytest.approx(told[figure.key]["real"], rel=0.05, abs=0.002)


def test_the_judge_of_the_bundled_digits_is_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Judge:
        raise AssertionError("a judge was trained")

    monkeypatch.setattr("cgan.evaluation.judge_training.train_judge", refuse)
    judge = find_judge(partial(cgan.load_pictures, "digits"))
    accuracy = measure_accuracy(judge, cgan.load_pictures("digits", "test"))
    assert accuracy == judge.header.held_out_accuracy
    assert accuracy > 0.98
