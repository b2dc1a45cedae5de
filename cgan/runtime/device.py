"""Device selection, device memory, and torch's global backend settings."""

from __future__ import annotations

import os

import torch

from cgan.errors import DeviceError
from cgan.runtime.cpu import count_cores, free_memory


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


def free_device_memory(device: torch.device) -> int:
    """Available memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def configure_backends(device: torch.device) -> None:
    """Use no more threads than cores; on CUDA use TF32 and cuDNN's benchmark mode."""
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > count_cores():
        torch.set_num_threads(count_cores())
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # convolutions use TF32 by default
        torch.backends.cudnn.benchmark = True
