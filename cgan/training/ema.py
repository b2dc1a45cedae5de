"""Exponential moving average (EMA) of the generator: the network that is saved and sampled."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

RAMPUP = 0.05
"""The half-life is at most this fraction of the images seen so far, so that the random initial
weights fade quickly (``ema_rampup`` in the code of Karras et al. 2020, ADA). It is so after a warm
start, too: the loaded average draws the old classes."""


Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(network: Network) -> Network:
    """A copy in evaluation mode that requires no gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def ema_decay(batch_images: int, half_life_images: float, images_seen: int) -> float:
    """Weight of the old average after one batch, in [0, 1): ½^(batch / half-life)."""
    half_life = min(half_life_images, RAMPUP * images_seen)
    return 0.5 ** (batch_images / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float | Tensor) -> None:
    """ema ← decay · ema + (1 − decay) · network; ``decay`` may be a tensor on the device.

    Floating-point buffers (running statistics of batch norm) are averaged like weights, so that the
    statistics belong to the averaged weights. Other buffers are copied. What both networks share
    (a generator that is steered) stays as it is.
    """
    old = [*ema.parameters(), *ema.buffers()]
    new = [*network.parameters(), *network.buffers()]
    pairs = [(o, n) for o, n in zip(old, new, strict=True) if o.is_floating_point() and o is not n]
    averaged, current = [o for o, _ in pairs], [n for _, n in pairs]
    if isinstance(decay, Tensor):
        steps = torch._foreach_sub(current, averaged)
        torch._foreach_mul_(steps, 1 - decay)
        torch._foreach_add_(averaged, steps)
    else:
        torch._foreach_lerp_(averaged, current, 1 - decay)
    for o, n in zip(old, new, strict=True):
        if not o.is_floating_point() and o is not n:
            o.copy_(n)
