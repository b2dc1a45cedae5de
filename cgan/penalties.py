"""Gradient penalties for the discriminator, one value per sample, to be multiplied by γ.

They are differentiated again with respect to D's weights, so they use ``create_graph=True``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """‖∇ₓ D(x)‖² per image: (B,), from logits (B,) and the images (B, C, H, W) they came from.

    ``images`` must require a gradient before ``logits`` are computed, and a logit must depend on
    its own image only (so no batch norm in the discriminator).
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def r1(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """½ ‖∇ₓ D(x)‖² at real images: Mescheder et al. 2018, equation 9 (without γ)."""
    return 0.5 * squared_gradient(real_logits, real_images)


def r2(fake_logits: Tensor, fake_images: Tensor) -> Tensor:
    """½ ‖∇ₓ D(x)‖² at generated images: Mescheder et al. 2018, equation 10 (without γ)."""
    return 0.5 * squared_gradient(fake_logits, fake_images)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, epsilon: Tensor
) -> Tensor:
    """(‖∇ₓ D(x̂)‖ − 1)² at x̂ = ε·real + (1 − ε)·fake: Gulrajani et al. 2017, equation 3.

    Args:
        discriminator: maps images (B, C, H, W) to logits (B,); bind the labels beforehand.
        real: real images, (B, C, H, W) in [-1, 1].
        fake: generated images, same shape and range.
        epsilon: weight of the real image, (B,), uniform in [0, 1].
    """
    weight = epsilon.view(-1, 1, 1, 1)
    between = (weight * real + (1 - weight) * fake).detach().requires_grad_()
    norm = squared_gradient(discriminator(between), between).clamp_min(1e-12).sqrt()
    return (norm - 1).square()
