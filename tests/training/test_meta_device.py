"""No computation mixes devices or reads a result back: torch's meta device does not allow either.

Tensors on it have a shape and no values. It stands in for GPUs, none of which is needed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cgan
from cgan.data import Loader
from cgan.evaluation.judge import Classifier, Judge, JudgeHeader
from cgan.evaluation.judge_training import random_shift
from cgan.losses import LOSSES
from cgan.models import BACKBONES
from cgan.models.conditioning import sync_batch_norm
from cgan.sampling.sampler import Sampler
from cgan.training import state as state_module
from cgan.training.cuda_graph import WARMUP_STEPS, GraphedStep
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from cgan.training.step import TrainStep, bytes_per_image
from cgan.updates import UPDATES

META = torch.device("meta")
DIGITS = cgan.load_pictures("digits")
LABELS = [("concat", "concat"), ("cbn", "projection+auxiliary"), None]
PENALTIES = {"penalty.r1": 0.5, "penalty.r2": 0.5}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, except for copies and for single numbers.

    Meta itself allows some of them.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        found = {tensor.device.type for tensor in tensors if tensor.dim()}
        copies = func.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten._to_copy)
        assert copies or len(found) <= 1, f"{func} on {found}"
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def plain_adam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused Adam knows cpu, cuda, mps and xpu, but not meta."""

    def make(network: nn.Module, config: cgan.Config) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), config.lr, config.betas)

    monkeypatch.setattr(state_module, "make_optimizer", make)


def train_state(**changes: object) -> TrainState:
    config = cgan.load_config(
        "digits-mlp", {"batch_size": 4, "model.width": 8, **PENALTIES, **changes}
    )
    with torch.random.fork_rng([]):
        return TrainState(Plan(config, DIGITS, META))


def take_step(state: TrainState, step: TrainStep) -> None:
    real, labels = next(Loader(DIGITS, 4, META).batches())
    with OneDevice():
        losses = step(real, labels)
    assert {name: value.device for name, value in losses.items()} == dict.fromkeys(
        ("loss_G", "loss_D", "aux_G", "aux_D", "penalty", "distillation"), META
    )
    for network in state.networks.values():
        assert {tensor.device for tensor in network.state_dict().values()} == {META}


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("label", LABELS, ids=str)
def test_a_step_stays_on_its_device(
    label: tuple[str, str] | None, backbone: str, update: str
) -> None:
    conditioning: dict[str, object] = {"model.conditional": label is not None}
    if label:
        conditioning |= {"model.generator_label": label[0], "model.discriminator_label": label[1]}
    state = train_state(
        update=update, **{"model.backbone": backbone, "model.dropout": 0.5, **conditioning}
    )
    step = TrainStep(state)
    for _ in range(2):  # with penalties and without
        take_step(state, step)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_stays_on_its_device(loss: str) -> None:
    state = train_state(loss=loss)
    take_step(state, TrainStep(state))


@pytest.mark.parametrize("conditional", [True, False])
def test_the_batch_norm_of_several_processes_stays_on_its_device(conditional: bool) -> None:
    state = train_state(**{"model.backbone": "dcgan", "model.conditional": conditional})
    sync_batch_norm(state.generator, lambda tensor: tensor.clone(), 2)
    take_step(state, TrainStep(state))


def test_a_captured_step_reads_what_changes_on_its_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A CUDA graph captures the step; here the capture calls it again."""

    class Descent(torch.optim.SGD):
        """Adam takes a learning rate on the device on some kinds of devices only."""

        def step(self, closure: None = None) -> None:  # type: ignore[override]
            (group,) = self.param_groups
            for weight in group["params"]:
                weight.data.sub_(group["lr"] * weight.grad)

    monkeypatch.setattr(
        state_module, "make_optimizer", lambda network, config: Descent(network.parameters())
    )
    state = train_state(**{"penalty.lazy_interval": 2})
    step = TrainStep(state, capture=lambda work: work)
    assert isinstance(step.lr, Tensor)
    assert isinstance(step.decay, Tensor)
    assert isinstance(step.scale, Tensor)
    assert step.lr.device == step.decay.device == step.scale.device == META
    for _ in range(WARMUP_STEPS * state.config.penalty.lazy_interval + 2):
        take_step(state, step)
    assert isinstance(step.run, GraphedStep)
    assert len(step.run.replays) == 2


def test_the_memory_of_a_batch_is_found_without_values() -> None:
    assert bytes_per_image(train_state()) >= 0  # tensors without values take no memory


def test_batches_arrive_on_the_device() -> None:
    for home in (META, torch.device("cpu")):
        images, labels = next(Loader(DIGITS, 4, home).batches())
        assert {images.device, labels.device} == {home}
        assert (images.shape, images.dtype, labels.dtype) == (
            (4, 1, 8, 8), torch.float32, torch.int64,
        )  # fmt: skip


@pytest.fixture(params=[(b, c) for b in BACKBONES for c in (True, False)], ids=str)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    backbone, conditional = request.param
    return train_state(**{"model.backbone": backbone, "model.conditional": conditional}).sampler(
        Path("run")
    )


def test_sampling_stays_on_its_device(sampler: Sampler) -> None:
    """z is drawn on the CPU and copied, because MPS and some XPUs have no float64."""
    assert sampler.device == META
    with OneDevice():
        batches = list(sampler.batches(sampler.request(None, 7)))
    assert sum(len(images) for images, _ in batches) == (70 if sampler.conditional else 7)
    for images, labels in batches:
        assert images.device == META
        assert labels is None or labels.device == META


def test_the_judge_classifies_on_its_device() -> None:
    header = JudgeHeader("digits", "digest", DIGITS.classes, DIGITS.image_shape, None, 0)
    with torch.random.fork_rng([]):
        network = Classifier(DIGITS.image_shape, len(DIGITS.classes)).to(META)
    judge = Judge(network, header)
    with OneDevice():
        labels, features = judge.predict(torch.zeros(3, 1, 8, 8))
    assert judge.device == labels.device == features.device == META
    assert (labels.shape, features.shape) == ((3,), (3, 128))


def test_the_judge_trains_on_its_device() -> None:
    with torch.random.fork_rng([]):
        network = Classifier(DIGITS.image_shape, len(DIGITS.classes)).to(META)
        images, labels = next(Loader(DIGITS, 4, META, balanced=True).batches())
        shifted = random_shift(images, 1)
    assert shifted.device == META
    with OneDevice():
        loss = nn.functional.cross_entropy(network(shifted), labels, label_smoothing=0.05)
        loss.backward()
    assert {p.grad.device for p in network.parameters() if p.grad is not None} == {META}


def test_meta_refuses_what_these_tests_look_for() -> None:
    there, here = torch.zeros(2, device=META), torch.zeros(2)
    with pytest.raises(RuntimeError, match="device"):
        there + here
    with pytest.raises(AssertionError, match="embedding"), OneDevice():
        nn.functional.embedding(torch.zeros(1, dtype=torch.int64), torch.zeros(2, 2, device=META))
    with pytest.raises(RuntimeError, match="meta"):
        float(there.sum())
