"""What the benchmarks count is what is computed."""

import pytest
import torch

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
