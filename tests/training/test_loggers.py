"""Where figures go."""

from __future__ import annotations

import json
import re
import sys
import types
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cgan
from cgan.config_io import load_config
from cgan.errors import ConfigError, DivergedError, FileError, RunError
from cgan.evaluation.control import Control
from cgan.runtime.progress import format_seconds
from cgan.storage.images import save_png
from cgan.storage.run_files import read_metrics
from cgan.training.loggers import (
    MLFLOW_ID_FILE,
    WANDB_ID_FILE,
    JsonLines,
    Loggers,
    Terminal,
    confusion_rows,
    flatten,
)

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


def log_to_wandb(folder: Path, images_seen: int) -> None:
    """What a run does that has a state after this many images."""
    loggers = Loggers(load_config("digits-mlp", {"wandb": True}), folder, images_seen, False)
    figures = {**FIGURES, "images_seen": images_seen + 1_000}
    loggers.log(figures)
    grid = save_png(torch.zeros(1, 8, 8, dtype=torch.uint8), folder / "x.png")
    loggers.log_images(grid, images_seen + 1_000)
    loggers.close()


def test_wandb_offline_needs_no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for _ in range(2):  # the second time from the state at the beginning
        log_to_wandb(tmp_path, 0)
    run_id = (tmp_path / WANDB_ID_FILE).read_text()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2
    assert len(list(tmp_path.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))) == 2
    assert read_metrics(tmp_path) == [FIGURES]


class FakeWandb(types.ModuleType):
    """Records what wandb is told, and gives its runs the ids run-0, run-1, …"""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run: object = None
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.metrics: list[tuple[str, str]] = []
        self.finished = self.step = 0

    def init(self, **settings: Any) -> FakeWandb:
        self.begun.append(settings)
        self.id = settings["id"] or f"run-{len(self.begun) - 1}"
        return self

    def Image(self, path: str) -> str:
        return Path(path).name

    def Artifact(self, name: str, type: str) -> FakeWandb:
        assert re.fullmatch(r"[a-zA-Z0-9_\-.]{1,128}", name)
        self.artifact = [name, type]
        return self

    def add_file(self, path: str) -> None:
        self.artifact.append(Path(path).name)

    def log_artifact(self, artifact: FakeWandb) -> None:
        self.artifacts = [*getattr(self, "artifacts", []), artifact.artifact]

    def Table(self, columns: list[str], data: list[list[Any]]) -> list[Any]:
        return [columns, *data]

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics.append((name, step_metric))

    def log(self, row: dict[str, Any], step: int) -> None:
        assert step >= self.step, "wandb ignores it"
        self.logged.append((step, row))
        self.step = step + 1  # where a resumed run begins; a second row of this step would merge

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def begun(wandb: FakeWandb) -> list[tuple[object, object]]:
    return [(settings["id"], settings["resume"]) for settings in wandb.begun]


def test_a_resumed_run_continues_its_wandb_run(tmp_path: Path, wandb: FakeWandb) -> None:
    """Also from a state before the last log line: the curve goes back, and nothing is lost."""
    for images_seen in (0, 2_000, 0):
        log_to_wandb(tmp_path, images_seen)
    assert begun(wandb) == [(None, None), ("run-0", "allow"), ("run-0", "allow")]
    assert (tmp_path / "wandb-run-id").read_bytes() == b"run-0"
    assert set(wandb.metrics) == {("*", "images_seen")}
    seen = [row["images_seen"] for _, row in wandb.logged]
    assert seen == [1_000, 1_000, 3_000, 3_000, 1_000, 1_000]
    assert [step for step, _ in wandb.logged] == [1_000, 1_001, 3_000, 3_001, 3_002, 3_003]
    assert wandb.logged[1] == (1_001, {"samples": "x.png", "images_seen": 1_000})
    assert wandb.finished == 3


@pytest.mark.parametrize(
    "content", [b"", b"../../x", b"run 0", b"a" * 129, b"\xff\xfe", b"x\ny"], ids=repr
)
def test_a_file_that_holds_no_wandb_id_starts_a_new_wandb_run(
    content: bytes, tmp_path: Path, wandb: FakeWandb, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / WANDB_ID_FILE).write_bytes(content)
    with caplog.at_level("WARNING", "cgan"):
        log_to_wandb(tmp_path, 0)
    assert begun(wandb) == [(None, None)]
    assert "wandb-run-id holds no id of a wandb run: starting a new wandb run" in caplog.text
    assert (tmp_path / WANDB_ID_FILE).read_text() == "run-0"


def test_a_wandb_run_of_the_caller_is_left_alone(tmp_path: Path, wandb: FakeWandb) -> None:
    for run, folder in ((None, tmp_path / "first"), (object(), tmp_path / "second")):
        wandb.run = run
        folder.mkdir()
        log_to_wandb(folder, 0)
    assert [settings["reinit"] for settings in wandb.begun] == [None, "create_new"]


def test_a_wandb_run_that_cannot_be_continued_is_one_sentence(
    tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**settings: Any) -> None:
        raise wandb.Error("run run-0 was deleted\nmore")

    log_to_wandb(tmp_path, 0)
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ConfigError, match=r"was deleted\): .*delete .*wandb-run-id to start a new"):
        log_to_wandb(tmp_path, 0)


def test_a_wandb_id_that_cannot_be_written_is_said(
    tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / WANDB_ID_FILE).mkdir()
    with pytest.raises(FileError, match="cannot write"):
        log_to_wandb(tmp_path, 0)
    assert wandb.finished == 1


