"""Quantities that change over the budget, along a cosine.

R3GAN (Huang et al. 2024, appendix D) schedules all of these.
"""

from __future__ import annotations

import math

from cgan.config import Config

BETA2_STAGES = 16
"""β₂ changes in this many stages, because a captured CUDA graph holds it as a constant."""


def cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` at progress 0 to ``end`` at progress 1: Loshchilov and Hutter 2017, SGDR,
    equation 5, without restarts."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(config: Config, progress: float) -> float:
    """The learning rate of both optimisers, from ``lr`` to ``lr · lr_final_fraction``."""
    return config.lr * cosine(1.0, config.lr_final_fraction, progress)


def penalty_scale(config: Config, progress: float) -> float:
    """Factor of all γ, from 1 to ``penalty.final_fraction``."""
    return cosine(1.0, config.penalty.final_fraction, progress)


def beta2(config: Config, progress: float) -> float:
    """Adam's β₂, from ``betas[1]`` to ``beta2_final``, constant within each stage."""
    stage = min(int(progress * BETA2_STAGES), BETA2_STAGES - 1)
    return between(config.betas[1], config.beta2_final, stage / (BETA2_STAGES - 1))


def augment_probability(config: Config, progress: float) -> float:
    """Probability of each augmentation."""
    return between(config.augment_probability, config.augment_probability_final, progress)


def ema_half_life(config: Config, progress: float) -> float:
    """Half-life of the generator's moving average, in images."""
    return between(config.ema_half_life_images, config.ema_half_life_final_images, progress)


def between(start: float, end: float | None, progress: float) -> float:
    """The cosine from start to end; the start if there is no end."""
    return start if end is None else cosine(start, end, progress)
