"""Value ranges, image grids and PNG files.

Images are uint8 in 0..255 in files, float in [-1, 1] in networks and float in [0, 1] for users.
Nothing here imports torch.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from cgan.storage.atomic import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    Pixels = NDArray[np.uint8] | Tensor


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [-1, 1]; 0 becomes exactly −1 and 255 exactly 1."""
    return pixels.float().mul_(2 / 255).sub_(1).clamp_(-1, 1)


def to_unit(signed: Tensor) -> Tensor:
    """Float in [-1, 1] to float in [0, 1]."""
    return signed.add(1).div(2).clamp(0, 1)


@overload
def to_pixels(unit: Tensor) -> Tensor: ...
@overload
def to_pixels(unit: NDArray[np.float32]) -> NDArray[np.uint8]: ...
def to_pixels(unit: Any) -> Any:
    """Float in [0, 1] to uint8 in 0..255, rounded; a tensor stays on its device."""
    rounded = (255 * unit).round().clip(0, 255)
    return rounded.astype(np.uint8) if isinstance(rounded, np.ndarray) else rounded.byte()


def make_grid(pixels: Pixels, columns: int, scale: int = 1, gap: int = 2) -> NDArray[np.uint8]:
    """Arrange images in a grid, row by row.

    Args:
        pixels: uint8, (N, C, H, W). An incomplete last row is padded with black.
        columns: images per row.
        scale: enlarge each pixel to a square of this side.
        gap: black pixels between images, before scaling.

    Returns:
        uint8, (C, height, width).
    """
    missing = -len(pixels) % columns
    framed = np.pad(to_array(pixels), ((0, missing), (0, 0), (0, gap), (0, gap)))
    grid = rearrange(framed, "(rows columns) c h w -> c (rows h) (columns w)", columns=columns)
    grid = grid[:, : grid.shape[1] - gap, : grid.shape[2] - gap]
    return grid.repeat(scale, 1).repeat(scale, 2)


def encode_png(pixels: Pixels) -> bytes:
    """Encode one uint8 image, (1, H, W) grey or (3, H, W) colour, as PNG."""
    array = np.moveaxis(to_array(pixels), 0, 2)
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=False)
    return file.getvalue()


def save_png(pixels: Pixels, path: Path) -> Path:
    """Write one uint8 image, (C, H, W), as PNG; returns the path."""
    write_atomically(path, encode_png(pixels))
    return path


def to_array(pixels: Pixels) -> NDArray[np.uint8]:
    """A NumPy array of a tensor on any device; an array is returned unchanged."""
    return pixels if isinstance(pixels, np.ndarray) else pixels.numpy(force=True)
