"""Devices that are not available, and settings of torch that end with the block."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cgan
from cgan.config_io import load_config
from cgan.errors import ConfigError, DeviceError
from cgan.runtime.device import (
    MARK,
    configure_backends,
    find_device,
    seeded,
    set_memory_format,
    torch_defaults,
    without_dynamo,
)
from cgan.runtime.distributed import SINGLE_PROCESS, World
from cgan.training.plan import choose_device


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CUDA devices, two of Intel's and one of Apple's, which cannot compute anything."""
    for module in (torch.cuda, torch.xpu):
        monkeypatch.setattr(module, "is_available", lambda: True)
        monkeypatch.setattr(module, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


@pytest.fixture
def no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(module, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["cuda", "cuda:9", "mps", "xpu", "xpu:1"])
@pytest.mark.usefixtures("no_devices")
def test_devices_that_are_not_there(name: str) -> None:
    kind = name.partition(":")[0].upper()
    with pytest.raises(DeviceError, match=f"no {kind} device here: use --device cpu"):
        find_device(name)
    assert find_device("auto") == torch.device("cpu")


@pytest.mark.usefixtures("devices")
def test_an_index_too_high_is_refused() -> None:
    for name in ("cuda:2", "cuda:9999", "xpu:2"):
        kind = name.partition(":")[0]
        text = f"no {name}: this machine has 2, from {kind}:0 to {kind}:1"
        with pytest.raises(DeviceError, match=text):
            find_device(name)
    with pytest.raises(DeviceError, match="no cuda:2"):
        find_device("cuda", local_rank=2)


@pytest.mark.usefixtures("devices")
def test_devices_that_are_there() -> None:
    for name in ("cpu", "cuda", "cuda:1", "mps", "xpu", "xpu:0"):
        assert find_device(name) == torch.device(name)
    assert find_device("auto") == torch.device("cuda")
    ranked = {"auto": "cuda:1", "cuda": "cuda:1", "xpu": "xpu:1", "cuda:0": "cuda:0"}
    for name, expected in {**ranked, "mps": "mps", "cpu": "cpu"}.items():
        assert find_device(name, local_rank=1) == torch.device(expected)


@pytest.mark.parametrize("name", ["gpu", "meta", "cpu:0", "mps:0", "cuda:", "cuda:x", "CUDA", ""])
def test_names_that_are_no_device(name: str) -> None:
    with pytest.raises(DeviceError, match="choose auto, cpu, cuda, cuda:1, mps or xpu"):
        find_device(name)
    with pytest.raises(ConfigError, match="device"):
        load_config("digits-mlp", {"device": name})


@pytest.mark.usefixtures("devices")
def test_what_a_device_cannot_do_is_refused() -> None:
    for name in ("mps", "xpu", "xpu:1"):
        config = load_config("digits-mlp", {"device": name})
        assert choose_device(config, SINGLE_PROCESS) == torch.device(name)
        with pytest.raises(DeviceError, match=f"on CUDA devices only, not on {name}"):
            choose_device(config, World(0, 2))
        with pytest.raises(ConfigError, match=f"bf16 needs a CUDA device: turn it off on {name}"):
            load_config("digits-mlp", {"device": name, "bf16": True})
    assert load_config("digits-mlp", {"device": "cuda:1", "bf16": True}).bf16


def test_bf16_on_a_device_that_auto_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = load_config("digits-mlp", {"device": "auto", "bf16": True})
    with pytest.raises(DeviceError, match="bf16 needs a CUDA device, but the device is cpu"):
        choose_device(config, SINGLE_PROCESS)


def settings() -> dict[str, Any]:
    backends: Any = torch.backends
    return {
        "precision": torch.get_float32_matmul_precision(),
        "cuda": backends.cuda.matmul.fp32_precision,
        "mkldnn": backends.mkldnn.matmul.fp32_precision,
        "benchmark": backends.cudnn.benchmark,
        "threads": torch.get_num_threads(),
    }


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that were made current; torch's settings need no CUDA device."""
    chosen: list[torch.device] = []

    def choose(device: torch.device) -> nullcontext[None]:
        chosen.append(device)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "device", choose)
    return chosen


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("error", [None, RuntimeError])
def test_backends_are_configured_inside_only(
    error: type[Exception] | None, precision: str, fake_cuda: list[torch.device]
) -> None:
    device = torch.device("cuda", 1)
    first = settings()
    try:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)
        before = settings()
        with pytest.raises(error) if error else nullcontext(), configure_backends(device):
            inside = settings()
            assert fake_cuda == [device]
            if error:
                raise error
        assert settings() == before
    finally:
        torch.set_float32_matmul_precision(first["precision"])
        backends: Any = torch.backends
        backends.cuda.matmul.fp32_precision = first["cuda"]
        backends.mkldnn.matmul.fp32_precision = first["mkldnn"]
    assert settings() == first
    assert (inside["precision"], inside["cuda"], inside["benchmark"]) == ("high", "tf32", True)


