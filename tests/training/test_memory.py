"""A batch that does not fit is refused before anything is written."""

from pathlib import Path

import pytest
import torch

import cgan
from cgan.errors import RunError
from cgan.training import memory
from cgan.training.state import TrainState


def state_of(**changes: object) -> TrainState:
    config = cgan.load_config("digits-mlp", {"images": 6_400, **changes})
    return TrainState(config, cgan.load_pictures("digits"), torch.device("cpu"))


def test_a_batch_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each = memory.bytes_per_image(state_of())
    monkeypatch.setattr(memory, "free_device_memory", lambda device: 1_000 * each)
    memory.check_batch_fits(state_of(batch_size=1_000))
    with pytest.raises(RunError, match=r"batch of 1,001 takes about .* GiB .* about 1,000 would"):
        memory.check_batch_fits(state_of(batch_size=1_001))
    memory.check_batch_fits(state_of(batch_size=2_000), world_size=2)
    with pytest.raises(RunError, match=r"batch of 2,002 takes .* about 2,000 would"):
        memory.check_batch_fits(state_of(batch_size=2_002), world_size=2)
    config = cgan.load_config("digits-mlp", {"batch_size": 2_000, "images": 200_000})
    with pytest.raises(RunError, match="lower --batch-size"):
        cgan.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_picture_takes_grows_with_the_networks() -> None:
    small, large = state_of(), state_of(**{"model.width": 1024})
    # digits-mlp keeps a few thousand numbers a picture.
    assert 4 * 1_000 < memory.bytes_per_image(small) < 4 * 100_000
    assert memory.bytes_per_image(large) > 2 * memory.bytes_per_image(small)


def test_looking_changes_nothing() -> None:
    training = state_of()
    before = {k: v.clone() for k, v in training.generator.state_dict().items()}
    state = torch.get_rng_state()
    memory.bytes_per_image(training)
    assert torch.equal(state, torch.get_rng_state())
    assert training.generator.training
    assert training.discriminator.training
    assert all(torch.equal(v, before[k]) for k, v in training.generator.state_dict().items())
