"""Value ranges."""

import torch

from cgan.images import to_signed, to_unit
from cgan.png import to_pixels

ALL = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_ends_of_the_ranges_are_exact() -> None:
    signed = to_signed(torch.tensor([0, 255], dtype=torch.uint8))
    assert signed.tolist() == [-1.0, 1.0]
    assert to_unit(signed).tolist() == [0.0, 1.0]


def test_every_pixel_comes_back() -> None:
    assert torch.equal(to_pixels(to_unit(to_signed(ALL))), ALL)
