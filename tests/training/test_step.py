"""One training step: the penalty schedule, the learning rate, the counters."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

import cgan
from cgan.config_io import load_config
from cgan.data import ImageDataset, Loader
from cgan.evaluation.judge import Judge
from cgan.losses import get_loss
from cgan.runtime.device import configure_backends, seeded
from cgan.runtime.distributed import World
from cgan.storage.paths import JUDGE_FILE, PACKAGED
from cgan.storage.run_files import pack_state
from cgan.training.ema import ema_decay
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from cgan.training.step import Autocast, TrainStep, beta2, learning_rate, penalty_scale
from cgan.updates import GAN, NO_PENALTY, UPDATES, PenaltyWeights, StepLosses


def record_weights(monkeypatch: pytest.MonkeyPatch) -> list[PenaltyWeights]:
    """A list to which each step of ``simultaneous`` appends its penalty weights."""
    seen: list[PenaltyWeights] = []
    plain = UPDATES["simultaneous"]

    def record(*arguments: object) -> StepLosses:
        assert isinstance(arguments[4], PenaltyWeights)
        seen.append(arguments[4])
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setitem(UPDATES, "simultaneous", record)
    return seen


def test_lazy_penalties_are_multiplied_by_their_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 4th step, 4 times as strong, starting with the first."""
    seen = record_weights(monkeypatch)
    digits = cgan.load_pictures("digits")
    config = load_config(
        "digits-mlp",
        {
            "penalty.r1": 0.5, "penalty.r2": 0.25, "penalty.lazy_interval": 4, "device": "cpu",
        },
    )  # fmt: skip
    step = TrainStep(TrainState(Plan(config, digits, torch.device("cpu"))))
    batches = Loader(digits, config.batch_size).batches()
    for _ in range(9):
        step(*next(batches))
    lazy = PenaltyWeights(r1=2.0, r2=1.0)
    assert [weights.scale for weights in seen] == [1.0] * 9
    assert seen == [lazy, *3 * [NO_PENALTY], lazy, *3 * [NO_PENALTY], lazy]
    assert (step.state.counters.steps, step.state.counters.images_seen) == (9, 9 * 64)


