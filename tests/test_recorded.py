"""A recorded step does what the plain one does. A tape stands in for a CUDA graph here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cgan.config import load_config
from cgan.data import Loader, load_pictures
from cgan.ema import update_average
from cgan.learner import Learner
from cgan.recorded import WARM_UP, RecordedStep
from cgan.updates import Losses, Penalty

CPU = torch.device("cpu")


class Tape(TorchDispatchMode):
    """Keeps every operation, and does them again on the same memory, as a CUDA graph would.

    Unlike one it also does them while it records; the steps below take that into account.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, kept in self.done:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(kept), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def learner_of(record: Any, **changes: object) -> tuple[Learner, Loader]:
    changes = {"images": 6_400, "control_per_class": 0, "device": "cpu", **changes}
    config = load_config("digits-mlp", changes)
    pictures = load_pictures("digits")
    torch.manual_seed(0)
    return Learner(config, pictures, CPU, record=record), Loader(pictures, config.batch_size)


def taped(tapes: list[Tape], learners: list[Learner]) -> Callable[..., Callable[[], Losses]]:
    """Records, then puts everything back as it was: recording a CUDA graph changes nothing."""

    def record(work: Callable[[], Losses]) -> Callable[[], Losses]:
        learner = learners[0]
        changing = [
            *(t for network in learner.networks.values() for t in network.state_dict().values()),
            *(
                moment
                for optimizer in learner.optimizers.values()
                for moments in optimizer.state.values()
                for moment in moments.values()
            ),
        ]
        before = [tensor.clone() for tensor in changing]
        random = torch.get_rng_state()
        tape = Tape()
        with tape:
            losses = work()
        for tensor, old in zip(changing, before, strict=True):
            tensor.detach().copy_(old)
        torch.set_rng_state(random)
        tapes.append(tape)

        def replay() -> Losses:
            with torch.no_grad():
                tape.replay()
            return losses

        return replay

    return record


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"update": "alternating", "penalty.r2": 0.1, "loss": "relativistic"},
        {"model.backbone": "dcgan", "model.generator_label": "cbn", "model.conditional": True},
    ],
)
def test_a_recorded_step_is_the_plain_step(changes: dict[str, object]) -> None:
    """Learning rate, decay, z and pictures change with each step; whatever was baked in shows."""
    steps = 30
    plain, loader = learner_of(None, **changes)
    batches, told = loader.batches(), []
    for _ in range(steps):
        told.append({k: v.item() for k, v in plain.step(*next(batches)).items()})

    tapes: list[Tape] = []
    learners: list[Learner] = []
    replayed, loader = learner_of(taped(tapes, learners), **changes)
    learners.append(replayed)
    batches = loader.batches()
    for step in range(steps):
        losses = replayed.step(*next(batches))
        for name, value in losses.items():
            assert value.item() == pytest.approx(told[step][name], rel=1e-3, abs=1e-4), (step, name)
    assert isinstance(replayed.run, RecordedStep)
    assert len(tapes) == 2  # with the penalty and without
    assert max(replayed.run.run.values()) == WARM_UP + 1
    for name, network in plain.networks.items():
        for key, value in network.state_dict().items():
            other = replayed.networks[name].state_dict()[key]
            torch.testing.assert_close(other, value, atol=2e-4, rtol=1e-3, msg=f"{name}.{key}")


def test_no_step_waits_for_a_result() -> None:
    """On CUDA, reading a number makes the whole queue run dry."""
    for changes in ({}, {"update": "alternating", "model.backbone": "dcgan"}):
        tapes: list[Tape] = []
        learners: list[Learner] = []
        learner, loader = learner_of(taped(tapes, learners), **changes)
        learners.append(learner)
        batches = loader.batches()
        for _ in range(30):
            learner.step(*next(batches))
        names = {str(func) for tape in tapes for func, *_ in tape.done}
        assert len(names) > 20
        waits = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.item.default"}
        assert not names & waits


def test_a_state_taken_up_is_recorded_with_the_rate_that_falls(tmp_path: Path) -> None:
    first, loader = learner_of(None)
    batches = loader.batches()
    for _ in range(5):
        first.step(*next(batches))
    first.save(tmp_path)
    tapes: list[Tape] = []
    learners: list[Learner] = []
    for record in (None, taped(tapes, learners)):
        learner, loader = learner_of(record)
        learners[:] = [learner]
        learner.restore(tmp_path)
        batches = loader.batches(learner.counters.images_seen)
        for _ in range(40):
            learner.step(*next(batches))
        if record is None:
            expected = {k: v.clone() for k, v in learner.average.state_dict().items()}
    for name, value in learner.average.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=2e-4, rtol=1e-3, msg=name)
    for optimizer in learner.optimizers.values():
        assert optimizer.param_groups[0]["lr"] is learner.lr


def test_a_step_that_cannot_be_recorded_is_run_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(work: Callable[[], Losses]) -> Callable[[], Losses]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    plain, loader = learner_of(None)
    batches = loader.batches()
    for _ in range(8):
        plain.step(*next(batches))
    refused, loader = learner_of(refuse)
    batches = loader.batches()
    with caplog.at_level("WARNING", "cgan"):
        for _ in range(8):
            refused.step(*next(batches))
    assert len(caplog.records) == 1
    assert "can't be recorded" in caplog.text
    for old, new in zip(plain.average.parameters(), refused.average.parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=1e-5, rtol=1e-4)


def test_running_out_of_memory_is_not_taken_for_that() -> None:
    def overflow(work: Callable[[], Losses]) -> Callable[[], Losses]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def step(real: Tensor, labels: Tensor, penalty: Penalty) -> Losses:
        return {}

    recorded = RecordedStep(step, overflow)
    for _ in range(WARM_UP):
        recorded(torch.zeros(1), torch.zeros(1), Penalty())
    with pytest.raises(torch.OutOfMemoryError):
        recorded(torch.zeros(1), torch.zeros(1), Penalty())


def test_an_average_by_a_tensor_is_the_average_by_a_number() -> None:
    torch.manual_seed(0)
    network, one, two = (torch.nn.Linear(3, 4) for _ in range(3))
    two.load_state_dict(one.state_dict())
    expected = 0.75 * one.weight + 0.25 * network.weight
    update_average(one, network, 0.75)
    update_average(two, network, torch.tensor(0.75))
    torch.testing.assert_close(one.weight, expected)
    torch.testing.assert_close(two.weight, expected)


@pytest.mark.cuda
def test_a_cuda_graph_does_what_the_plain_path_does() -> None:
    config = load_config("digits-mlp", {"images": 6_400, "control_per_class": 0})
    pictures, device = load_pictures("digits"), torch.device("cuda")
    ends = []
    for recorded in (True, False):
        torch.manual_seed(0)
        learner = Learner(config, pictures, device)
        if not recorded:
            learner.run = learner.learn
        batches = Loader(pictures, config.batch_size, device).batches()
        for _ in range(50):
            learner.step(*next(batches))
        if recorded:
            assert isinstance(learner.run, RecordedStep)
            assert len(learner.run.replays) == 2
        ends.append([weight.detach().clone() for weight in learner.average.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=0)
