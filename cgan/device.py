"""Which device, and how its arithmetic is set."""

from __future__ import annotations

import os
from contextlib import suppress
from math import ceil, inf, isfinite
from pathlib import Path

import torch

from cgan.errors import DeviceError


def find_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1`` as a device.

    Args:
        name: what was asked for.
        local_rank: of one of several processes: ``auto`` and ``cuda`` are the GPU of that number.

    Raises:
        DeviceError: it is not there.
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


def count_cores() -> int:
    """Cores that this process may use: of its affinity mask and its control group's quota.

    A container's quota does not show in the number of cores, and more threads than it allows wait
    for each other.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota()
    return max(min(cores or 1, ceil(quota) if isfinite(quota) else cores or 1), 1)


def _quota(root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time that the control groups of this process allow; infinity if any."""
    allowed = inf
    with suppress(OSError, ValueError):
        for line in process.read_text().splitlines():
            _, controllers, inside = line.split(":", 2)
            if controllers not in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
                continue
            folder = root / controllers / inside.lstrip("/")
            while folder.is_relative_to(root):  # a group's quota binds what is below it too
                allowed = min(allowed, _quota_of(folder))
                folder = folder.parent
    return min(allowed, _quota_of(root))


def _quota_of(folder: Path) -> float:
    with suppress(OSError, ValueError):  # version 2
        most, period = (folder / "cpu.max").read_text().split()
        return inf if most == "max" else int(most) / int(period)
    with suppress(OSError, ValueError):  # version 1
        most_us = int((folder / "cpu.cfs_quota_us").read_text())
        return most_us / int((folder / "cpu.cfs_period_us").read_text()) if most_us > 0 else inf
    return inf


def set_arithmetic(device: torch.device) -> None:
    """No more threads than cores; TF32 on CUDA, where it costs no control and is far faster."""
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > count_cores():
        torch.set_num_threads(count_cores())
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # convolutions use TF32 by themselves
        torch.backends.cudnn.benchmark = True