def test_a_teacher_teaches_at_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 3rd step, 3 times as strong; the header of the generator names it."""
    seen = record_weights(monkeypatch)
    digits = cgan.load_pictures("digits")
    changes = {"teacher.weight": 0.5, "teacher.interval": 3, "device": "cpu"}
    config = load_config("digits-mlp", changes)
    teacher = Judge.load(PACKAGED / "digits" / JUDGE_FILE)
    for given, wanted in ((teacher, [1.5, 0, 0, 1.5, 0]), (None, 5 * [0])):
        plan = Plan(config, digits, torch.device("cpu"), teacher=given)
        step = TrainStep(TrainState(plan))
        batches = Loader(digits, config.batch_size).batches()
        for _ in range(5):
            step(*next(batches))
        assert [weights.teacher for weights in seen[-5:]] == wanted
        named = None if given is None else given.name
        assert step.state.generator_header().get("teacher") == named


def test_learning_rate_is_a_cosine() -> None:
    config = load_config("digits-mlp", {"lr": 0.1, "lr_final_fraction": 0.2})
    assert learning_rate(config, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 0.5) == pytest.approx(0.06)
    assert learning_rate(config, 0.25) == pytest.approx(0.02 + 0.04 * (1 + math.sqrt(0.5)))
    assert learning_rate(config, 1.0) == pytest.approx(0.02)


def test_penalties_fall_to_a_fraction_along_a_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = record_weights(monkeypatch)
    digits = cgan.load_pictures("digits")
    changes = {"penalty.r1": 0.5, "penalty.final_fraction": 0.2, "images": 256, "device": "cpu"}
    config = load_config("digits-mlp", {**changes, "penalty.lazy_interval": 1})
    step = TrainStep(TrainState(Plan(config, digits, torch.device("cpu"))))
    batches = Loader(digits, config.batch_size).batches()
    for _ in range(4):
        step(*next(batches))
    half = math.sqrt(0.5)
    assert [weights.scale for weights in seen] == pytest.approx(
        [1.0, 0.2 + 0.4 * (1 + half), 0.6, 0.2 + 0.4 * (1 - half)]
    )
    assert penalty_scale(config, 1.0) == pytest.approx(0.2)


def test_beta2_changes_in_sixteen_stages() -> None:
    config = load_config("digits-mlp", {"betas": [0.0, 0.9], "beta2_final": 0.99})
    assert beta2(config, 0.0) == beta2(config, 0.0624) == 0.9
    assert beta2(config, 0.0625) == pytest.approx(0.99 - 0.045 * (1 + math.cos(math.pi / 15)))
    assert beta2(config, 0.9375) == beta2(config, 1.0) == pytest.approx(0.99)
    assert len({beta2(config, step / 1000) for step in range(1001)}) == 16
    constant = load_config("digits-mlp", {"betas": [0.0, 0.9]})
    assert beta2(constant, 0.7) == 0.9


SCHEDULED = {
    "betas": [0.5, 0.9], "beta2_final": 0.99, "images": 6_400, "device": "cpu",
    "augment": "translation", "augment_probability": 0.0, "augment_probability_final": 0.6,
    "ema_half_life_images": 0, "ema_half_life_final_images": 200,
}  # fmt: skip


def test_the_schedules_reach_optimizers_augmentation_and_average() -> None:
    digits = cgan.load_pictures("digits")
    state = TrainState(Plan(load_config("digits-mlp", SCHEDULED), digits, torch.device("cpu")))
    step = TrainStep(state)
    one = next(Loader(digits, 64).batches())
    for steps, β2, probability, half_life in ((0, 0.9, 0.0, 0.0), (50, 0.9497, 0.3, 100.0)):
        state.counters.steps, state.counters.images_seen = steps, 64 * steps
        step(*one)
        for optimizer in state.optimizers.values():
            found = optimizer.param_groups[0]["betas"]
            assert found == pytest.approx((0.5, β2), abs=1e-4)
        assert step.discriminator.augment.probability == pytest.approx(probability)
        assert step.decay == pytest.approx(ema_decay(64, half_life, 64 * (steps + 1)))


def test_a_captured_step_is_captured_again_when_beta2_changes() -> None:
    """Every replay finds the β₂ that it was captured with."""
    digits = cgan.load_pictures("digits")
    state = TrainState(Plan(load_config("digits-mlp", SCHEDULED), digits, torch.device("cpu")))
    captured: list[float] = []

    def beta2_now() -> float:
        found: float = state.generator_optimizer.param_groups[0]["betas"][1]
        return found

    def capture(work: Callable[[], StepLosses]) -> Callable[[], StepLosses]:
        held = beta2_now()
        captured.append(held)

        def replay() -> StepLosses:
            assert beta2_now() == held
            return work()

        return replay

    step = TrainStep(state, capture=capture)
    batches = Loader(digits, 64).batches()
    probability = step.discriminator.augment.probability
    for _ in range(100):
        step(*next(batches))
    assert len(set(captured)) == 16
    assert len(captured) < 32  # once per stage, with the penalty and without
    assert step.discriminator.augment.probability is probability  # a replay reads this tensor
    assert isinstance(probability, Tensor)
    assert probability.item() == pytest.approx(0.6, abs=1e-3)


def test_the_auxiliary_weight_reaches_the_loss() -> None:
    config = load_config("digits-mlp", {"aux_weight": 0.25, "device": "cpu"})
    step = TrainStep(TrainState(Plan(config, cgan.load_pictures("digits"), torch.device("cpu"))))
    assert step.gan.loss.aux_weight == 0.25
    assert isinstance(step.draw_z(), Tensor)
    assert step.draw_z().shape == (64, config.model.latent_dim)


def test_a_random_class_in_place_of_no_label() -> None:
    """As frequent as in the data; each of two processes uses its shard of the same classes."""
    config = load_config("digits-mlp", {"device": "cpu", "batch_size": 4096})
    digits = cgan.load_pictures("digits")
    kept = (digits.labels < 2) | (torch.arange(len(digits)) % 5 == 0)  # many 0 and 1
    uneven = ImageDataset("uneven", digits.images[kept], digits.labels[kept], digits.classes)
    labels = (torch.arange(4096) % 20 - 10).clamp_min(-1)  # half of them -1
    drawn = {}
    for size in (1, 2):
        for rank in range(size):
            state = TrainState(Plan(config, uneven, torch.device("cpu"), unlabelled=digits))
            step = TrainStep(state, World(rank, size))
            torch.manual_seed(0)
            drawn[rank, size] = step.draw_fake_labels(labels.chunk(size)[rank])
    whole = drawn[0, 1]
    assert torch.equal(torch.cat([drawn[0, 2], drawn[1, 2]]), whole)
    assert torch.equal(whole[labels >= 0], labels[labels >= 0])
    frequency = whole[labels < 0].bincount(minlength=10) / (labels < 0).sum()
    expected = uneven.labels.bincount(minlength=10) / len(uneven)
    torch.testing.assert_close(frequency, expected, atol=0.03, rtol=0)
    step = TrainStep(TrainState(Plan(config, digits, torch.device("cpu"))))
    assert step.draw_fake_labels(labels) is labels


@pytest.mark.parametrize("scheme", ["alternating", "simultaneous"])
def test_penalties_are_computed_in_float32_under_bfloat16(scheme: str) -> None:
    """With autocast, D sees bfloat16 in a step without penalties and float32 in one with them."""
    seen: list[torch.dtype] = []
    G, D = cgan.build_pair("mlp", image_shape=(1, 8, 8), num_classes=3, latent_dim=4, width=8)
    D.hidden[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    exact = []
    for wrapped in (False, True):
        gan = GAN(
            Autocast(G, "cpu") if wrapped else G,
            Autocast(D, "cpu") if wrapped else D,
            torch.optim.SGD(G.parameters(), 0.0),
            torch.optim.SGD(D.parameters(), 0.0),
            get_loss("hinge"),
        )
        torch.manual_seed(0)
        real, labels = torch.randn(4, 1, 8, 8), torch.arange(4) % 3
        for weights in (NO_PENALTY, PenaltyWeights(r1=1.0)):
            seen.clear()
            losses = UPDATES[scheme](gan, real, labels, lambda: torch.ones(4, 4), weights)
            updates_D = set(seen[-2:])  # the last two forward passes of D are those of its update
            precise = bool(weights) or not wrapped
            assert updates_D == {torch.float32 if precise else torch.bfloat16}
        exact.append(losses["penalty"])
        assert losses["loss_D"].dtype == torch.float32
    assert torch.equal(exact[0], exact[1])


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_a_compiled_step_sets_up_the_compiler_while_it_runs_only(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._functorch import config as functorch

    seen = []

    def look(*_: object) -> None:
        seen.append(functorch.donated_buffer)
        if error:
            raise error

    monkeypatch.setattr(torch, "compile", lambda network: network)
    before, digits = functorch.donated_buffer, cgan.load_pictures("digits")
    config = load_config("digits-mlp", {"compile": True, "device": "cpu"})
    step = TrainStep(TrainState(Plan(config, digits, torch.device("cpu"))))
    step.state.generator.register_forward_pre_hook(look)
    with pytest.raises(error) if error else nullcontext():
        step(*next(Loader(digits, config.batch_size).batches()))
    assert set(seen) == {False}
    assert functorch.donated_buffer == before


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("config", ["mnist-dcgan", "folder-dcgan"])
def test_a_step_is_the_same_on_one_core_and_two(config: str, update: str) -> None:
    """Bit for bit, at the same time and in turn, and whatever the threads did before."""
    changes = {
        "data.source": "digits", "update": update, "penalty.r1": 0.3, "penalty.r2": 0.2,
        "penalty.lazy_interval": 2, "batch_size": 8,
        "augment": ["translation"], "model.dropout": 0.1, "model.width": 8, "device": "cpu",
    }  # fmt: skip
    digits = cgan.load_pictures("digits")
    found = []
    threads = torch.get_num_threads()
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        with configure_backends(torch.device("cpu")), seeded(0, torch.device("cpu")):
            state = TrainState(Plan(load_config(config, changes), digits, torch.device("cpu")))
            step = TrainStep(state)
            batches = Loader(digits, 8).batches()
            losses = [step(*next(batches)) for _ in range(5)]
            found.append([*pack_state(state.networks, state.optimizers, state.device).values()])
            found[-1] += [value for one in losses for value in one.values()]
        torch.set_num_threads(threads)
        one = torch.ones(1, requires_grad=True)
        for _ in range(10_000):  # autograd numbers the operations of each thread
            one * 1
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


@pytest.mark.parametrize(("interval", "warns"), [(1, True), (2, False)])
def test_penalties_in_every_step_turn_compilation_of_d_off_and_say_so(
    interval: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"compile": True, "penalty.r1": 1.0, "penalty.lazy_interval": interval}
    config = load_config("digits-mlp", {**changes, "device": "cpu"})
    TrainStep(TrainState(Plan(config, cgan.load_pictures("digits"), torch.device("cpu"))))
    assert ("D is trained without torch.compile" in caplog.text) is warns
