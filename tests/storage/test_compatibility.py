"""Files of older versions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import cgan
from cgan.config_io import load_config
from cgan.data import ImageDataset
from cgan.errors import FileError
from cgan.storage.checkpoint import (
    FORMAT_VERSIONS,
    GENERATOR,
    STATE,
    read_header,
    save_tensors,
)
from cgan.training.plan import Plan
from cgan.training.state import TrainState


def test_files_of_version_0_1_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_tensors(path, {}, {"format": GENERATOR, "format_version": 1})
    with pytest.raises(FileError, match="is of cgan 0.1"):
        read_header(path, GENERATOR)
    assert FORMAT_VERSIONS[GENERATOR] == FORMAT_VERSIONS[STATE] == 2


def test_a_generator_without_a_width_has_32_channels_at_any_size(tmp_path: Path) -> None:
    """As before version 0.4, in which larger images have fewer channels."""
    data = ImageDataset(
        "pets", torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b")
    )
    for width, channels in ((32, 32), (None, 16)):
        config = load_config("folder-dcgan", {"model.backbone": "dcgan", "model.width": width})
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
