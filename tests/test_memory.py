"""A batch that does not fit is refused before anything is written."""

from pathlib import Path

import pytest
import torch

import cgan
from cgan import memory
from cgan.errors import RunError
from cgan.learner import Learner


def learner_of(**changes: object) -> Learner:
    config = cgan.load_config("digits-mlp", {"images": 6_400, **changes})
    return Learner(config, cgan.load_pictures("digits"), torch.device("cpu"))


def test_a_batch_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each = memory.bytes_a_picture(learner_of())
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000 * each)
    memory.check_batch_fits(learner_of(batch_size=1_000))
    with pytest.raises(RunError, match=r"batch of 1,001 takes about .* GiB .* about 1,000 would"):
        memory.check_batch_fits(learner_of(batch_size=1_001))
    config = cgan.load_config("digits-mlp", {"batch_size": 2_000, "images": 200_000})
    with pytest.raises(RunError, match="lower --batch-size"):
        cgan.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_picture_takes_grows_with_the_networks() -> None:
    small, large = learner_of(), learner_of(**{"model.width": 1024})
    # digits-mlp keeps a few thousand numbers a picture.
    assert 4 * 1_000 < memory.bytes_a_picture(small) < 4 * 100_000
    assert memory.bytes_a_picture(large) > 2 * memory.bytes_a_picture(small)


def test_looking_changes_nothing() -> None:
    learner = learner_of()
    before = {k: v.clone() for k, v in learner.generator.state_dict().items()}
    state = torch.get_rng_state()
    memory.bytes_a_picture(learner)
    assert torch.equal(state, torch.get_rng_state())
    assert learner.generator.training
    assert learner.discriminator.training
    assert all(torch.equal(v, before[k]) for k, v in learner.generator.state_dict().items())
