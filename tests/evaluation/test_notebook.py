"""What objects look like in a notebook."""

import io
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import cgan
from cgan.evaluation.report import FigureRow, curves_html, figures_html
from cgan.runtime.progress import ProgressLine
from cgan.storage.images import to_pixels


def test_a_sampler_is_a_grid_with_one_row_per_class() -> None:
    sampler = cgan.load("mnist")
    pixels = np.asarray(Image.open(io.BytesIO(sampler._repr_png_())))
    assert pixels.shape == (298, 298)  # ten images of 28 pixels with gaps of two
    wanted = to_pixels(sampler.sample("4", 1, seed=2))[0, 0].numpy()
    np.testing.assert_array_equal(pixels[120:148, 60:88], wanted)


def test_a_run_is_its_curves(small_run: cgan.Run) -> None:
    shown = small_run._repr_html_()
    assert "6,016 images" in shown
    assert "loss_G" in shown
    assert "<polyline points=" in shown


def test_curves() -> None:
    shown = curves_html("<b>", {"fid": [(0, 4.0), (100, 1.0), (200, float("nan"))]})
    assert "&lt;b&gt;" in shown
    assert re.findall('points="(.*?)"', shown) == ["0.0,0.0 240.0,72.0"]
    assert "1.00 to 4.00" in shown


def test_a_report_is_its_figures() -> None:
    row = FigureRow("FID", "lower is better", ["1.50"], "0.10", "–")
    grid = torch.zeros(2, 3, 1, 8, 8, dtype=torch.uint8)
    shown = figures_html("runs/<x>", ["class \u202e collapsed"], [row], grid)
    assert "runs/&lt;x&gt;" in shown
    assert r"class \u202e collapsed" in shown
    assert "<td>FID</td><td>1.50</td>" in shown
    assert "data:image/png;base64," in shown


def test_one_line_of_progress_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setattr("cgan.runtime.progress.NOTEBOOK_SECONDS", 0.0)
    with ProgressLine() as line:
        line.console.is_jupyter = True
        line.show(0.5, "a long text")
        line.show(1.0, "short")
    assert written.getvalue() == "\r 50 % · a long text\r100 % · short      \n"
