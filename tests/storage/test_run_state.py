"""The state of a run: it goes on bit for bit, and one that does not fit changes nothing."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cgan.errors import FileError
from cgan.storage.paths import STATE_FILES
from cgan.storage.run_files import load_state, pack_state, save_state, unpack_state

CPU = torch.device("cpu")
COUNTERS: dict[str, Any] = {"images_seen": 192, "steps": 3, "seconds": 0.5}
NAN = float("nan")


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 1))
    network.to(memory_format=torch.channels_last)
    return network, torch.optim.Adam(network.parameters(), 1e-2, (0.0, 0.99), fused=True)


def learn(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()


def test_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, optimizer = make()
    learn(network, optimizer, 3)
    save_state(tmp_path, pack_state({"net": network}, {"opt": optimizer}, CPU), COUNTERS)
    learn(network, optimizer, 3)

    again, its_optimizer = make()
    path, tensors, header, problems = load_state(tmp_path)
    unpack_state(tensors, {"net": again}, {"opt": its_optimizer}, CPU, path)
    learn(again, its_optimizer, 3)
    assert header["steps"] == 3
    assert problems == []
    for (name, one), two in zip(
        network.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


def test_two_states_are_kept_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, {"x": torch.tensor(step)}, {**COUNTERS, "steps": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(STATE_FILES)
    assert load_state(tmp_path)[2]["steps"] == 3
    last = tmp_path / STATE_FILES[0]
    last.write_bytes(last.read_bytes()[:-2])
    path, tensors, header, problems = load_state(tmp_path)
    assert (path.name, header["steps"], tensors["x"].item()) == (STATE_FILES[1], 2, 2)
    assert len(problems) == 1
    assert "damaged" in problems[0]
    path.write_bytes(b"")
    with pytest.raises(FileError, match=r"nothing to resume from.*damaged.*empty"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    ("counters", "fault"),
    [
        ({"steps": 3}, "images_seen is missing"),
        ({**COUNTERS, "images_seen": -1}, "images_seen is not a whole number from 0"),
        ({**COUNTERS, "images_seen": 2.5}, "images_seen is not a whole number from 0"),
        ({**COUNTERS, "steps": True}, "steps is not a whole number from 0"),
        ({**COUNTERS, "steps": 2**63}, "more than 64 bits"),
        ({**COUNTERS, "seconds": "long"}, "seconds is not a finite number from 0"),
        ({**COUNTERS, "seconds": -0.1}, "seconds is not a finite number from 0"),
    ],
)
def test_counters_that_are_none(counters: dict[str, Any], fault: str, tmp_path: Path) -> None:
    save_state(tmp_path, {"x": torch.tensor(1)}, COUNTERS)
    save_state(tmp_path, {"x": torch.tensor(2)}, counters)
    path, tensors, _, (problem,) = load_state(tmp_path)
    assert (path.name, tensors["x"].item()) == (STATE_FILES[1], 1)
    assert fault in problem


def everything() -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    network, optimizer = make()
    learn(network, optimizer, 1)
    return {"net": network}, {"opt": optimizer}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"random.cpu": None}, "random.cpu is missing"),
        ({"random.cpu": torch.zeros(3, dtype=torch.uint8)}, "invalid random.cpu"),
        ({"random.cpu": torch.zeros(5_056)}, "invalid random.cpu"),
        ({"random.cpu": torch.full((5_056,), 255, dtype=torch.uint8)}, "invalid random.cpu"),
        ({"net.0.weight": None}, "0.weight is missing"),
        ({"net.0.weight": torch.zeros(4)}, "0.weight is F32 [4], not F32 [4, 3, 3, 3]"),
        ({"net.0.bias": torch.zeros(4, dtype=torch.float64)}, "is torch.float64 [4], not F32"),
        ({"net.0.bias": torch.full((4,), NAN)}, "not finite (net.0.bias)"),
        ({"net.extra": torch.zeros(4)}, "'extra' is not in them"),
        ({"opt.0.exp_avg": None}, "0.exp_avg is missing"),
        ({"opt.6.step": torch.tensor(1.0)}, "no '6.step'"),
        ({"opt.-1.step": torch.tensor(1.0)}, "no '-1.step'"),
        ({"opt.first.step": torch.tensor(1.0)}, "no 'first.step'"),
        ({"opt.0.momentum": torch.tensor(1.0)}, "no '0.momentum'"),
        ({"opt.1.exp_avg": torch.zeros(5)}, "1.exp_avg has the shape [5], not [4]"),
        ({"opt.1.exp_avg": torch.zeros(4, dtype=torch.int64)}, "is not float32"),
        ({"opt.1.step": torch.zeros(4)}, "1.step has the shape [4], not []"),
        ({"opt.1.exp_avg_sq": torch.full((4,), NAN)}, "not finite (opt.1.exp_avg_sq)"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(
    changes: dict[str, Tensor | None], fault: str
) -> None:
    tensors: dict[str, Tensor | None] = {**pack_state(*everything(), CPU), **changes}
    networks, optimizers = everything()
    before = {
        name: tensor.clone() for name, tensor in pack_state(networks, optimizers, CPU).items()
    }
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(FileError, match=rf"^here .*{re.escape(fault)}"):
        unpack_state(given, networks, optimizers, CPU, Path("here"))
    after = pack_state(networks, optimizers, CPU)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_state_before_the_first_step_has_no_moments() -> None:
    network, optimizer = make()
    tensors = pack_state({"net": network}, {"opt": optimizer}, CPU)
    assert not any(name.startswith("opt") for name in tensors)
    again, its_optimizer = make()
    unpack_state(tensors, {"net": again}, {"opt": its_optimizer}, CPU, Path("here"))
    assert torch.equal(again[0].weight, network[0].weight)  # type: ignore[index,union-attr]
    learn(again, its_optimizer, 1)


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_random_state_of_the_device_is_kept(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, device, restored = torch.device("cpu"), torch.device(kind), []
    module, new = getattr(torch, kind), torch.Generator
    state = new().manual_seed(3).get_state()
    monkeypatch.setattr(torch, "Generator", lambda device: new())
    monkeypatch.setattr(module, "get_rng_state", lambda device: state)
    monkeypatch.setattr(module, "set_rng_state", lambda state, device: restored.append(state))
    packed = pack_state({}, {}, device)
    assert sorted(packed) == sorted(["random.cpu", f"random.{kind}"])
    unpack_state(packed, {}, {}, device, Path("x"))
    assert restored == [packed[f"random.{kind}"]]
    unpack_state(pack_state({}, {}, cpu), {}, {}, device, Path("x"))  # a state of another device
    assert len(restored) == 1


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_keeps_a_state(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state is written, then the last one becomes the one before it, then it the last one."""
    save_state(tmp_path, {"x": torch.tensor(1)}, COUNTERS)
    real, renamed = os.replace, []

    def replace(old: str, new: str) -> None:
        renamed.append(new)
        if len(renamed) > failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(FileError, match=r"cannot write .*state.*safetensors"):
        save_state(tmp_path, {"x": torch.tensor(2)}, {**COUNTERS, "steps": 999})
    assert load_state(tmp_path)[2]["steps"] == COUNTERS["steps"]
    assert len(list(tmp_path.iterdir())) == 1
