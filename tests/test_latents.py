"""A z depends on its seed alone."""

import torch

from cgan.latents import draw_latents


def test_z_depends_on_its_seed_alone() -> None:
    together = draw_latents([5, 6, 7], 64)
    assert torch.equal(together[1], draw_latents([6], 64)[0])
    assert torch.equal(together[1], draw_latents([9, 6], 64)[1])
    assert not torch.equal(together[0], together[1])


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw_latents([1, 2], 8)
    assert torch.equal(before, torch.get_rng_state())


def test_moments() -> None:
    z = draw_latents(range(2_000), 64)
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01


def test_a_seed_has_a_sequence_of_its_own() -> None:
    first, second, third = (draw_latents([7], 20, [k])[0] for k in range(3))
    stream = torch.Generator().manual_seed(7)
    for z in (first, second, third):
        assert torch.equal(z, torch.empty(20).normal_(generator=stream))
    assert torch.equal(draw_latents([3, 7], 20, [0, 2])[1], third)
    assert not torch.equal(second, draw_latents([8], 20)[0])
