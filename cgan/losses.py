"""Adversarial losses on logits, one value per sample.

Each function takes the discriminator's logits for real and generated images by keyword, shape (B,),
any real value, and returns (B,) values ≥ 0 (the hinge generator loss: any real value). Average them
and minimise. Log-sigmoid terms use softplus(x) = log(1 + eˣ), which does not overflow and needs no
epsilon.

To add a loss: write its two functions, and add a line to ``LOSSES`` and its name to
``cgan.config.LossName``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor
from torch.nn.functional import relu, softplus

from cgan.errors import UnknownNameError


def generator_nonsaturating(*, real: Tensor | None = None, fake: Tensor) -> Tensor:
    """−log σ(D(G(z))): Goodfellow et al. 2014, section 3 (the non-saturating form)."""
    return softplus(-fake)


def discriminator_nonsaturating(*, real: Tensor, fake: Tensor) -> Tensor:
    """−log σ(D(x)) − log(1 − σ(D(G(z)))): Goodfellow et al. 2014, equation 1."""
    return softplus(-real) + softplus(fake)


def generator_least_squares(*, real: Tensor | None = None, fake: Tensor) -> Tensor:
    """½ (D(G(z)) − 1)²: Mao et al. 2017, equation 2 with b = c = 1."""
    return 0.5 * (fake - 1).square()


def discriminator_least_squares(*, real: Tensor, fake: Tensor) -> Tensor:
    """½ (D(x) − 1)² + ½ D(G(z))²: Mao et al. 2017, equation 2 with a = 0, b = 1."""
    return 0.5 * (real - 1).square() + 0.5 * fake.square()


def generator_hinge(*, real: Tensor | None = None, fake: Tensor) -> Tensor:
    """−D(G(z)): Lim and Ye 2017; Miyato et al. 2018, equation 17."""
    return -fake


def discriminator_hinge(*, real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 − D(x)) + max(0, 1 + D(G(z))): Miyato et al. 2018, equation 16."""
    return relu(1 - real) + relu(1 + fake)


def generator_relativistic(*, real: Tensor | None, fake: Tensor) -> Tensor:
    """−log σ(D(G(z)) − D(x)): Jolicoeur-Martineau 2018; Huang et al. 2024 (R3GAN), equation 2."""
    if real is None:
        raise ValueError("the relativistic generator loss needs the real logits: pass real=")
    return softplus(-(fake - real))


def discriminator_relativistic(*, real: Tensor, fake: Tensor) -> Tensor:
    """−log σ(D(x) − D(G(z))): the discriminator loss of the same papers."""
    return softplus(-(real - fake))


class GeneratorLoss(Protocol):
    """The generator loss. ``real`` may be None unless ``Loss.needs_real_logits`` is set."""

    def __call__(self, *, real: Tensor | None, fake: Tensor) -> Tensor:
        """Logits (B,) to losses (B,)."""
        ...


class Loss(NamedTuple):
    """The generator and the discriminator loss of one adversarial game."""

    generator: GeneratorLoss
    discriminator: Callable[..., Tensor]
    needs_real_logits: bool = False
    """Whether the generator loss uses the real logits."""
    aux_weight: float = 1.0
    """Weight of the auxiliary classifier's loss in the generator's loss, if D has one."""


LOSSES = {
    "nonsaturating": Loss(generator_nonsaturating, discriminator_nonsaturating),
    "least_squares": Loss(generator_least_squares, discriminator_least_squares),
    "hinge": Loss(generator_hinge, discriminator_hinge),
    "relativistic": Loss(
        generator_relativistic, discriminator_relativistic, needs_real_logits=True
    ),
}


def get_loss(name: str) -> Loss:
    """Look up a loss by name; raises ``cgan.errors.UnknownNameError``."""
    if name not in LOSSES:
        raise UnknownNameError("loss", name, LOSSES)
    return LOSSES[name]
