"""The examples run as they stand, here for fewer steps."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

from tests.conftest import save_untrained_judge, write_idx

EXAMPLES = Path(__file__).parent.parent / "examples"
SHORT = {
    "update_schemes.py": ("640", "method one"),
    "own_loop.py": ("20", "own_loop.png"),
    "train_and_sample.py": ("1280", "the same image: True"),
    "batch_sizes.py": ("0.005", "batch_sizes.png"),
    "noise_outside.py": ("0.003", "noise_outside.png"),
    "steer_textbook_dcgan.py": ("15", "control accuracy"),
}


def test_every_example_is_tried_and_short() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*SHORT, "tour.py"}
    for name in SHORT:
        assert len((EXAMPLES / name).read_text().splitlines()) <= 60


def test_the_notebook_is_made_from_the_script() -> None:
    script = jupytext.read(EXAMPLES / "tour.py")
    notebook = jupytext.read(EXAMPLES / "tour.ipynb")
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ], "run: jupytext --to ipynb examples/tour.py"
    assert not any(cell.get("outputs") for cell in notebook.cells)


# Without encryption: the kernel listens on the loopback.
@pytest.mark.slow  # a kernel is a new interpreter; the cells run below
@pytest.mark.filterwarnings("ignore:.*without encryption", "ignore::DeprecationWarning")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGAN_TOUR_IMAGES", "6400")
    notebook = jupytext.read(EXAMPLES / "tour.ipynb")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    assert "runs/digits-mlp: 6,400 images, control accuracy" in shown[0]["text/html"]
    assert "image/png" in shown[1]  # the sampler
    report = next(data["text/html"] for data in shown[2:] if "text/html" in data)
    assert "<td>worst class" in report
    (progress,) = [
        "".join(output["text"] for output in cell["outputs"] if "text" in output)
        for cell in notebook.cells
        if 'cgan.train(cgan.load_config("digits-mlp"' in cell.source
    ]
    assert progress.startswith("\r")
    assert progress.count("\n") == 1  # one line, however often it changes
    assert (tmp_path / "draw.html").is_file()


def test_the_cells_of_the_notebook_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CGAN_TOUR_IMAGES", "1280")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "tour.py"))
    assert "loss of G: " in capsys.readouterr().out
    assert (tmp_path / "draw.html").is_file()


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random images in MNIST's file format, an untrained judge of them, small evaluations."""
    monkeypatch.setattr("cgan.training.monitor.EVAL_IMAGES", 200)
    folder = write_idx(tmp_path / "data", "MNIST")
    raw = folder / "MNIST" / "raw"
    for path in raw.iterdir():  # real MNIST has pixels without ink, at the border
        content = bytearray(path.read_bytes())
        if "images" in path.name:
            content[16::784] = bytes(len(content[16::784]))
            path.write_bytes(content)
    monkeypatch.setenv("CGAN_DATA", str(folder))
    monkeypatch.setenv("CGAN_CACHE", str(tmp_path / "cache"))
    save_untrained_judge("mnist", folder, tmp_path / "cache")


@pytest.mark.usefixtures("small_mnist")
@pytest.mark.parametrize("name", SHORT)
def test_example(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count, words = SHORT[name]
    # After so few steps the textbook DCGAN may lack a class.
    monkeypatch.setattr("cgan.training.plan.check_classes", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [name, count])
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert words in capsys.readouterr().out
