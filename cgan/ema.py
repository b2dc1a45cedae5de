"""A moving average of a generator: what is kept and sampled."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

WARM_UP = 0.05
"""The half-life never exceeds this share of the images seen so far, so that the random weights of
the start are soon forgotten (Karras et al. 2020, StyleGAN2's ``ema_rampup``)."""


def copy_frozen(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode that learns nothing by itself."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def decay_after(batch_images: int, half_life_images: float, images_seen: int) -> float:
    """What an old weight still counts, in [0, 1), after a batch: ½^(batch / half-life)."""
    half_life = min(half_life_images, WARM_UP * images_seen)
    return 0.5 ** (batch_images / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float | Tensor) -> None:
    """average ← decay · average + (1 − decay) · network; ``decay`` may be a tensor on the device.

    Buffers of floating point (batch norm's running statistics) are averaged like the weights, so
    that the statistics belong to the averaged weights; counters are copied.
    """
    old = [*average.parameters(), *average.buffers()]
    new = [*network.parameters(), *network.buffers()]
    blended = [(o, n) for o, n in zip(old, new, strict=True) if o.is_floating_point()]
    kept, fresh = [o for o, _ in blended], [n for _, n in blended]
    if isinstance(decay, Tensor):
        steps = torch._foreach_sub(fresh, kept)
        torch._foreach_mul_(steps, 1 - decay)
        torch._foreach_add_(kept, steps)
    else:
        torch._foreach_lerp_(kept, fresh, 1 - decay)
    for o, n in zip(old, new, strict=True):
        if not o.is_floating_point():
            o.copy_(n)
