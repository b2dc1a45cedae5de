"""The examples of CONTRIBUTING: a backbone, a loss, a data set and an update scheme that work."""

from __future__ import annotations

import re
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import cgan
from cgan import losses, updates
from cgan.config_io import load_config
from cgan.data import Loader, datasets
from cgan.errors import DataError
from cgan.losses import Loss
from cgan.models import BACKBONES, build_pair
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from cgan.training.step import TrainStep
from cgan.updates import GAN, PenaltyWeights

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def example(word: str) -> str:
    (found,) = [code for code in FENCES if re.search(rf"^(def|class) {word}", code, re.MULTILINE)]
    return found


@pytest.mark.parametrize("label", ["concat", "cbn"])
@pytest.mark.parametrize("num_classes", [None, 3])
def test_backbone(label: str, num_classes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    linear = types.ModuleType("linear")
    exec(example("Generator"), linear.__dict__)
    monkeypatch.setitem(BACKBONES, "linear", linear)
    G, D = build_pair(
        "linear", image_shape=(1, 8, 8), num_classes=num_classes, generator_label=label
    )
    labels = None if num_classes is None else torch.tensor([0, 2])
    images = G(torch.randn(2, 64), labels)
    assert images.shape == (2, 1, 8, 8)
    assert D(images, labels).shape == (2,)


def test_loss() -> None:
    names = dict(vars(losses))
    exec(example("generator_wasserstein"), names)
    real, fake = torch.tensor([2.0]), torch.tensor([0.5])
    assert names["generator_wasserstein"](real=real, fake=fake).tolist() == [-0.5]
    assert names["discriminator_wasserstein"](real=real, fake=fake).tolist() == [-1.5]


def test_data_set(tmp_path: Path) -> None:
    names = {**vars(datasets), "np": np, "DataError": DataError}
    exec(example("_load_shapes"), names)
    (tmp_path / "shapes").mkdir()
    images, labels = np.zeros((2, 1, 28, 28), np.uint8), np.array([0, 2])
    np.savez(tmp_path / "shapes" / "train.npz", images=images, labels=labels)
    dataset = names["_load_shapes"]("train", tmp_path)
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.classes[dataset.labels[1]] == "triangle"
    with pytest.raises(DataError, match="shapes in"):
        names["_load_shapes"]("test", tmp_path)


def test_update_scheme() -> None:
    names = dict(vars(updates))
    exec(example("discriminator_first"), names)
    G, D = build_pair("mlp", image_shape=(1, 8, 8), num_classes=3, width=8)
    before = [[p.clone() for p in network.parameters()] for network in (G, D)]
    loss = Loss(losses.generator_hinge, losses.discriminator_hinge)
    optimizers = (torch.optim.SGD(network.parameters(), 0.1) for network in (G, D))
    gan = GAN(G, D, *optimizers, loss)
    real, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 1])
    told = names["discriminator_first"](
        gan, real, labels, lambda: torch.randn(4, 64), PenaltyWeights(r1=1.0)
    )
    assert told["penalty"] > 0
    assert told.keys() == {"loss_G", "loss_D", "aux_G", "aux_D", "penalty", "distillation"}
    for network, old in zip((G, D), before, strict=True):
        assert any(not torch.equal(p, o) for p, o in zip(network.parameters(), old, strict=True))


def test_update_scheme_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    names = dict(vars(updates))
    exec(example("discriminator_first"), names)
    monkeypatch.setitem(updates.UPDATES, "simultaneous", names["discriminator_first"])
    digits = cgan.load_pictures("digits")
    config = load_config(
        "digits-mlp", {"update": "simultaneous", "model.width": 8, "device": "cpu"}
    )
    step = TrainStep(TrainState(Plan(config, digits, torch.device("cpu"))))
    losses = step(*next(Loader(digits, config.batch_size).batches()))
    assert all(value.isfinite() for value in losses.values())
