"""What the process that ``tests.processes`` forks from imports."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch.distributed  # noqa: F401

import cgan.cli.tables
import cgan.evaluation.api
import cgan.sampling.write_dataset
import cgan.training.steer  # noqa: F401
