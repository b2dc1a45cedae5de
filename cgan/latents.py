"""z per seed: the part of a picture that is not its class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_latents(seeds: Sequence[int], latent_dim: int) -> Tensor:
    """One z ~ N(0, 1) for each seed: (len(seeds), latent_dim), float32 on the CPU.

    Each z comes from a generator of its own, on the CPU whatever draws the picture, so it depends
    on its seed alone: not on the other seeds, their number or the device.
    """
    latents = torch.empty(len(seeds), latent_dim)
    generator = torch.Generator()
    for row, seed in zip(latents, seeds, strict=True):
        row.normal_(generator=generator.manual_seed(seed))
    return latents
