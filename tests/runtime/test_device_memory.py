"""Memory of devices, and what is said when it runs out."""

import pytest
import torch

from cgan.errors import RunError
from cgan.runtime import device as devices
from cgan.runtime.cpu import Memory
from cgan.runtime.device import device_memory, explain_out_of_memory


def test_processes_share_the_memory_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "machine_memory", lambda: Memory(800, 301))
    assert device_memory(cpu) == Memory(800, 301)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert device_memory(cpu) == Memory(200, 75)
    monkeypatch.setattr(devices, "machine_memory", lambda: None)
    assert device_memory(cpu) is None


def test_each_gpu_has_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (300 + device.index, 800))
    assert device_memory(torch.device("cuda:1")) == Memory(800, 301)


OUT_OF_MEMORY = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total."),
     " (it tried to allocate 2.00 GiB)"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't "
     "allocate memory: you tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"),
     " (it tried to allocate 4096 bytes)"),
    (RuntimeError("CUDA error: out of memory"), ""),
    (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), ""),
    (MemoryError(), ""),
]  # fmt: skip


@pytest.mark.parametrize(("error", "detail"), OUT_OF_MEMORY)
def test_what_ran_out_of_memory(error: Exception, detail: str) -> None:
    with pytest.raises(RunError) as caught, explain_out_of_memory("thinking", "think less"):
        raise error
    assert str(caught.value) == f"thinking ran out of memory{detail}: think less"
    assert caught.value.__cause__ is error


def test_other_errors_stay() -> None:
    for error in (RuntimeError("shapes differ"), RunError("sampling ran out of memory"), OSError()):
        with pytest.raises(type(error)) as caught, explain_out_of_memory("thinking", "think less"):
            raise error
        assert caught.value is error


def test_a_cpu_that_runs_out_of_memory() -> None:
    """Torch's own error, for an array that no machine has the memory for."""
    with (
        pytest.raises(
            RunError, match=r"^a ran out of memory \(it tried to allocate \d+ bytes\): b$"
        ),
        explain_out_of_memory("a", "b"),
    ):
        torch.empty(2**58, dtype=torch.uint8)
