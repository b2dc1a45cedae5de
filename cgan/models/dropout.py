"""Dropout whose mask depends on an image's place in the global batch, not on the process."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgan.runtime.streams import random_generator


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) of (B, F) or (B, C, H, W).

    Each process draws the masks of the global batch and applies those of its shard. So two
    processes never share a mask, and one GAN gets the same masks at any number of processes.

    Args:
        p: the probability of a zero, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.rank, self.world_size = p, 0, 1

    def forward(self, x: Tensor) -> Tensor:
        """Set values to zero with probability p and scale the others by 1 / (1 − p)."""
        if not self.training or self.p == 0:
            return x
        shape = (self.world_size * len(x), *x.shape[2:], x.shape[1])  # channels-last, like x
        u = torch.rand(shape, device=x.device, generator=random_generator())
        kept = u.chunk(self.world_size)[self.rank] >= self.p
        return x * kept.movedim(-1, 1).to(x.dtype).div_(1 - self.p)


def shard_dropout(network: nn.Module, rank: int, world_size: int) -> None:
    """Make dropout use the masks of this process's shard.

    Args:
        network: its ``Dropout`` modules are changed in place.
        rank: the number of this process.
        world_size: number of processes.
    """
    for module in network.modules():
        if isinstance(module, Dropout):
            module.rank, module.world_size = rank, world_size
