"""Several processes that train one GAN: rank, world size, and collectives.

``torchrun`` starts the processes (``torchrun --nproc-per-node 2 -m cgan train …``). They use gloo
on CPUs and NCCL on CUDA. Each process draws the same global batch and takes its own shard of it.
Gradients and batch-norm moments are averaged over all processes. So the trained GAN does not depend
on the number of processes, except for rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore

from cgan.errors import RunError, one_line
from cgan.runtime.process import rank_and_world_size

CONNECT_SECONDS = 60.0
"""How long a process waits for the others at the start."""

WAIT_SECONDS = 1800.0
"""How long a collective waits, because another process may be evaluating or training a judge."""


@dataclass(frozen=True)
class World:
    """Rank and world size. With a single process, collectives do nothing."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs: rank 0."""
        return self.rank == 0

    def shard(self, batch: Tensor) -> Tensor:
        """This process's shard of a global batch: (B, …) to (B / size, …)."""
        return batch.chunk(self.size)[self.rank] if self.size > 1 else batch

    def all_reduce_mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, any shape, differentiable."""
        averaged: Tensor = _AllReduceMean.apply(tensor, self) if self.size > 1 else tensor
        return averaged

    def all_reduce_mean_(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their means over all processes (one all-reduce, no gradients)."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with network_errors():
            dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def average_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Average all gradients; register it with ``register_step_pre_hook``."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.all_reduce_mean_([weight.grad for weight in weights if weight.grad is not None])

    def all_reduce_max(self, *numbers: float) -> list[float]:
        """The maximum of each number over all processes."""
        if self.size == 1:
            return list(numbers)
        greatest = torch.tensor(numbers, dtype=torch.float64)
        with network_errors():
            dist.all_reduce(greatest, dist.ReduceOp.MAX)
        return greatest.tolist()

    def barrier(self) -> None:
        """Wait until all processes arrive."""
        self.all_reduce_max(0.0)

    def broadcast(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Send rank 0's tensors to all processes; they arrive on the CPU."""
        if self.size == 1:
            return dict(tensors)
        content = b""
        if self.is_main:
            content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
        length = int(self.all_reduce_max(len(content))[0])
        message = torch.frombuffer(bytearray(content or length), dtype=torch.uint8)
        with network_errors():
            dist.broadcast(message, 0)
        return load(message.numpy().tobytes())

    def broadcast_text(self, text: str) -> str:
        """Send rank 0's text to all processes."""
        sent = self.broadcast({"text": torch.tensor(list(text.encode()), dtype=torch.uint8)})
        return bytes(sent["text"].tolist()).decode()


SINGLE_PROCESS = World()


class _AllReduceMean(torch.autograd.Function):
    """A differentiable mean over processes. Its backward averages the incoming gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.world = world
        averaged = tensor.contiguous().clone()
        world.all_reduce_mean_([averaged])
        return averaged

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        averaged = gradients[0].contiguous().clone()
        ctx.world.all_reduce_mean_([averaged])
        return averaged, None


@contextmanager
def process_group() -> Iterator[World]:
    """Connect the processes that torchrun started; without torchrun, yield a single process.

    Raises:
        RunError: the other processes cannot be reached.
    """
    rank, size = rank_and_world_size()
    if size == 1:
        yield SINGLE_PROCESS
        return
    host, port = os.environ.get("MASTER_ADDR", "localhost"), os.environ.get("MASTER_PORT", "29500")
    if not port.isdecimal():
        raise RunError(f"MASTER_PORT is {port}: it must be a whole number")
    # torchrun runs the store itself; without torchrun rank 0 does.
    store_runs_elsewhere = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = TCPStore(
            host,
            int(port),
            size,
            is_master=rank == 0 and not store_runs_elsewhere,
            timeout=timedelta(seconds=CONNECT_SECONDS),
        )
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore(f"cgan-{restart}", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=CONNECT_SECONDS),
        )
        _set_timeout(timedelta(seconds=WAIT_SECONDS))
    except (RuntimeError, ValueError, OSError) as error:
        raise RunError(
            f"process {rank} of {size} waited {CONNECT_SECONDS:.0f} s for the others at "
            f"{host}:{port}: start all of them, and check that this address is reachable"
        ) from error
    try:
        yield World(rank, size)
    finally:
        dist.destroy_process_group()


def _set_timeout(timeout: timedelta) -> None:
    """How long collectives wait. A process that dies while connecting is noticed earlier."""
    set_timeout = getattr(dist, "set_timeout", None)  # it has no underscore since torch 2.15
    (set_timeout or dist.distributed_c10d._set_pg_timeout)(timeout)


@contextmanager
def network_errors() -> Iterator[None]:
    """Turn the error of a failed collective into a ``RunError``.

    Raises:
        RunError: another process has ended or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        reason = one_line(error, 1_000).rsplit("] ", 1)[-1]
        raise RunError(
            f"another process of this run has ended or cannot be reached ({reason}): the last "
            "state is kept; to continue, add --resume (any number of processes works)"
        ) from error
