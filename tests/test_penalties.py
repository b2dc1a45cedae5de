"""Penalties of discriminators whose gradients are known."""

import torch
from torch import Tensor

from cgan.penalties import gradient_penalty, r1, r2, squared_gradient

WEIGHT = torch.tensor([[1.0, -2.0], [2.0, 4.0]]).view(1, 1, 2, 2)  # ‖w‖² = 25


def linear(images: Tensor) -> Tensor:
    return (images * WEIGHT).flatten(1).sum(1) + 3


def test_r1_and_r2_of_a_linear_discriminator_are_half_its_squared_weight() -> None:
    images = torch.randn(5, 1, 2, 2, requires_grad=True)
    torch.testing.assert_close(r1(linear(images), images), torch.full((5,), 12.5))
    torch.testing.assert_close(r2(linear(images), images), torch.full((5,), 12.5))


def test_each_sample_has_its_own_value() -> None:
    """D(x) = ½ ‖x‖² has the gradient x."""
    images = torch.randn(4, 3, 2, 2, requires_grad=True)
    logits = 0.5 * images.square().flatten(1).sum(1)
    torch.testing.assert_close(
        squared_gradient(logits, images), images.detach().square().flatten(1).sum(1)
    )


def test_gradient_penalty_by_hand() -> None:
    """‖w‖ = 5, so (5 − 1)² = 16 wherever it is taken."""
    real, fake = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    penalty = gradient_penalty(linear, real, fake, torch.rand(3))
    torch.testing.assert_close(penalty, torch.full((3,), 16.0))


def test_gradient_penalty_is_taken_between_real_and_fake() -> None:
    """D(x) = ½ ‖x‖² has a gradient of norm ‖x̂‖: mix 1 is the real picture, 0 the fake one."""
    real, fake = torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 1.0)
    penalty = gradient_penalty(
        lambda x: 0.5 * x.square().flatten(1).sum(1), real, fake, torch.tensor([1.0, 0.0])
    )
    torch.testing.assert_close(penalty, torch.tensor([25.0, 1.0]))  # (6 − 1)², (2 − 1)²


def test_penalty_teaches_the_weights() -> None:
    """½ ‖w‖² differentiated by w is w."""
    weight = WEIGHT.clone().requires_grad_()
    images = torch.randn(2, 1, 2, 2, requires_grad=True)
    penalty = r1((images * weight).flatten(1).sum(1), images).mean()
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, WEIGHT)


def test_gradient_of_zero_does_not_make_nan() -> None:
    weight = torch.zeros(1, 1, 2, 2, requires_grad=True)
    images = torch.randn(2, 1, 2, 2)
    penalty = gradient_penalty(
        lambda x: (x * weight).flatten(1).sum(1), images, images, torch.ones(2)
    )
    penalty.sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
