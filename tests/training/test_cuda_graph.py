"""A captured step equals the plain one. A tape stands in for a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cgan.config_io import load_config
from cgan.data import Loader, load_pictures
from cgan.training.cuda_graph import WARMUP_STEPS, GraphedStep
from cgan.training.ema import update_ema
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from cgan.training.step import TrainStep
from cgan.updates import NO_PENALTY, PenaltyWeights, StepLosses, in_turn

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


def step_of(capture: Any, **changes: object) -> tuple[TrainStep, Loader]:
    changes = {"images": 6_400, "control_per_class": 0, "device": "cpu", **changes}
    config = load_config("digits-mlp", changes)
    pictures = load_pictures("digits")
    torch.manual_seed(0)
    step = TrainStep(TrainState(Plan(config, pictures, CPU)), capture=capture)
    step.gan.both = in_turn  # as on a GPU, with one source of random numbers
    return step, Loader(pictures, config.batch_size)


def taped(tapes: list[Tape], steps: list[TrainStep]) -> Callable[..., Callable[[], StepLosses]]:
    """Records, then puts everything back as it was: recording a CUDA graph changes nothing."""

    def capture(work: Callable[[], StepLosses]) -> Callable[[], StepLosses]:
        state = steps[0].state
        changing = [
            *(t for network in state.networks.values() for t in network.state_dict().values()),
            *(
                moment
                for optimizer in state.optimizers.values()
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

        def replay() -> StepLosses:
            with torch.no_grad():
                tape.replay()
            return losses

        return replay

    return capture


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"update": "alternating", "penalty.r2": 0.1, "loss": "relativistic"},
        {
            "model.backbone": "dcgan",
            "model.generator_label": "cbn",
            "model.conditional": True,
            "augment": "mirror,colour,hue,translation,cutout",
        },
        {"model.backbone": "resnet", "model.width": 8, "penalty.final_fraction": 0.1},
    ],
)
def test_a_captured_step_equals_the_plain_step(changes: dict[str, object]) -> None:
    """Learning rate, γ, decay, z and images change at every step: a baked-in value would show."""
    count = 30
    plain, loader = step_of(None, **changes)
    batches, expected = loader.batches(), []
    for _ in range(count):
        expected.append({k: v.item() for k, v in plain(*next(batches)).items()})

    tapes: list[Tape] = []
    steps: list[TrainStep] = []
    replayed, loader = step_of(taped(tapes, steps), **changes)
    steps.append(replayed)
    batches = loader.batches()
    for index in range(count):
        losses = replayed(*next(batches))
        for name, value in losses.items():
            wanted = pytest.approx(expected[index][name], rel=1e-3, abs=1e-4)
            assert value.item() == wanted, (index, name)
    assert isinstance(replayed.run, GraphedStep)
    assert len(tapes) == 2  # with the penalty and without
    assert max(replayed.run.calls.values()) == WARMUP_STEPS + 1
    for name, network in plain.state.networks.items():
        for key, value in network.state_dict().items():
            other = replayed.state.networks[name].state_dict()[key]
            torch.testing.assert_close(other, value, atol=2e-4, rtol=1e-3, msg=f"{name}.{key}")


def test_no_step_reads_a_result_back() -> None:
    """On CUDA, reading a number waits for the whole queue."""
    for changes in ({}, {"update": "alternating", "model.backbone": "dcgan"}):
        tapes: list[Tape] = []
        steps: list[TrainStep] = []
        step, loader = step_of(taped(tapes, steps), **changes)
        steps.append(step)
        batches = loader.batches()
        for _ in range(30):
            step(*next(batches))
        names = {str(func) for tape in tapes for func, *_ in tape.done}
        assert len(names) > 20
        reads = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.item.default"}
        assert not names & reads


def test_a_restored_state_is_captured_with_the_current_learning_rate(tmp_path: Path) -> None:
    first, loader = step_of(None)
    batches = loader.batches()
    for _ in range(5):
        first(*next(batches))
    first.state.save(tmp_path)
    tapes: list[Tape] = []
    steps: list[TrainStep] = []
    for capture in (None, taped(tapes, steps)):
        step, loader = step_of(capture)
        steps[:] = [step]
        step.state.restore(tmp_path)
        batches = loader.batches(step.state.counters.images_seen)
        for _ in range(40):
            step(*next(batches))
        if capture is None:
            expected = {k: v.clone() for k, v in step.state.generator_ema.state_dict().items()}
    for name, value in step.state.generator_ema.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=2e-4, rtol=1e-3, msg=name)
    for optimizer in step.state.optimizers.values():
        assert optimizer.param_groups[0]["lr"] is step.lr


def test_a_step_that_cannot_be_captured_runs_without(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(work: Callable[[], StepLosses]) -> Callable[[], StepLosses]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    plain, loader = step_of(None)
    batches = loader.batches()
    for _ in range(8):
        plain(*next(batches))
    refused, loader = step_of(refuse)
    batches = loader.batches()
    with caplog.at_level("WARNING", "cgan"):
        for _ in range(8):
            refused(*next(batches))
    assert len(caplog.records) == 1
    assert "cannot be captured" in caplog.text
    assert isinstance(refused.run, GraphedStep)
    assert not refused.run.enabled
    one, other = (step.state.generator_ema.parameters() for step in (plain, refused))
    for old, new in zip(one, other, strict=True):
        torch.testing.assert_close(old, new, atol=1e-5, rtol=1e-4)


def test_running_out_of_memory_is_not_steps_for_that() -> None:
    def overflow(work: Callable[[], StepLosses]) -> Callable[[], StepLosses]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def step(real: Tensor, labels: Tensor, penalty: PenaltyWeights) -> StepLosses:
        return {}

    recorded = GraphedStep(step, overflow)
    for _ in range(WARMUP_STEPS):
        recorded(torch.zeros(1), torch.zeros(1), PenaltyWeights())
    with pytest.raises(torch.OutOfMemoryError):
        recorded(torch.zeros(1), torch.zeros(1), PenaltyWeights())


def test_an_average_by_a_tensor_is_the_average_by_a_number() -> None:
    torch.manual_seed(0)
    network, one, two = (torch.nn.Linear(3, 4) for _ in range(3))
    two.load_state_dict(one.state_dict())
    expected = 0.75 * one.weight + 0.25 * network.weight
    update_ema(one, network, 0.75)
    update_ema(two, network, torch.tensor(0.75))
    torch.testing.assert_close(one.weight, expected)
    torch.testing.assert_close(two.weight, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("beta2_final", [None, 0.9])
def test_a_cuda_graph_equals_the_plain_step(beta2_final: float | None) -> None:
    """With a schedule of β₂ it is captured again at each stage."""
    changes = {"images": 6_400, "control_per_class": 0, "beta2_final": beta2_final}
    config = load_config("digits-mlp", changes)
    digits, device = load_pictures("digits"), torch.device("cuda")
    ends = []
    for graphed in (True, False):
        torch.manual_seed(0)
        step = TrainStep(TrainState(Plan(config, digits, device)))
        if not graphed:
            step.run = step.update
        batches = Loader(digits, config.batch_size, device).batches()
        for _ in range(50):
            step(*next(batches))
        if graphed:
            assert isinstance(step.run, GraphedStep)
            assert step.run.enabled
            assert step.run.replays
        ema = step.state.generator_ema
        ends.append([weight.detach().clone() for weight in ema.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=0)


@pytest.mark.cuda
def test_a_step_that_cannot_be_captured_still_draws() -> None:
    def reads_back(real: Tensor, labels: Tensor, weights: PenaltyWeights) -> StepLosses:
        total = torch.randn(2, device=real.device).sum()
        return {"loss": total + total.item()}

    step = GraphedStep(reads_back)
    one = torch.zeros(2, device="cuda")
    drawn = {step(one, one, NO_PENALTY)["loss"].item() for _ in range(WARMUP_STEPS + 3)}
    assert not step.enabled
    assert len(drawn) == WARMUP_STEPS + 3