@pytest.mark.usefixtures("fake_cuda")
def test_a_precision_that_the_caller_chose_by_backend_stays() -> None:
    """torch refuses to name the precision then, and would refuse to set it back."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with configure_backends(torch.device("cuda")):
            assert matmul.fp32_precision == "tf32"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
    assert settings()["precision"] == "highest"


def test_the_cores_are_split_and_the_callers_threads_come_back() -> None:
    first = settings()
    try:
        torch.set_num_threads(4)
        before = settings()
        with configure_backends(torch.device("cpu")):
            assert settings() == {**before, "threads": 2}
        assert settings() == before
    finally:
        torch.set_num_threads(first["threads"])


def test_seeding_draws_what_torch_draws_and_ends_with_the_block() -> None:
    torch.manual_seed(7)
    expected = torch.randn(100)
    before = torch.get_rng_state()
    with suppress(ZeroDivisionError), seeded(7, torch.device("cpu")):
        assert torch.equal(torch.randn(100), expected)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_seeding_a_device_leaves_the_others_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.manual_seed would seed every device, and only one would be restored."""

    def refuse(seed: int) -> None:
        raise AssertionError("this seeds all devices")

    states = [torch.tensor([5])]  # of the one device
    new = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: new())
    monkeypatch.setattr(torch, "manual_seed", refuse)
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "get_rng_state", lambda device: states[-1])
    monkeypatch.setattr(module, "set_rng_state", lambda state, device: states.append(state))
    with seeded(7, torch.device(kind)):
        assert torch.equal(states[-1], new().manual_seed(7).get_state())
    assert len(states) == 3
    assert states[-1] is states[0]


def test_the_defaults_of_torch_are_set_inside_only() -> None:
    def look() -> tuple[Any, ...]:
        new = torch.tensor([1.0])
        return (
            new.dtype,
            new.device.type,
            torch.is_grad_enabled(),
            new.is_inference(),
            torch.is_autocast_enabled("cpu"),
        )

    decorated: Callable[[], tuple[Any, ...]] = torch_defaults()(look)
    usual = (torch.float32, "cpu", True, False, False)
    assert look() == usual
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        assert decorated() == usual
        assert decorated() == usual
        assert look() == (torch.float32, "meta", False, True, True)
    assert look() == usual


def test_two_threads_keep_the_compiler_out() -> None:
    """The second one is still inside when the first one has left."""
    method = torch.optim.Optimizer.state_dict.__wrapped__  # type: ignore[attr-defined]
    before = hasattr(method, MARK)
    first, second = without_dynamo(), without_dynamo()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert hasattr(method, MARK) == (before or "torch._dynamo" not in sys.modules)
    second.__exit__(None, None, None)
    assert hasattr(method, MARK) == before


def test_memory_formats() -> None:
    """MPS cannot be tested here, so a parameter says that it is there."""
    network = nn.Conv2d(4, 4, 3)
    assert set_memory_format(network) is network
    assert network.weight.is_contiguous(memory_format=torch.channels_last)

    class OnMps(nn.Parameter):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("mps")

    network.register_parameter("other", OnMps(torch.zeros(1)))
    set_memory_format(network)
    assert network.weight.is_contiguous()


def test_a_generator_can_be_loaded_on_known_devices_only(small_run: cgan.Run) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(DeviceError):
            cgan.load(small_run.folder, device)


@pytest.mark.cuda
def test_cuda_settings_of_the_caller_come_back(tmp_path: Path) -> None:
    config = load_config(
        "digits-mlp", {"device": "cuda", "images": 640, "control_per_class": 0, "model.width": 16}
    )
    torch.rand(1, device="cuda")
    before, random = settings(), torch.cuda.get_rng_state_all()
    cgan.train(config, tmp_path / "run")
    assert settings() == before
    assert all(map(torch.equal, random, torch.cuda.get_rng_state_all()))
