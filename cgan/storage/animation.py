"""Write a sequence of images as an animation, a strip, or a folder."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgan.errors import ConfigError, FileError, one_line
from cgan.storage.atomic import write_atomically
from cgan.storage.images import make_grid, save_png, to_array

if TYPE_CHECKING:
    from cgan.storage.images import Pixels

FRAMES_PER_SECOND = 20
SUFFIXES = (".gif", ".webp", ".png", ".mp4", "")
"""The formats; without a suffix, the frames go into a folder."""


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


def save_animation(frames: Pixels, path: Path, scale: int = 1) -> Path:
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
