"""Where figures go."""

import json
import sys
from pathlib import Path

import pytest
import torch

from cgan.config_io import load_config
from cgan.errors import ConfigError, FileError
from cgan.runtime.progress import format_seconds
from cgan.storage.images import save_png
from cgan.storage.metrics import read_metrics
from cgan.training.loggers import JsonLines, Loggers, Terminal

FIGURES = {
    "images_seen": 1_000, "images_per_second": 250.0, "seconds_left": 75.0,
    "share": 0.25, "loss_G": 1.5, "loss_D": 0.5,
}  # fmt: skip


def test_json_lines(tmp_path: Path) -> None:
    log = JsonLines(tmp_path)
    log.log(FIGURES)
    log.log({"images_seen": 2_000})
    assert read_metrics(tmp_path) == [FIGURES, {"images_seen": 2_000}]
    log.close()


def test_going_on_forgets_what_came_after_the_state(tmp_path: Path) -> None:
    log = JsonLines(tmp_path)
    for seen in (10, 20, 30):
        log.log({"images_seen": seen})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"images_seen": 4')  # torn by a power cut
    again = JsonLines(tmp_path, images_seen=20)
    again.log({"images_seen": 21})
    again.close()
    assert [row["images_seen"] for row in read_metrics(tmp_path)] == [10, 20, 21]


def test_plain_lines_in_a_pipe_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.log(FIGURES)
    terminal.log(FIGURES)  # too soon for another line
    terminal.log({"images_seen": 1_000, "control_accuracy": 0.5})
    terminal.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    for words in (" 25 %", "1,000 images", "250 images/s", "1:15 left", "G 1.500 D 0.500"):
        assert words in err


def test_one_progress_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    terminal.log(FIGURES)
    (task,) = terminal.line.bar.tasks
    assert task.completed == 0.25
    assert "250 images/s · 1:15 left" in task.description
    terminal.close()
    assert capsys.readouterr().out == ""


def test_wandb_offline_needs_no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    loggers = Loggers(load_config("digits-mlp", {"wandb": True}), tmp_path, 0, progress=False)
    loggers.log(FIGURES)
    loggers.log_images(save_png(torch.zeros(1, 8, 8, dtype=torch.uint8), tmp_path / "x.png"), 1_000)
    loggers.close()
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert read_metrics(tmp_path) == [FIGURES]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = load_config("digits-mlp", {"tensorboard": True})
    loggers = Loggers(config, tmp_path, 0, progress=False)
    loggers.log(FIGURES)
    loggers.log_images(save_png(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / "x.png"), 1_000)
    loggers.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_missing_package_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"{name} is not installed: pip install"):
        Loggers(load_config("digits-mlp", {name: True}), tmp_path, 0, progress=False)


def test_nothing_is_imported_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str, requirement: str) -> None:
        raise AssertionError(f"{module} was imported")

    monkeypatch.setattr("cgan.training.loggers.import_optional", refuse)
    Loggers(load_config("digits-mlp"), tmp_path, 0, progress=False).close()
    with pytest.raises(AssertionError, match="wandb was imported"):
        Loggers(load_config("digits-mlp", {"wandb": True}), tmp_path, 0, progress=False)


def test_a_full_disk_while_logging_is_told_once(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    log = JsonLines(tmp_path)
    log.file.close()
    log.file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(FileError, match="disk is full"):
        log.log(FIGURES)
    log.close()


def test_seconds_are_said_as_clocks_do() -> None:
    assert [format_seconds(s) for s in (0.4, 75.2, 4_000)] == ["0:00", "1:15", "1:06:40"]
    assert json.loads(json.dumps(FIGURES)) == FIGURES
