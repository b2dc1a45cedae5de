"""Pictures for people: uint8 in 0..255, grids, PNG. Arrays of NumPy or tensors, without torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from cgan.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    Pixels = NDArray[np.uint8] | Tensor


@overload
def to_pixels(unit: Tensor) -> Tensor: ...
@overload
def to_pixels(unit: NDArray[np.float32]) -> NDArray[np.uint8]: ...
def to_pixels(unit: Any) -> Any:
    """Float in [0, 1] to uint8 in 0..255, rounded to the nearest; a tensor stays where it is."""
    rounded = (255 * unit).round().clip(0, 255)
    return rounded.astype(np.uint8) if isinstance(rounded, np.ndarray) else rounded.byte()


def make_grid(pixels: Pixels, columns: int, scale: int = 1, gap: int = 2) -> NDArray[np.uint8]:
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
    framed = np.pad(to_array(pixels), ((0, missing), (0, 0), (0, gap), (0, gap)))
    grid = rearrange(framed, "(rows columns) c h w -> c (rows h) (columns w)", columns=columns)
    grid = grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap]
    return grid.repeat(scale, 1).repeat(scale, 2)


def encode_png(pixels: Pixels) -> bytes:
    """One uint8 picture, (1, H, W) grey or (3, H, W) colour, as the bytes of a PNG file."""
    array = np.moveaxis(to_array(pixels), 0, 2)
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=False)
    return file.getvalue()


def save_png(pixels: Pixels, path: Path) -> Path:
    """Write one uint8 picture, (C, H, W), as PNG; returns the path."""
    write_atomically(path, encode_png(pixels))
    return path


def to_array(pixels: Pixels) -> NDArray[np.uint8]:
    """As NumPy has it, whichever device it lies on."""
    return pixels if isinstance(pixels, np.ndarray) else pixels.numpy(force=True)
