"""Several processes that train one GAN: which one this is, and what they must agree on.

Started by ``torchrun`` (``torchrun --nproc-per-node 2 -m cgan train …``), over gloo on CPUs and
NCCL on CUDA. Every process draws the same global batch and takes its own part of it; gradients and
batch norm's moments are means over all parts. So the GAN that is learned does not depend on how
many processes learn it, but for rounding (and for dropout and the gradient penalty, which draw at
random for each picture).
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

from cgan.errors import ConfigError, RunError

CONNECT_SECONDS = 60.0
"""How long a process waits for the others at the start."""

WAIT_SECONDS = 1800.0
"""And later, while one of them looks at pictures or trains a judge."""


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one writes files and speaks: the first."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This process's part of a global batch: (B, …) to (B / size, …)."""
        return batch.chunk(self.size)[self.rank] if self.size > 1 else batch

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, of any shape; gradients flow back to all of them."""
        averaged: Tensor = _Mean.apply(tensor, self) if self.size > 1 else tensor
        return averaged

    def mean_(self, tensors: list[Tensor]) -> None:
        """The same in place, without gradients, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with reaching_others():
            dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def average_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """For ``register_step_pre_hook``: what an optimiser follows is the mean over processes."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.mean_([weight.grad for weight in weights if weight.grad is not None])

    def most(self, *numbers: float) -> list[float]:
        """Each number's greatest value over all processes."""
        if self.size == 1:
            return list(numbers)
        greatest = torch.tensor(numbers, dtype=torch.float64)
        with reaching_others():
            dist.all_reduce(greatest, dist.ReduceOp.MAX)
        return greatest.tolist()

    def wait(self) -> None:
        """Until all processes are here."""
        self.most(0.0)

    def share_text(self, text: str) -> str:
        """The first process's text, in all of them."""
        shared = self.share({"text": torch.tensor(list(text.encode()), dtype=torch.uint8)})
        return bytes(shared["text"].tolist()).decode()

    def share(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first process's tensors, in all of them, on the CPU."""
        if self.size == 1:
            return dict(tensors)
        content = b""
        if self.leads:
            content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
        length = int(self.most(len(content))[0])
        message = torch.frombuffer(bytearray(content or length), dtype=torch.uint8)
        with reaching_others():
            dist.broadcast(message, 0)
        return load(message.numpy().tobytes())


ALONE = World()


class _Mean(torch.autograd.Function):
    """∂(mean)/∂(part) is 1 / size, whichever process the gradient comes from."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.world = world
        averaged = tensor.contiguous().clone()
        world.mean_([averaged])
        return averaged

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        averaged = gradients[0].contiguous().clone()
        ctx.world.mean_([averaged])
        return averaged, None


def place() -> tuple[int, int]:
    """Which process this is of how many, by RANK and WORLD_SIZE: 0 of 1 where they are not set.

    Raises:
        ConfigError: they are not what torchrun sets.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    said = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if not (all(word.isdecimal() for word in said) and int(said[0]) < int(said[1])):
        raise ConfigError(
            f"RANK is {said[0]} and WORLD_SIZE is {said[1]}: a rank is a whole number from 0 and "
            "less than the world size; unset both to draw alone"
        )
    return int(said[0]), int(said[1])


def is_restart() -> bool:
    """Whether torchrun has started it again after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def local_rank() -> int | None:
    """Which of this machine's processes it is, so that each takes a GPU of its own."""
    return int(os.environ.get("LOCAL_RANK", "0")) if place()[1] > 1 else None


@contextmanager
def join() -> Iterator[World]:
    """Inside, the processes that torchrun started know each other; without torchrun, just this one.

    Raises:
        RunError: the others can't be reached.
    """
    rank, size = place()
    if size == 1:
        yield ALONE
        return
    host, port = os.environ.get("MASTER_ADDR", "localhost"), os.environ.get("MASTER_PORT", "29500")
    # torchrun keeps the meeting place itself; without it the first process does.
    kept_elsewhere = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = TCPStore(
            host,
            int(port),
            size,
            is_master=rank == 0 and not kept_elsewhere,
            timeout=timedelta(seconds=CONNECT_SECONDS),
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore(f"cgan-{attempt}", store),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=WAIT_SECONDS),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise RunError(
            f"process {rank} of {size} waited {CONNECT_SECONDS:.0f} s for the others at "
            f"{host}:{port}: start all of them, and see that this address can be reached"
        ) from error
    try:
        yield World(rank, size)
    finally:
        dist.destroy_process_group()


@contextmanager
def reaching_others() -> Iterator[None]:
    """A message that does not arrive means that another process has ended.

    Raises:
        RunError: instead of what the network said.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).rstrip(". ").rsplit("] ", 1)[-1].partition("\n")[0]
        raise RunError(
            f"another process of this run has ended or can't be reached ({reason}): the last state "
            "is kept, and the same command with --resume goes on, with any number of processes"
        ) from error
