"""Value ranges, grids and PNG, with arrays and tensors."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from cgan.storage.images import encode_png, make_grid, to_pixels, to_signed, to_unit

ALL = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
KINDS = [torch.tensor, np.array]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_rounded_not_cut(kind: type) -> None:
    unit = kind([0.6 / 255, 1.4 / 255, 2.0, -1.0])
    pixels = to_pixels(unit)
    assert pixels.tolist() == [1, 1, 255, 0]
    assert type(pixels) is type(unit)
    assert "uint8" in str(pixels.dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_grid_by_hand(kind: type) -> None:
    pixels = kind([1, 2, 3]).reshape(3, 1, 1, 1)
    assert make_grid(pixels, 2, gap=1).tolist() == [[[1, 0, 2], [0, 0, 0], [3, 0, 0]]]
    assert make_grid(pixels[:1], 1, scale=2, gap=1).tolist() == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_grey_and_colour(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    content = encode_png(pixels)
    assert encode_png(torch.from_numpy(pixels)) == content
    image = Image.open(io.BytesIO(content))
    assert image.mode == ("L" if channels == 1 else "RGB")
    back = np.array(image).reshape(5, 7, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(back, pixels)


def test_ends_of_the_ranges_are_exact() -> None:
    signed = to_signed(torch.tensor([0, 255], dtype=torch.uint8))
    assert signed.tolist() == [-1.0, 1.0]
    assert to_unit(signed).tolist() == [0.0, 1.0]


def test_every_pixel_comes_back() -> None:
    assert torch.equal(to_pixels(to_unit(to_signed(ALL))), ALL)
