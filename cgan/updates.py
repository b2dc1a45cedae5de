"""Two ways to let G and D learn from one batch, side by side.

``alternating`` draws fakes twice: G learns, then D learns from fresh fakes of the updated G.
``shared`` draws them once, and both learn from the same fakes and the same logits: one forward of
G and one of D fewer. In each, the gradient of a network is exactly that of its own loss: what the
other learns never reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.errors import UnknownName
from cgan.losses import Loss
from cgan.penalties import gradient_penalty, r1, r2


@dataclass
class Players:
    """Both networks with their optimisers. Made once; the updates change them in place."""

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class Penalty:
    """How strongly D's gradients are penalised in this step (γ of each); 0 leaves one out."""

    r1: float = 0.0
    r2: float = 0.0
    gradient_penalty: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.r1 or self.r2 or self.gradient_penalty)


NO_PENALTY = Penalty()

Losses = dict[str, Tensor]
"""Means over the batch, detached and still on the device: ``loss_G``, ``loss_D``, ``penalty``."""

Update = Callable[
    [Players, Tensor, Tensor | None, Callable[[], Tensor], Loss, Penalty],
    Losses,
]


def alternating(
    players: Players,
    real: Tensor,
    labels: Tensor | None,
    draw_z: Callable[[], Tensor],
    loss: Loss,
    penalty: Penalty = NO_PENALTY,
) -> Losses:
    """Two forward passes: G learns from D, then D learns from fresh fakes of the updated G.

    Args:
        players: both networks and their optimisers; changed in place.
        real: (B, C, H, W) in [-1, 1].
        labels: (B,) int64, of the real pictures and of the fakes drawn beside them; None if plain.
        draw_z: gives fresh z, (B, latent_dim), at each call.
        loss: both sides of the game.
        penalty: what is added to D's loss in this step.
    """
    G, D = players.generator, players.discriminator

    with frozen(D):
        real_logits = ask(D, real, labels)[0] if loss.compares else None
        fake_logits, misnamed = ask(D, G(draw_z(), labels), labels)
        loss_G = loss.generator(real=real_logits, fake=fake_logits).mean()
        follow(loss_G + loss.auxiliary * misnamed, G)
        players.generator_optimizer.step()

    with frozen(G):
        D_ = twice_differentiable(D) if penalty else D
        real = real.detach().requires_grad_(penalty.r1 > 0)
        fake = G(draw_z(), labels).requires_grad_(penalty.r2 > 0)
        real_logits, misnamed = ask(D_, real, labels)
        fake_logits, _ = ask(D_, fake, labels)
        loss_D = loss.discriminator(real=real_logits, fake=fake_logits).mean()
        penalised = penalise(D_, real, fake, real_logits, fake_logits, labels, penalty)
        follow(loss_D + misnamed + penalised, D)
        players.discriminator_optimizer.step()

    return {"loss_G": loss_G.detach(), "loss_D": loss_D.detach(), "penalty": penalised.detach()}


def shared(
    players: Players,
    real: Tensor,
    labels: Tensor | None,
    draw_z: Callable[[], Tensor],
    loss: Loss,
    penalty: Penalty = NO_PENALTY,
) -> Losses:
    """One forward pass: G and D learn at once, from the same fakes and the same logits.

    Both gradients are taken before either network moves, and each is asked for one network's
    weights alone, so D's loss never reaches G (in the notes' "method one" it does, and cancels).
    Arguments as :func:`alternating`.
    """
    G, D = players.generator, players.discriminator

    D_ = twice_differentiable(D) if penalty else D
    real = real.detach().requires_grad_(penalty.r1 > 0)
    fake = G(draw_z(), labels)
    real_logits, real_misnamed = ask(D_, real, labels)
    fake_logits, fake_misnamed = ask(D_, fake, labels)
    loss_G = loss.generator(real=real_logits, fake=fake_logits).mean()
    loss_D = loss.discriminator(real=real_logits, fake=fake_logits).mean()
    penalised = penalise(D_, real, fake, real_logits, fake_logits, labels, penalty)
    follow(loss_G + loss.auxiliary * fake_misnamed, G, retain_graph=True)
    follow(loss_D + real_misnamed + penalised, D)
    players.generator_optimizer.step()
    players.discriminator_optimizer.step()

    return {"loss_G": loss_G.detach(), "loss_D": loss_D.detach(), "penalty": penalised.detach()}


def ask(discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """D's logits (B,), and what its auxiliary classifier pays for the names it gives (a scalar).

    −log p(y|x), averaged: Odena et al. 2017 (AC-GAN), equation 3; 0 where D has no classifier. D
    pays for real pictures alone: fakes that are not yet what they claim would teach it wrong names
    (Hou et al. 2022). G pays for its fakes.
    """
    answer = discriminator(images, labels)
    if answer.dim() == 1 or labels is None:
        return answer, answer.new_zeros(())
    return answer[:, 0], cross_entropy(answer[:, 1:], labels)


def penalise(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    real_logits: Tensor,
    fake_logits: Tensor,
    labels: Tensor | None,
    penalty: Penalty,
) -> Tensor:
    """The mean penalty of a batch, each kind times its γ: a scalar, 0 where there is none."""
    total = real_logits.new_zeros(())
    if penalty.r1:
        total = total + penalty.r1 * r1(real_logits, real).mean()
    if penalty.r2:
        total = total + penalty.r2 * r2(fake_logits, fake).mean()
    if penalty.gradient_penalty:
        mix = torch.rand(len(real), device=real.device)
        excess = gradient_penalty(lambda x: ask(discriminator, x, labels)[0], real, fake, mix)
        total = total + penalty.gradient_penalty * excess.mean()
    return total


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Inside, the network's weights get no gradient, and none is computed for them."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def follow(loss: Tensor, network: nn.Module, retain_graph: bool = False) -> None:
    """Set each weight's ``grad`` of this network to the gradient of this loss, and no other's."""
    network.zero_grad(set_to_none=True)
    loss.backward(inputs=list(network.parameters()), retain_graph=retain_graph)


def twice_differentiable(network: nn.Module) -> nn.Module:
    """The network that a compiled one was made from: compiled code has no second derivative."""
    original: nn.Module = getattr(network, "_orig_mod", network)
    return original


UPDATES: dict[str, Update] = {"alternating": alternating, "shared": shared}


def get_update(name: str) -> Update:
    """The update scheme of that name; an unknown one raises :class:`cgan.errors.UnknownName`."""
    if name not in UPDATES:
        raise UnknownName("update scheme", name, UPDATES)
    return UPDATES[name]
