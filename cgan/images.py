"""Pictures as tensors: uint8 in files, [-1, 1] in networks, [0, 1] for measuring."""

from __future__ import annotations

import torch
from torch import Tensor


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [-1, 1]; 0 becomes −1 and 255 becomes 1, exactly."""
    return pixels.to(torch.float32).mul_(2 / 255).sub_(1).clamp_(-1, 1)


def to_unit(signed: Tensor) -> Tensor:
    """Float in [-1, 1] to float in [0, 1]."""
    return signed.add(1).div(2).clamp(0, 1)
