"""Value ranges, image grids, PNG files and animations.

Images are uint8 in 0..255 in files, float in [-1, 1] in networks and float in [0, 1] for users.
Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from cgan.errors import ConfigError, FileError, one_line
from cgan.storage.atomic import write_atomically
from cgan.storage.paths import StrPath

if TYPE_CHECKING:
    from torch import Tensor

    Pixels = NDArray[np.uint8] | Tensor
FRAMES_PER_SECOND = 20
SUFFIXES = (".gif", ".webp", ".png", ".mp4", "")
"""The formats; without a suffix, the frames go into a folder."""


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


def save_png(pixels: Pixels, path: StrPath) -> Path:
    """Write one uint8 image, (C, H, W), as PNG; returns the path."""
    path = Path(path)
    write_atomically(path, encode_png(pixels))
    return path


def to_array(pixels: Pixels) -> NDArray[np.uint8]:
    """A NumPy array of a tensor on any device; an array is returned unchanged."""
    return pixels if isinstance(pixels, np.ndarray) else pixels.numpy(force=True)


def check_format(path: Path) -> None:
    """Check that ``save_animation`` can write a file of this name.

    Raises:
        ConfigError: its format is unknown, or needs a package that is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"an animation is a .gif, .webp or .mp4 file, a .png strip or a folder, not {path}"
        )
    if path.suffix == ".mp4":
        try:
            importlib.import_module("av")
        except ImportError as error:
            raise ConfigError(f"{path} needs PyAV: pip install av, or write a .webp") from error


def save_animation(frames: Pixels, path: StrPath, scale: int = 1) -> Path:
    """Write images as an endless animation, a strip or a folder, as the suffix says.

    Args:
        frames: uint8, (N, C, H, W).
        path: with one of ``SUFFIXES``.
        scale: enlarge each pixel to a square of this side.

    Returns:
        the path.

    Raises:
        ConfigError: the format is unknown, or needs a package that is not installed.
        FileError: it cannot be written, or a folder holds frames already.
    """
    path = Path(path)
    check_format(path)
    frames = to_array(frames)
    if path.suffix == ".png":
        return save_png(make_grid(frames, len(frames), scale), path)
    if path.suffix == "":
        if next(path.glob("frame-*.png"), None):
            raise FileError(f"{path} holds frames already: choose another folder")
        for index, frame in enumerate(frames):
            save_png(make_grid(frame[None], 1, scale), path / f"frame-{index:05d}.png")
        return path
    encode = _encode_mp4 if path.suffix == ".mp4" else _encode_with_pillow
    try:
        content = encode(frames.repeat(scale, axis=2).repeat(scale, axis=3), path.suffix)
    except Exception as error:  # the encoders and NumPy raise exceptions of many types
        raise FileError(
            f"{path} cannot be written as {path.suffix[1:]} ({one_line(error)}): use fewer frames, "
            "a lower --scale or another format"
        ) from error
    write_atomically(path, content)
    return path


def _encode_with_pillow(frames: NDArray[np.uint8], suffix: str) -> bytes:
    """GIF or lossless WebP."""
    channels = frames.shape[1]
    images = [
        Image.fromarray(frame[0] if channels == 1 else np.moveaxis(frame, 0, 2)) for frame in frames
    ]
    file = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    images[0].save(
        file, format=suffix[1:].upper(), save_all=True, append_images=images[1:], loop=0,
        duration=1000 // FRAMES_PER_SECOND, **options,
    )  # fmt: skip
    return file.getvalue()


def _encode_mp4(frames: NDArray[np.uint8], suffix: str) -> bytes:
    """H.264; its sides must be even, so an odd one gets a black line."""
    av = importlib.import_module("av")
    _, channels, height, width = frames.shape
    padded = np.pad(frames, ((0, 0), (0, 0), (0, height % 2), (0, width % 2)))
    colour = np.moveaxis(padded.repeat(4 - channels if channels == 1 else 1, axis=1), 1, 3)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = colour.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in colour:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return file.getvalue()
