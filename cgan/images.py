"""Pictures as numbers: uint8 in files, [-1, 1] in networks, [0, 1] for people; grids and PNG."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from cgan.files import write_atomically


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [-1, 1]; 0 becomes −1 and 255 becomes 1, exactly."""
    return pixels.to(torch.float32).mul_(2 / 255).sub_(1).clamp_(-1, 1)


def to_unit(signed: Tensor) -> Tensor:
    """Float in [-1, 1] to float in [0, 1]."""
    return signed.add(1).div(2).clamp(0, 1)


def to_pixels(unit: Tensor) -> Tensor:
    """Float in [0, 1] to uint8 in 0..255, rounded to the nearest."""
    return unit.mul(255).round().clamp(0, 255).to(torch.uint8)


def make_grid(pixels: Tensor, columns: int, scale: int = 1, gap: int = 2) -> Tensor:
    """Pictures side by side, filled row by row.

    Args:
        pixels: uint8, (N, C, H, W); N a multiple of ``columns`` or shorter by a part of a row.
        columns: pictures a row.
        scale: each pixel becomes a square of this side.
        gap: pixels of black between pictures, before scaling.

    Returns:
        uint8, (C, height, width).
    """
    missing = -len(pixels) % columns
    padded = torch.cat([pixels, pixels.new_zeros((missing, *pixels.shape[1:]))])
    framed = torch.nn.functional.pad(padded, (0, gap, 0, gap))
    grid = rearrange(framed, "(rows columns) c h w -> c (rows h) (columns w)", columns=columns)
    grid = grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap]
    return grid.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def encode_png(pixels: Tensor) -> bytes:
    """One uint8 picture, (1, H, W) grey or (3, H, W) colour, as the bytes of a PNG file."""
    array = rearrange(pixels.cpu(), "c h w -> h w c").numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=False)
    return file.getvalue()


def save_png(pixels: Tensor, path: Path) -> Path:
    """Write one uint8 picture, (C, H, W), as PNG; returns the path."""
    write_atomically(path, encode_png(pixels))
    return path
