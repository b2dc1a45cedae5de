"""Spots at fixed places, spectra, mean and deviation of every pixel: by hand and on real images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import cgan
from cgan.evaluation.artifacts import (
    pixel_statistics,
    position_images,
    power_spectrum,
    spectrum_distance,
    spot_shares,
    worst_spot,
)

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
    spot = worst_spot(pixel_statistics([drawn]), pixel_statistics([images(2_000)]))
    assert (spot.kind, spot.row, spot.column) == ("dark", 9, 14)
    assert spot.share == pytest.approx(0.05, abs=0.01)
    assert spot.is_fixed
    assert "5." in spot.sentence
    assert "row 10, column 15" in spot.sentence


@pytest.mark.parametrize("seed", range(5))
def test_spots_at_random_places_are_not(seed: int) -> None:
    drawn, real = (pixel_statistics([one]) for one in (images(400, seed + 1), images(2_000)))
    assert not worst_spot(drawn, real).is_fixed


def test_real_digits_and_large_images_are_silent() -> None:
    train, test = (cgan.load_pictures("digits", split) for split in ("train", "test"))
    drawn, real = (pixel_statistics([one.take(torch.arange(len(one)))]) for one in (test, train))
    assert not worst_spot(drawn, real).is_fixed
    assert spectrum_distance(real.power, drawn.power) < 0.5
    large = images(50).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert spot_shares(large).shape == (2, 32, 32)


def test_the_power_of_waves_by_hand() -> None:
    """A wave of amplitude a has the power a² · pixels / 4 at each of its two frequencies."""
    x = torch.arange(32)
    wave = 100 + 50 * torch.cos(2 * torch.pi * 5 * x / 32)
    images = wave.expand(2, 3, 32, 32).round().to(torch.uint8)
    power = power_spectrum(images)
    assert power.shape == (23,)  # up to the diagonal, √2 · 16
    assert int(power.argmax()) == 4
    ring = sum(
        round(((i - 16) ** 2 + (j - 16) ** 2) ** 0.5) == 5 for i in range(32) for j in range(32)
    )
    expected = 2 * (50 / 255) ** 2 * 32 * 32 / 4 / ring
    assert float(power[4]) == pytest.approx(expected, rel=0.02)
    board = 100 + 50 * (((x + x.unsqueeze(1)) % 2) * 2 - 1)
    assert int(power_spectrum(board.expand(1, 1, 32, 32).to(torch.uint8)).argmax()) == 22


def test_blur_and_checkerboards_are_far_from_the_real_spectrum() -> None:
    digits = cgan.load_pictures("digits")
    real = digits.take(torch.arange(len(digits)))
    power = power_spectrum(real)
    assert spectrum_distance(power, power) == 0
    assert spectrum_distance(power, 10 * power) == pytest.approx(10)
    blurred = torch.nn.functional.avg_pool2d(real.float(), 3, 1, 1).to(torch.uint8)
    assert spectrum_distance(power, power_spectrum(blurred)) > 2
    assert power_spectrum(blurred)[-1] < power[-1] / 2


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    whole = images(50)
    one, several = pixel_statistics([whole]), pixel_statistics(whole.split(16))
    assert one.images == several.images == 50
    for left, right in zip(one[1:], several[1:], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(one.mean, whole.double().mean(0))
    torch.testing.assert_close(one.deviation, whole.double().std(0, correction=0))


def test_mean_and_deviation_as_images() -> None:
    real = torch.tensor([0, 100], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8).clone()
    drawn = torch.full((2, 3, 8, 8), 70, dtype=torch.uint8)
    drawn[1, :, 0, 0] = 90
    found = position_images(pixel_statistics([drawn]), pixel_statistics([real]))
    assert found.shape == (2, 2, 3, 8, 8)
    assert found[1, 0].unique().tolist() == [50]
    assert found[1, 1].unique().tolist() == [255]  # the deviation 50 is the largest
    assert found[0, 0, 0, 0].tolist() == [80] + [70] * 7
    assert found[0, 1, 0, 0].tolist() == [51] + [0] * 7
