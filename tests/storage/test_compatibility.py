"""Files of version 0.1: other tensor names, other config keys, format version 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import cgan
from cgan.config_io import load_config
from cgan.data import ImageDataset
from cgan.storage.checkpoint import (
    FORMAT_VERSIONS,
    GENERATOR,
    STATE,
    load_weights,
    read_header,
    save_tensors,
)
from cgan.storage.paths import STATE_FILES
from cgan.storage.run_files import load_state
from cgan.training.plan import Plan
from cgan.training.state import TrainState

OLD_NAMES = {"embed": "entrance", "up": "raises", "down": "halves"}


@pytest.fixture
def run(tmp_path: Path) -> cgan.Run:
    settings = {
        "images": 640, "control_per_class": 0, "device": "cpu", "model.width": 4,
        "model.backbone": "dcgan", "model.generator_label": "concat",
        "model.discriminator_label": "concat",
    }  # fmt: skip
    return cgan.train(load_config("digits-mlp", settings), tmp_path / "run")


def make_old(path: Path, format: str) -> None:
    """Rewrite a file as version 0.1 wrote it."""
    tensors = {
        ".".join(OLD_NAMES.get(part, part) for part in name.split(".")): tensor
        for name, tensor in load_file(path).items()
    }
    header = read_header(path, format)
    if "config" in header:
        config = header["config"]
        config["auxiliary"] = config.pop("aux_weight")
        config["penalty"]["every_steps"] = config["penalty"].pop("lazy_interval")
    assert any("entrance" in name for name in tensors)
    save_tensors(path, tensors, {**header, "format_version": 1})


def test_an_old_generator_draws_the_same(run: cgan.Run, caplog: pytest.LogCaptureFixture) -> None:
    expected = cgan.load(run.folder).sample(n=2)
    make_old(run.generator, GENERATOR)
    old = cgan.load(run.folder)
    assert torch.equal(old.sample(n=2), expected)
    assert old.config.penalty.lazy_interval == 8
    assert caplog.text == ""  # nobody chose the keys of a header


def test_an_old_state_is_restored(run: cgan.Run) -> None:
    state = TrainState(Plan(run.config, cgan.load_pictures("digits"), torch.device("cpu")))
    expected = load_state(run.folder)[1]
    for name in STATE_FILES:
        make_old(run.folder / name, STATE)
    assert state.restore(run.folder) == []
    for network, module in state.networks.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, expected[f"{network}.{key}"]), key


def test_a_new_network_may_use_an_old_name(tmp_path: Path) -> None:
    network = torch.nn.ModuleDict({"raises": torch.nn.Linear(2, 3)})
    other = torch.nn.ModuleDict({"raises": torch.nn.Linear(2, 3)})
    load_weights(other, network.state_dict(), tmp_path)
    assert torch.equal(other["raises"].weight, network["raises"].weight)


def test_a_generator_without_a_width_has_32_channels_at_any_size(tmp_path: Path) -> None:
    """As before version 0.4, in which larger images have fewer channels."""
    data = ImageDataset(
        "pets", torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b")
    )
    for width, channels in ((32, 32), (None, 16)):
        config = load_config("folder-dcgan", {"model.width": width})
        state = TrainState(Plan(config, data, torch.device("cpu")))
        assert state.generator.norms[-1].gain.shape[1] == channels  # type: ignore[index,union-attr]
        path = tmp_path / f"{channels}.safetensors"
        state.save_generator(path)
        header = read_header(path, GENERATOR)
        assert header["config"]["model"]["width"] == channels
        expected = cgan.load(path).sample("a", 2)
        header["config"]["model"]["width"] = None if width else channels
        save_tensors(path, load_file(path), header)
        assert torch.equal(cgan.load(path).sample("a", 2), expected)


def test_new_files_have_a_version_that_0_1_refuses(run: cgan.Run) -> None:
    assert FORMAT_VERSIONS[GENERATOR] == FORMAT_VERSIONS[STATE] == 2
    assert read_header(run.generator, GENERATOR)["format_version"] == 2
    assert read_header(run.folder / STATE_FILES[0], STATE)["format_version"] == 2
