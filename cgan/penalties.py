"""Gradient penalties of a discriminator, one value per sample, to be multiplied by their γ.

They are differentiated again when the discriminator learns, so their graphs are kept.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """‖∇ₓ D(x)‖² of each picture: (B,), from logits (B,) and the images (B, C, H, W) behind them.

    ``images`` must have required grad when ``logits`` were computed, and no logit may depend on
    another's picture (no batch norm in the discriminator).
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def r1(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """½ ‖∇ₓ D(x)‖² at real pictures: Mescheder et al. 2018, equation 9 (without its γ)."""
    return 0.5 * squared_gradient(real_logits, real_images)


def r2(fake_logits: Tensor, fake_images: Tensor) -> Tensor:
    """½ ‖∇ₓ D(x)‖² at generated pictures: Mescheder et al. 2018, equation 10 (without its γ)."""
    return 0.5 * squared_gradient(fake_logits, fake_images)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor
) -> Tensor:
    """(‖∇ₓ D(x̂)‖ − 1)² at x̂ = mix·real + (1 − mix)·fake: Gulrajani et al. 2017, equation 3.

    Args:
        discriminator: images (B, C, H, W) to logits (B,); close it over the labels.
        real: real pictures, (B, C, H, W) in [-1, 1].
        fake: generated pictures, likewise.
        mix: how much of the real one, (B,), drawn evenly from [0, 1].
    """
    weight = mix.view(-1, 1, 1, 1)
    between = (weight * real + (1 - weight) * fake).detach().requires_grad_()
    norm = squared_gradient(discriminator(between), between).clamp_min(1e-12).sqrt()
    return (norm - 1).square()
