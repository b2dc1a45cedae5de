"""What the benchmarks count is what is computed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.eyes import print_scores
from benchmarks.record import entry, pictures
from benchmarks.speed import Count, by_hand
from cgan.config_io import load_config
from cgan.data import ImageDataset
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from cgan.training.step import TrainStep


@pytest.mark.parametrize("name", ["mnist-mlp", "mnist-dcgan"])
def test_operations_counted_by_hand_are_those_that_torch_counts(name: str) -> None:
    config = load_config(name, {"batch_size": 8})
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(8)
    pictures = ImageDataset("noise", images, labels, tuple("0123456789"))
    step = TrainStep(TrainState(Plan(config, pictures, torch.device("cpu"))))
    with Count() as counted:
        for _ in range(config.penalty.lazy_interval):
            step(images / 127.5 - 1, labels)
    expected = by_hand(config, pictures.image_shape, 10)
    assert counted.total / 8 / config.penalty.lazy_interval == expected


def test_naming_is_scored_by_source_and_every_picture_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of four drawn ones and one of two real ones, by hand; none may be left out."""
    sources = ["runs/a"] * 4 + ["real"] * 2
    pictures = {str(n): [source, "cat"] for n, source in enumerate(sources, 1)}
    key = {"classes": ["cat", "dog"], "pictures": pictures}
    (tmp_path / "key.json").write_text(json.dumps(key))
    answers = tmp_path / "answers.txt"
    answers.write_text("1 cat 3\n2 cat 1\n3 dog 1\n4 dog 2\n5 cat 3\n6 dog 3\n")
    print_scores(tmp_path, [answers])
    out = capsys.readouterr().out
    assert "| runs/a, 4 | 50.00 % | 15.00–85.00 % | 1.00 (" in out
    assert "| 25% | cat 50% |" in out
    assert "| real, 2 | 50.00 % |" in out
    answers.write_text("1 cat 3\n")
    with pytest.raises(ValueError, match="6 pictures need one answer each"):
        print_scores(tmp_path, [answers])


def test_an_entry_stores_images_at_its_budgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 4 seconds, budgets of 5 and 9: after 8 and 12. Drawing takes 100, which is no part
    of the time; image i shows class i mod 2."""
    clock = [1000.0]
    monkeypatch.setattr(entry, "process_start", lambda: 1000.0)
    monkeypatch.setattr(entry.time, "time", lambda: clock[0])
    monkeypatch.setattr(entry.os, "_exit", sys.exit)

    def draw(labels: Any) -> Any:
        clock[0] += 100
        return labels[:, None, None] * np.ones((1, 4, 4))

    options = SimpleNamespace(at=[5, 9], seconds=9, count=4, classes=2, out=tmp_path)
    network = torch.nn.Linear(3, 2)
    steps: list[int] = []

    def train() -> None:
        for step in entry.Snapshots(options, draw, network).wrap(range(10)):
            clock[0] += 4
            steps.append(step)

    with pytest.raises(SystemExit):
        train()
    assert steps == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["0008.000.npy", "0012.000.npy"]
    assert np.load(tmp_path / "0008.000.npy")[:, 0, 0].tolist() == [0, 1, 0, 1]
    stored = json.loads((tmp_path / "drawing.json").read_text())
    assert stored == {"seconds_per_1000": 25_000, "bytes": 4 * (3 * 2 + 2)}
    assert pictures.find(tmp_path, 5) == tmp_path / "0008.000.npy"
    assert pictures.find(tmp_path, 60) is None
