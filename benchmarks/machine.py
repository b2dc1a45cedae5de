"""The machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Describe the machine: cores, GPU or CPU, and versions."""
    import torch

    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else f"no GPU, {cpu}"
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {place}, Python {platform.python_version()}, torch {torch.__version__}"
