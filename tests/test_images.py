"""Value ranges, grids, PNG."""

import io

import numpy as np
import torch
from PIL import Image

from cgan.images import encode_png, make_grid, to_pixels, to_signed, to_unit

ALL = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_ends_of_the_ranges_are_exact() -> None:
    signed = to_signed(torch.tensor([0, 255], dtype=torch.uint8))
    assert signed.tolist() == [-1.0, 1.0]
    assert to_unit(signed).tolist() == [0.0, 1.0]


def test_every_pixel_comes_back() -> None:
    assert torch.equal(to_pixels(to_unit(to_signed(ALL))), ALL)


def test_pixels_are_rounded_not_cut() -> None:
    assert to_pixels(torch.tensor([0.6 / 255, 1.4 / 255, 2.0, -1.0])).tolist() == [1, 1, 255, 0]


def test_grid_by_hand() -> None:
    pixels = torch.arange(1, 4, dtype=torch.uint8).view(3, 1, 1, 1)
    assert make_grid(pixels, 2, gap=1).tolist() == [[[1, 0, 2], [0, 0, 0], [3, 0, 0]]]
    assert make_grid(pixels[:1], 1, scale=2, gap=1).tolist() == [[[1, 1], [1, 1]]]


def test_png_keeps_grey_and_colour() -> None:
    for channels in (1, 3):
        pixels = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
        image = Image.open(io.BytesIO(encode_png(pixels)))
        assert image.mode == ("L" if channels == 1 else "RGB")
        back = torch.from_numpy(np.array(image)).view(5, 7, channels).permute(2, 0, 1)
        assert torch.equal(back, pixels)
