"""Draw the latent vector z from a seed; how many images are drawn at once.

z is a function of (seed, draw index, position) only. Philox4x32-10, a counter-based random
generator, turns a key (the seed) and a counter (block, draw index, 0, 0) into 4 random words, and
Box-Muller turns those into 4 normal values. The code uses only operators that NumPy and torch
share, so the CPU needs no torch, and a GPU draws all z in one call.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". Box and Muller 1958.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

MASK = 0xFFFF_FFFF
MULTIPLIERS = (0xD251_1F53, 0xCD9E_8D57)
KEY_INCREMENTS = (0x9E37_79B9, 0xBB67_AE85)
ROUNDS = 10

Words = Sequence[Any]
"""32-bit words, each stored in an int64 array (NumPy or torch) or in an int."""


def philox(counter: Words, key: Words) -> tuple[Any, Any, Any, Any]:
    """Four random words from a counter of four words and a key of two; shapes broadcast.

    The masks are needed because 64-bit products wrap around and ``>>`` extends the sign.
    """
    a, b, c, d = counter
    low, high = key
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (
            ((second >> 32) & MASK) ^ b ^ low,
            second & MASK,
            ((first >> 32) & MASK) ^ d ^ high,
            first & MASK,
        )
        low, high = (low + KEY_INCREMENTS[0]) & MASK, (high + KEY_INCREMENTS[1]) & MASK
    return a, b, c, d


def draw_normals(xp: Any, seeds: Any, draw_index: Any, latent_dim: int) -> Any:
    """z ~ N(0, 1) as float32 (N, latent_dim), on the device of the seeds.

    Args:
        xp: the array library, ``numpy`` or ``torch``.
        seeds: int64 (N,), from 0 to 2^63 − 1.
        draw_index: int64 (N,), from 0: the position in the seed's sequence of z.
        latent_dim: a shorter z is a prefix of a longer one.
    """
    blocks = xp.arange(-(-latent_dim // 4), device=seeds.device)
    seeds = seeds[:, None]
    words = philox((blocks, draw_index[:, None], 0, 0), (seeds & MASK, (seeds >> 32) & MASK))
    here = seeds.device  # torch's default device may be another one
    a, b, c, d = (xp.asarray(word, dtype=xp.float64, device=here) * 2.0**-32 for word in words)
    normals = []
    for length, angle in ((a, b), (c, d)):
        radius = xp.sqrt(-2 * xp.log(length + 2.0**-32))  # in (0, 1], since log(0) is infinite
        normals += [radius * xp.cos(2 * pi * angle), radius * xp.sin(2 * pi * angle)]
    drawn = xp.stack(normals, -1).reshape(len(seeds), 4 * len(blocks))
    return xp.asarray(drawn[:, :latent_dim], dtype=xp.float32, device=here)


def draw_latents(
    seeds: Sequence[int], latent_dim: int, draw_index: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """One z ~ N(0, 1) per seed: (len(seeds), latent_dim), float32.

    Each seed has a long sequence of z; ``draw_index`` chooses one of them (default: the first).
    """
    index = np.zeros(len(seeds), np.int64) if draw_index is None else np.array(draw_index, np.int64)
    z: NDArray[np.float32] = draw_normals(np, np.array(seeds, np.int64), index, latent_dim)
    return z


CPU_BATCH, CPU_PIXELS = 64, 64 * 64 * 64
GPU_BATCH, GPU_PIXELS = 4_096, 4_096 * 32 * 32


def batch_size(image_shape: tuple[int, int, int], device_type: str) -> int:
    """Images per batch: a power of two that depends on the image size and the device type only.

    Rounding depends on the batch size, so the same image needs the same batch size on every
    machine, whatever memory is free. The batch is 64 on a CPU and 4,096 on a GPU, and smaller for
    images of more than 64×64 (CPU) or 32×32 pixels (GPU), so that a batch has a limited number of
    pixels. 512×512 gives 1 and 16.

    The limits follow from a DCGAN of the default width. Its largest tensors have 32 channels at
    half resolution, that is 32 / 4 = 8 numbers per pixel of the image. Three of them exist at once
    (before batch norm, after it, and after ReLU): 24 numbers or 96 bytes per pixel. With the image
    itself, a batch takes about 27 MiB on a CPU and 430 MiB on a GPU.

    Args:
        image_shape: (C, H, W).
        device_type: ``"cpu"``, or the type of a GPU.
    """
    _, height, width = image_shape
    most, pixels = (CPU_BATCH, CPU_PIXELS) if device_type == "cpu" else (GPU_BATCH, GPU_PIXELS)
    fitting = max(pixels // (height * width), 1)
    return min(most, 1 << (fitting.bit_length() - 1))
