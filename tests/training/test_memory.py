"""A batch that cannot fit is refused before anything is written; one that may not is a warning."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import cgan
from cgan.errors import RunError
from cgan.runtime.cpu import Memory
from cgan.training import step
from cgan.training.plan import Plan
from cgan.training.state import TrainState


def state_of(**changes: object) -> TrainState:
    config = cgan.load_config("digits-mlp", {"images": 6_400, **changes})
    return TrainState(Plan(config, cgan.load_pictures("digits"), torch.device("cpu")))


@pytest.fixture
def each() -> float:
    """Likely peak memory per image."""
    return step.PEAK_FACTOR * step.bytes_per_image(state_of())


def set_memory(monkeypatch: pytest.MonkeyPatch, total: float, free: float) -> None:
    found = Memory(round(total), round(free))
    monkeypatch.setattr(step, "device_memory", lambda device: found)


def warnings_of(caplog: pytest.LogCaptureFixture, batch: int, world_size: int = 1) -> list[str]:
    caplog.clear()
    with caplog.at_level("WARNING", "cgan"):
        step.check_batch_fits(state_of(batch_size=batch), world_size)
    return [record.getMessage() for record in caplog.records]


def test_a_batch_that_probably_does_not_fit(
    each: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_memory(monkeypatch, 1e15, 20_000.5 * each)
    assert warnings_of(caplog, 20_000) == []
    needed, free = f"{20_002 * each / 2**30:,.1f}", f"{20_000.5 * each / 2**30:,.1f}"
    assert warnings_of(caplog, 20_002) == [
        f"a batch of 20,002 probably takes about {needed} GiB in training, and cpu has {free} GiB "
        "free: if memory runs out, lower --batch-size to about 20,000"
    ]
    assert warnings_of(caplog, 40_000, world_size=2) == []
    (warning,) = warnings_of(caplog, 40_004, world_size=2)
    assert warning.endswith("lower --batch-size to about 40,000")
    set_memory(monkeypatch, 1e15, 1.5 * each)
    (warning,) = warnings_of(caplog, 64)
    assert warning.endswith("use smaller networks (--set model.width=…) or images (--size)")


def test_a_batch_that_cannot_fit(
    each: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = each * step.MIN_FACTOR / step.PEAK_FACTOR
    set_memory(monkeypatch, 1_000.5 * least, 500 * each / 12)
    step.check_batch_fits(state_of(batch_size=1_000))
    with pytest.raises(RunError) as caught:
        step.check_batch_fits(state_of(batch_size=1_001))
    assert re.fullmatch(
        r"a batch of 1,001 takes at least 0\.\d GiB in training, and cpu has 0\.\d GiB: "
        "lower --batch-size to about 41",
        str(caught.value),
    )
    step.check_batch_fits(state_of(batch_size=2_000), world_size=2)
    with pytest.raises(RunError, match=r"batch of 2,002 takes .* to about 82$"):
        step.check_batch_fits(state_of(batch_size=2_002), world_size=2)
    config = cgan.load_config("digits-mlp", {"batch_size": 2_000, "images": 200_000})
    with pytest.raises(RunError, match="lower --batch-size"):
        cgan.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_memory_that_is_unknown_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(step, "device_memory", lambda device: None)
    assert warnings_of(caplog, 2**20) == []


def test_what_a_picture_takes_grows_with_the_networks() -> None:
    small, large = state_of(), state_of(**{"model.width": 1024})
    # digits-mlp keeps a few thousand numbers a picture.
    assert 4 * 1_000 < step.bytes_per_image(small) < 4 * 100_000
    assert step.bytes_per_image(large) > 2 * step.bytes_per_image(small)


def test_looking_changes_nothing() -> None:
    training = state_of()
    before = {k: v.clone() for k, v in training.generator.state_dict().items()}
    state = torch.get_rng_state()
    step.bytes_per_image(training)
    assert torch.equal(state, torch.get_rng_state())
    assert training.generator.training
    assert training.discriminator.training
    assert all(torch.equal(v, before[k]) for k, v in training.generator.state_dict().items())


def test_looking_frees_its_graph() -> None:
    """A node that survives, made on the default stream, breaks the capture of a CUDA graph."""
    training = state_of()
    weight = next(training.generator.parameters())

    def node() -> Any:
        (accumulate, _), *_ = weight.expand_as(weight).grad_fn.next_functions
        return accumulate

    training.generator.register_forward_hook(lambda *_: node().metadata.update(old=True))
    step.bytes_per_image(training)
    assert "old" not in node().metadata
