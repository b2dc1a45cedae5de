"""StepLosses and their gradients against values worked by hand."""

import math

import pytest
import torch

from cgan.config import LossName
from cgan.errors import UnknownNameError
from cgan.losses import LOSSES, generator_relativistic, get_loss

REAL = torch.tensor([0.0, 2.0, -3.0])
FAKE = torch.tensor([0.0, -1.0, 4.0])


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


EXPECTED = {
    "nonsaturating": (
        [softplus(0), softplus(1), softplus(-4)],
        [2 * softplus(0), softplus(-2) + softplus(-1), softplus(3) + softplus(4)],
    ),
    "least_squares": ([0.5, 2.0, 4.5], [0.5, 1.0, 16.0]),
    "hinge": ([0.0, 1.0, -4.0], [2.0, 0.0, 9.0]),
    "relativistic": (
        [softplus(0), softplus(3), softplus(-7)],
        [softplus(0), softplus(-3), softplus(7)],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_values(name: str) -> None:
    generator, discriminator = EXPECTED[name]
    loss = get_loss(name)
    torch.testing.assert_close(loss.generator(real=REAL, fake=FAKE), torch.tensor(generator))
    torch.testing.assert_close(
        loss.discriminator(real=REAL, fake=FAKE), torch.tensor(discriminator)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite_with_finite_gradients(name: str) -> None:
    real = torch.tensor([-1e4, 1e4], requires_grad=True)
    fake = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = get_loss(name)
    for side in (loss.generator, loss.discriminator):
        total = side(real=real, fake=fake).sum()
        gradients = torch.autograd.grad(total, (real, fake), allow_unused=True)
        assert total.isfinite()
        assert all(g is None or g.isfinite().all() for g in gradients)


def test_nonsaturating_gradient_is_full_where_the_discriminator_is_sure() -> None:
    """d/dx softplus(−x) = −σ(−x): −1 in the limit, where the saturating loss gives 0."""
    fake = torch.tensor([-50.0, 0.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(
        get_loss("nonsaturating").generator(real=None, fake=fake).sum(), fake
    )
    torch.testing.assert_close(gradient, torch.tensor([-1.0, -0.5]))


def test_only_the_relativistic_generator_looks_at_real_logits() -> None:
    assert [name for name, loss in LOSSES.items() if loss.needs_real_logits] == ["relativistic"]
    with pytest.raises(ValueError, match="real"):
        generator_relativistic(real=None, fake=FAKE)


def test_names_are_those_of_the_config() -> None:
    assert tuple(LOSSES) == LossName.__args__
    with pytest.raises(UnknownNameError, match="did you mean 'hinge'"):
        get_loss("hing")
