"""Device selection, device memory, out-of-memory errors, and torch's global backend settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cgan.errors import DeviceError, RunError
from cgan.runtime.cpu import Memory, count_cores, machine_memory
from cgan.runtime.rank import local_world_size


def find_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """Resolve ``auto`` (CUDA if available), ``cpu``, ``cuda`` or ``cuda:1``.

    Args:
        name: the requested device.
        local_rank: set for one of several processes; ``auto`` and ``cuda`` then mean the GPU
            with this index.

    Raises:
        DeviceError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceError("there is no CUDA device here: use --device cpu")
        if device.index is not None and device.index >= count:
            raise DeviceError(
                f"there is no {name}: this machine has {count}, from cuda:0 to cuda:{count - 1}"
            )
    return device


def device_memory(device: torch.device) -> Memory | None:
    """Memory of a device; None if unknown.

    Without memory of its own, it is this process's share of the machine's: the processes that
    torchrun starts on one machine share it.
    """
    if device.type in ("cuda", "xpu"):
        free, total = torch.get_device_module(device).mem_get_info(device)
        return Memory(int(total), int(free))
    memory, processes = machine_memory(), local_world_size()
    return memory and Memory(memory.total // processes, memory.free // processes)


@contextmanager
def explain_out_of_memory(work: str, advice: str) -> Iterator[None]:
    """Turn an out-of-memory error into a ``RunError``.

    Args:
        work: what needs the memory, for example ``"sampling"``.
        advice: what to do.

    Raises:
        RunError: the work ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        detail = f" (it asked for {asked[1]} more)" if asked else ""
        raise RunError(f"{work} ran out of memory{detail}: {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device: only CUDA has an exception type for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("out of memory", "DefaultCPUAllocator"))


def configure_backends(device: torch.device) -> None:
    """Use no more threads than cores; on CUDA use TF32 and cuDNN's benchmark mode."""
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > count_cores():
        torch.set_num_threads(count_cores())
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # convolutions use TF32 by default
        torch.backends.cudnn.benchmark = True
