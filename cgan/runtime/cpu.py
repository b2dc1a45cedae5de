"""Cores and memory that this process may use, within the limits of its control groups.

``open_session`` opens an ONNX network on these cores.

Also how the threads of OpenMP wait for each other, which must be set before torch is imported. By
default they keep their cores for milliseconds while they wait (GNU's libgomp, in the wheels for
Linux), or for 200 ms (LLVM's libomp and Intel's libiomp5, in those for macOS and Windows). Where
another program delays one thread, all others then waste their time, and take it from the program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from math import ceil, inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

USERS_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SHORT_WAITS = {
    "GOMP_SPINCOUNT": "10000",  # turns of a loop
    "KMP_BLOCKTIME": "1",  # milliseconds
}
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
UNLIMITED = 1 << 62
"""Memory limits from here on mean that there is none: version 1 writes about 2^63."""
MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),  # version 2
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
)
"""Limit, usage, and the entry of memory.stat that counts cached files, which can be dropped."""


def shorten_waits(environ: MutableMapping[str, str]) -> None:
    """Let waiting threads give up their cores soon; what the user has set stays.

    It does nothing if torch is imported already.
    """
    if "torch" not in sys.modules and not any(name in environ for name in USERS_CHOICES):
        environ.update(SHORT_WAITS)


class Memory(NamedTuple):
    """Bytes that could be used if nothing else ran, and bytes that can be used now."""

    total: int
    free: int


def count_cores() -> int:
    """Usable cores: the affinity mask, capped by the control group's CPU quota.

    A container's quota does not change the number of visible cores, and threads beyond the
    quota only wait for each other.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota()
    return max(min(cores or 1, ceil(quota) if isfinite(quota) else cores or 1), 1)


def cpu_quota(root: Path = CGROUPS, process: Path = OWN_CGROUPS) -> float:
    """CPU quota of this process's control groups, in cores; infinity if unlimited."""
    return min(map(_quota_of, group_folders("cpu", root, process)))


def free_memory() -> int | None:
    """Memory in bytes that can be used now; None if unknown."""
    memory = machine_memory()
    return None if memory is None else memory.free


def machine_memory(root: Path = CGROUPS, process: Path = OWN_CGROUPS) -> Memory | None:
    """Memory of this machine, capped by the limits of the control groups; None if unknown."""
    known = [_memory_of(folder) for folder in group_folders("memory", root, process)]
    try:
        import psutil  # takes 40 ms, so not at the top

        machine = psutil.virtual_memory()
        known.append(Memory(int(machine.total), int(machine.available)))
    except Exception:  # without /proc, psutil raises exceptions of several types
        pass
    limits = [memory for memory in known if memory is not None]
    return Memory(*map(min, zip(*limits, strict=True))) if limits else None


def group_folders(controller: str, root: Path, process: Path) -> list[Path]:
    """Folders of this process's control groups: a group's limit also holds for groups inside it.

    Args:
        controller: ``cpu`` or ``memory``; version 1 has a hierarchy for each controller.
        root: the mounted control groups.
        process: the file that names the groups of this process.
    """
    folders = [root]
    with suppress(OSError, ValueError):
        for line in process.read_text().splitlines():
            _, controllers, inside = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            folder = root / controllers / inside.lstrip("/")
            while folder.is_relative_to(root):
                folders.append(folder)
                folder = folder.parent
    return folders


def _quota_of(folder: Path) -> float:
    with suppress(OSError, ValueError):  # version 2
        most, period = (folder / "cpu.max").read_text().split()
        return inf if most == "max" else int(most) / int(period)
    with suppress(OSError, ValueError):  # version 1
        most_us = int((folder / "cpu.cfs_quota_us").read_text())
        return most_us / int((folder / "cpu.cfs_period_us").read_text()) if most_us > 0 else inf
    return inf


def _memory_of(folder: Path) -> Memory | None:
    for limit, usage, cached in MEMORY_FILES:
        with suppress(OSError, ValueError):  # another version, or the limit is "max"
            total = int((folder / limit).read_text())
            if total >= UNLIMITED:
                return None
            free = total - int((folder / usage).read_text())
            with suppress(OSError, ValueError, KeyError):
                lines = (folder / "memory.stat").read_text().splitlines()
                free += int(dict(line.split() for line in lines)[cached])
            return Memory(total, min(max(free, 0), total))
    return None


def open_session(content: bytes, spinning: bool = True) -> InferenceSession:
    """Open the bytes of an ONNX file, with one thread per usable core.

    The network cannot name other files that hold its weights: onnxruntime would look for them in
    the current folder.

    Args:
        content: the bytes.
        spinning: whether waiting threads keep their cores. That is faster, unless torch runs
            between two calls.

    Raises:
        ImportError: onnxruntime is not installed.
        Exception: any exception of onnxruntime for an invalid file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, so do not print them
    options.intra_op_num_threads = count_cores()
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
