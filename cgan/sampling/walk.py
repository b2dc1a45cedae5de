"""Walk through latent space: from one class to another, from one z to another, or both."""

from __future__ import annotations

import torch
from torch import Tensor

from cgan.attributes import sort_for_display
from cgan.errors import ConfigError, first_few
from cgan.runtime.device import torch_defaults
from cgan.sampling.latents import draw_latents
from cgan.sampling.sampler import Sampler, as_sampler
from cgan.storage.paths import StrPath

MAX_FRAMES = 10_000
"""Most images of one walk, which are all in memory."""


@torch_defaults()
def walk(
    model: StrPath | Sampler,
    start: str | int | None = None,
    end: str | int | None = None,
    *,
    frames: int = 60,
    seed: int = 0,
    end_seed: int | None = None,
) -> Tensor:
    """Images on the way from one class and seed to another.

    z moves on a great circle (``slerp``). The class moves through mixes: G gets a weighted sum of
    what it learned for both classes.

    Args:
        model: a run folder, a generator file, ``"mnist"``, or a sampler.
        start: the class of the first image; None if unconditional.
        end: the class of the last image; None keeps the class.
        frames: number of images, from 2.
        seed: the seed of the first image, which equals that of ``Sampler.sample``.
        end_seed: the seed of the last image; None keeps z.

    Returns:
        float32 in [0, 1], (frames, C, H, W), on the CPU.

    Raises:
        UnknownNameError: no such class.
        UnconditionalError: a class was requested from an unconditional GAN.
        ConfigError: frames or a seed are out of range, a conditional GAN got no class, or a value
            of an attribute belongs to several classes.
        RunError: memory ran out.
    """
    sampler = as_sampler(model)
    if not 2 <= frames <= MAX_FRAMES:
        raise ConfigError(f"a walk has from 2 to {MAX_FRAMES:,} frames, not {frames:,}")
    if start is None and sampler.conditional:
        names = first_few(sort_for_display(sampler.classes), 20)
        raise ConfigError(f"a walk begins at a class: choose from {names}")
    end, end_seed = start if end is None else end, seed if end_seed is None else end_seed
    if (start, seed) == (end, end_seed):
        raise ConfigError("a walk needs an end: another class or another seed")
    for name, number in ((start, seed), (end, end_seed)):
        sampler.request(name, 1, number)  # raises for a class or a seed that does not exist
    t = torch.linspace(0, 1, frames, dtype=torch.float32)
    first, last = torch.from_numpy(draw_latents([seed, end_seed], sampler.latent_dim))
    labels = None
    if start is not None and end is not None:
        a, b = (_one_class(sampler, name) for name in (start, end))
        labels = torch.zeros(frames, len(sampler.classes), dtype=torch.float32)
        labels[:, a] += 1 - t
        labels[:, b] += t
    return sampler.generate(slerp(first, last, t), labels)


def _one_class(sampler: Sampler, name: str | int) -> int:
    """The index of a class; a value of an attribute is none if several classes have it."""
    indices = sampler.class_indices(name)
    if len(indices) > 1:
        found = sort_for_display([sampler.classes[index] for index in indices])
        names = ", ".join(found[:5])
        raise ConfigError(f"{name!r} are several classes: choose one of {names}")
    return indices[0]


def slerp(first: Tensor, last: Tensor, t: Tensor) -> Tensor:
    """Spherical linear interpolation: Shoemake 1985; White 2016, "Sampling generative networks".

    The points between two draws of N(0, I) then have a length like theirs. Linear interpolation
    would give shorter ones, which G has rarely seen.

    Args:
        first: the vector at t = 0, (F,).
        last: the vector at t = 1, (F,).
        t: (N,), in [0, 1].

    Returns:
        (N, F); both ends are exact.
    """
    cosine = torch.dot(first, last) / (first.norm() * last.norm()).clamp_min(1e-12)
    angle = cosine.clamp(-1, 1).acos()
    if angle.sin() < 1e-4:  # parallel vectors: there is no circle, or more than one
        weights = torch.stack([1 - t, t])
    else:
        weights = torch.stack([((1 - t) * angle).sin(), (t * angle).sin()]) / angle.sin()
    points = weights[0, :, None] * first + weights[1, :, None] * last
    points[t == 0], points[t == 1] = first, last
    return points
