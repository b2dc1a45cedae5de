"""What the process that ``tests.processes`` forks from imports."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch.distributed  # noqa: F401
