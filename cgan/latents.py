"""z per seed: the part of a picture that is not its class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_latents(
    seeds: Sequence[int], latent_dim: int, attempts: Sequence[int] | None = None
) -> Tensor:
    """One z ~ N(0, 1) for each seed: (len(seeds), latent_dim), float32 on the CPU.

    A seed has an endless sequence of z; ``attempts`` says how many of each to pass over (none).

    Each z comes from a generator of its own, on the CPU whatever draws the picture, so it depends
    on its seed alone: not on the other seeds, their number or the device.
    """
    latents = torch.empty(len(seeds), latent_dim)
    generator = torch.Generator()
    for row, seed, passed in zip(latents, seeds, attempts or [0] * len(seeds), strict=True):
        generator.manual_seed(seed)
        for _ in range(passed + 1):
            row.normal_(generator=generator)
    return latents