def test_wandb_gets_the_generator_and_the_confusion_matrix(
    tmp_path: Path, wandb: FakeWandb
) -> None:
    folder = tmp_path / "kätzchen 1"
    folder.mkdir()
    loggers = Loggers(load_config("digits-mlp", {"wandb": True}), folder, 0, False)
    loggers.log_result(generator_in(tmp_path), 3_000, CONTROL)
    assert wandb.artifacts == [["k-tzchen-1", "model", "generator.safetensors"]]
    (step, row) = wandb.logged[-1]
    columns = ["requested", "recognised", "images"]
    assert (step, row["images_seen"]) == (3_000, 3_000)
    assert row["confusion"] == [columns, ["cat", "cat", 3], ["cat", "dog", 1], ["dog", "dog", 4]]
    loggers.log_result(generator_in(tmp_path), 3_000, None)  # no evaluation
    assert len(wandb.logged) == 1
    numbers = replace(CONTROL, classes=("1", "10", "2"), confusion=torch.diag(torch.arange(1, 4)))
    loggers.log_result(generator_in(tmp_path), 4_000, numbers)
    assert wandb.logged[-1][1]["confusion"][1:] == [["1", "1", 1], ["2", "2", 3], ["10", "10", 2]]
    loggers.close()


CONTROL = Control(("cat", "dog"), torch.tensor([[3, 1], [0, 4]]), True, 0.9, 10)


def generator_in(folder: Path) -> Path:
    path = folder / "generator.safetensors"
    path.write_bytes(b"weights")
    return path


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = load_config("digits-mlp", {"tensorboard": True})
    loggers = Loggers(config, tmp_path, 0, progress=False)
    loggers.log(FIGURES)
    loggers.log_images(save_png(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / "x.png"), 1_000)
    loggers.log_result(generator_in(tmp_path), 1_000, CONTROL)
    loggers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["images"] == ["samples", "confusion"]
    assert {"loss_G", "hparam/control_accuracy"} <= set(events.Tags()["scalars"])
    (control,) = events.Scalars("hparam/control_accuracy")
    assert control.value == 0.875
    assert "_hparams_/session_start_info" in events.summary_metadata


def unreachable(*_: Any, **__: Any) -> None:
    raise ConnectionError("the server is gone")


def test_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    folder = tmp_path / "run"
    folder.mkdir()
    config = load_config("digits-mlp", {"mlflow": True, "model.width": 17})
    for images_seen in (1_000, 2_000):  # the second time it resumes
        loggers = Loggers(config, folder, images_seen, progress=False)
        loggers.log({**FIGURES, "images_seen": images_seen})
        grid = save_png(torch.zeros(1, 8, 8, dtype=torch.uint8), folder / "x.png")
        loggers.log_images(grid, images_seen)
        loggers.log_result(generator_in(folder), images_seen, CONTROL)
        loggers.close()
    client = mlflow.MlflowClient()
    run_id = (folder / MLFLOW_ID_FILE).read_text()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.width"] == "17"
    history = client.get_metric_history(run_id, "loss_G")
    assert [(one.step, one.value) for one in history] == [(1_000, 1.5), (2_000, 1.5)]
    stored = {one.path for one in client.list_artifacts(run_id)}
    assert stored == {"samples", "generator.safetensors", "confusion.json"}
    with pytest.raises(DivergedError), closing(Loggers(config, folder, 0, False)) as loggers:
        raise DivergedError("loss_G became nan")
    assert client.get_run(run_id).info.status == "FAILED"
    try:
        raise RunError("a larger batch did not fit")
    except RunError:  # a smaller one is trained here
        Loggers(config, folder, 0, False).close()
    assert client.get_run(run_id).info.status == "FINISHED"
    loggers = Loggers(config, folder, 0, progress=False)
    monkeypatch.setattr(type(client), "log_batch", unreachable)
    with caplog.at_level("WARNING", "cgan"):
        for _ in range(2):
            loggers.log(FIGURES)
    loggers.close()
    assert caplog.text.count("MLflow does not receive everything: the server is gone") == 1
    (folder / MLFLOW_ID_FILE).write_text("0" * 32)
    with pytest.raises(ConfigError, match="MLflow failed to start .*delete .*mlflow-run-id"):
        Loggers(config, folder, 0, progress=False)


def test_a_logger_of_the_caller(tmp_path: Path) -> None:
    calls: list[tuple[str, Any]] = []

    class Own:
        def log(self, metrics: Any) -> None:
            calls.append(("log", metrics["images_seen"]))

        def log_images(self, path: Path, images_seen: int) -> None:
            calls.append(("images", (path.is_file(), images_seen)))

        def log_result(self, generator: Path, images_seen: int, control: Control | None) -> None:
            calls.append(("result", (generator.is_file(), images_seen, control)))

        def close(self) -> None:
            calls.append(("close", None))

    overrides = {"images": 640, "control_per_class": 0, "device": "cpu"}
    cgan.train(load_config("digits-mlp", overrides), tmp_path / "run", loggers=[Own()])
    assert calls == [
        ("log", 640), ("images", (True, 640)), ("result", (True, 640, None)), ("close", None),
    ]  # fmt: skip


def test_rows_and_keys() -> None:
    assert confusion_rows(CONTROL) == [["cat", "cat", 3], ["cat", "dog", 1], ["dog", "dog", 4]]
    assert flatten({"a": 1, "b": {"c": {"d": 2}, "e": None}}) == {"a": 1, "b.c.d": 2, "b.e": None}


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
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
