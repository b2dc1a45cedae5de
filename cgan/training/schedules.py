"""Quantities that change over the budget, along a cosine: the learning rate and γ."""

from __future__ import annotations

import math

from cgan.config import Config


def cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` at progress 0 to ``end`` at progress 1: Loshchilov and Hutter 2017, SGDR,
    equation 5, without restarts."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(config: Config, progress: float) -> float:
    """The learning rate of both optimisers, from ``lr`` to ``lr · lr_final_fraction``."""
    return config.lr * cosine(1.0, config.lr_final_fraction, progress)


def penalty_scale(config: Config, progress: float) -> float:
    """Factor of all γ, from 1 to ``penalty.final_fraction``: Huang et al. 2024 (R3GAN)."""
    return cosine(1.0, config.penalty.final_fraction, progress)
