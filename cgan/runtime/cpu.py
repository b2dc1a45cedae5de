"""Cores that this process may use, within its control group's quota, and available memory."""

from __future__ import annotations

import os
from contextlib import suppress
from math import ceil, inf, isfinite
from pathlib import Path


def count_cores() -> int:
    """Usable cores: the affinity mask, capped by the control group's CPU quota.

    A container's quota does not change the number of visible cores, and threads beyond the
    quota only wait for each other.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota()
    return max(min(cores or 1, ceil(quota) if isfinite(quota) else cores or 1), 1)


def cpu_quota(
    root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")
) -> float:
    """CPU quota of this process's control groups, in cores; infinity if unlimited."""
    allowed = inf
    with suppress(OSError, ValueError):
        for line in process.read_text().splitlines():
            _, controllers, inside = line.split(":", 2)
            if controllers not in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
                continue
            folder = root / controllers / inside.lstrip("/")
            while folder.is_relative_to(root):  # a group's quota also limits the groups inside it
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


def free_memory() -> int:
    """Available memory in bytes; 4 GiB if it cannot be determined."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (kibibytes,) = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
        return 1024 * int(kibibytes)
    except (OSError, ValueError):
        return 4 << 30
