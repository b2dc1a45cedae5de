"""The learning-rate schedule of both optimisers."""

from __future__ import annotations

import math

from cgan.config import Config


def learning_rate(config: Config, progress: float) -> float:
    """Cosine learning-rate schedule from ``lr`` to ``lr · lr_final_fraction`` over the budget."""
    final = config.lr_final_fraction
    return config.lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))
