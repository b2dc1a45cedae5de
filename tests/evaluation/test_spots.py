"""Isolated spots at fixed places: found where they are, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import cgan
from cgan.evaluation.features import spot_shares, worst_spot

SMOOTH = torch.linspace(60, 180, 24).expand(24, 24).to(torch.uint8)


def images(count: int, seed: int = 0) -> Tensor:
    """Smooth grounds, each with one spot of random depth at a random place."""
    random = torch.Generator().manual_seed(seed)
    found = SMOOTH.expand(count, 3, 24, 24).clone()
    for image in found:
        row, column = torch.randint(2, 22, (2,), generator=random).tolist()
        image[:, row, column] = int(torch.randint(0, 256, (), generator=random))
    return found


def test_one_dark_and_one_light_spot_by_hand() -> None:
    pictures = SMOOTH.expand(4, 1, 24, 24).clone()
    pictures[0, 0, 10, 5] = 0
    pictures[1, 0, 3:5, 17:19] = 255  # four pixels, one spot
    pictures[2, 0, :, 12] = 0  # a line is no spot
    pictures[3, 0, 20, 20] -= 20  # too shallow
    shares = spot_shares(pictures)
    assert shares.shape == (2, 24, 24)
    assert shares[0].nonzero().tolist() == [[10, 5]]
    assert shares[0, 10, 5] == 0.25
    assert shares[1, 3:5, 17:19].tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert shares[1].count_nonzero() == 4


def test_dots_at_one_place_are_reported() -> None:
    drawn = images(400, seed=1)
    drawn[::20, :, 9, 14] = 0
    spot = worst_spot(drawn, spot_shares(images(2_000)))
    assert (spot.kind, spot.row, spot.column) == ("dark", 9, 14)
    assert spot.share == pytest.approx(0.05, abs=0.01)
    assert spot.is_fixed
    assert "5." in spot.sentence
    assert "row 10, column 15" in spot.sentence


@pytest.mark.parametrize("seed", range(5))
def test_spots_at_random_places_are_not(seed: int) -> None:
    assert not worst_spot(images(400, seed + 1), spot_shares(images(2_000))).is_fixed


def test_real_digits_and_large_images_are_silent() -> None:
    train, test = (cgan.load_pictures("digits", split) for split in ("train", "test"))
    real = spot_shares(train.take(torch.arange(len(train))))
    assert not worst_spot(test.take(torch.arange(len(test))), real).is_fixed
    large = images(50).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert spot_shares(large).shape == (2, 32, 32)
