"""A z depends on its seed alone, and is what the papers say."""

from math import erf, sqrt

import numpy as np
import pytest
import torch

from cgan.sampling.latents import draw_latents, draw_normals, philox

LARGEST = 2**63 - 1

KNOWN = [  # kat_vectors of Random123, the authors' own library
    ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_knows_the_published_answers(counter: str, key: str, answer: str) -> None:
    arrays = [np.array([word]) for word in words(counter)], [np.array([w]) for w in words(key)]
    assert [int(word[0]) for word in philox(*arrays)] == words(answer)
    tensors = [torch.tensor([w]) for w in words(counter)], [torch.tensor([w]) for w in words(key)]
    assert [int(word[0]) for word in philox(*tensors)] == words(answer)


def test_box_muller_by_hand() -> None:
    a, b, c, d = philox((1, 2, 0, 0), (7, 1))  # block 1, attempt 2, seed 2^32 + 7
    radius = np.sqrt(-2 * np.log((a + 1) / 2**32)), np.sqrt(-2 * np.log((c + 1) / 2**32))
    angle = 2 * np.pi * b / 2**32, 2 * np.pi * d / 2**32
    hand = [f(x) * r for r, x in zip(radius, angle, strict=True) for f in (np.cos, np.sin)]
    np.testing.assert_allclose(draw_latents([2**32 + 7], 8, [2])[0, 4:], hand, rtol=1e-6)


def test_z_depends_on_its_seed_alone() -> None:
    together = draw_latents([5, 6, 7], 64)
    assert together.dtype == np.float32
    assert together.shape == (3, 64)
    np.testing.assert_array_equal(together[1], draw_latents([6], 64)[0])
    np.testing.assert_array_equal(together[1], draw_latents([9, 6], 64)[1])
    many = draw_latents(range(1_000), 64)
    for seed in (0, 1, 63, 501, 999):
        np.testing.assert_array_equal(many[seed], draw_latents([seed], 64)[0])
    np.testing.assert_array_equal(many[:9, :21], draw_latents(range(9), 21))


def test_every_bit_of_a_seed_counts() -> None:
    seeds = [0, *(1 << bit for bit in range(63)), LARGEST]
    z = draw_latents(seeds, 8)
    assert np.isfinite(z).all()
    assert len({row.tobytes() for row in z}) == len(seeds)


def test_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    draw_latents([1, 2], 8)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


def test_they_are_normal() -> None:
    z = draw_latents(range(4_000), 64).astype(np.float64)
    assert abs(z.mean()) < 0.008
    assert abs(z.std() - 1) < 0.006
    assert abs((z**3).mean()) < 0.02
    assert abs((z**4).mean() - 3) < 0.06
    ordered = np.sort(z.ravel())
    true = np.array([0.5 * (1 + erf(x / sqrt(2))) for x in ordered])
    steps = np.arange(len(ordered) + 1) / len(ordered)
    distance = max(np.abs(true - steps[1:]).max(), np.abs(true - steps[:-1]).max())
    assert distance < 1.63 / sqrt(len(ordered))  # Kolmogorov and Smirnov, 1 %
    correlations = np.corrcoef(z.T) - np.eye(64)
    assert np.abs(correlations).max() < 5 / sqrt(4_000)
    neighbours = (z[1:] * z[:-1]).mean()  # of seeds that follow each other
    assert abs(neighbours) < 0.008


def test_a_seed_has_a_sequence_of_its_own() -> None:
    first, second, third = (draw_latents([7], 20, [k])[0] for k in range(3))
    assert len({z.tobytes() for z in (first, second, third)}) == 3
    np.testing.assert_array_equal(draw_latents([7], 20)[0], first)
    np.testing.assert_array_equal(draw_latents([3, 7], 20, [0, 2])[1], third)
    assert not np.array_equal(second, draw_latents([8], 20)[0])


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.mark.parametrize("device", DEVICES)
def test_torch_draws_the_same(device: str) -> None:
    seeds, attempts = [0, 1, 2**32, 2**40 + 5, LARGEST], [0, 3, 0, 1, 99]
    there = draw_normals(
        torch, torch.tensor(seeds, device=device), torch.tensor(attempts, device=device), 30
    )
    assert there.dtype == torch.float32
    assert there.device.type == device
    np.testing.assert_allclose(there.cpu(), draw_latents(seeds, 30, attempts), atol=1e-6)


def test_the_default_device_does_not_matter() -> None:
    seeds, draws = torch.tensor([3, 7]), torch.tensor([0, 2])
    with torch.device("meta"):
        there = draw_normals(torch, seeds, draws, 20)
    assert torch.equal(there, draw_normals(torch, seeds, draws, 20))
