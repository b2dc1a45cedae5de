"""Two update schemes: how one batch updates G and D.

``alternating`` generates fakes twice: it updates G, then updates D on new fakes of the updated G.
``shared`` generates them once and updates G and D from the same fakes and logits, which saves a
forward pass of each. In both schemes each network gets only the gradient of its own loss.

To add a scheme: write a function with the signature of ``alternating``, and add it to ``UPDATES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.errors import UnknownNameError
from cgan.losses import Loss
from cgan.models.freeze import frozen
from cgan.penalties import gradient_penalty, r1, r2


@dataclass
class Players:
    """Both networks and their optimisers. The update schemes change them in place."""

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class PenaltyWeights:
    """γ of each gradient penalty in this step; 0 turns a penalty off."""

    r1: float = 0.0
    r2: float = 0.0
    gradient_penalty: float = 0.0
    scale: float | Tensor = field(default=1.0, compare=False)
    """Factor of all of them; a tensor may change between replays of a captured step."""

    def __bool__(self) -> bool:
        return bool(self.r1 or self.r2 or self.gradient_penalty)


NO_PENALTY = PenaltyWeights()

Losses = dict[str, Tensor]
"""Means over the batch, detached, on the device: the adversarial losses ``loss_G`` and ``loss_D``,
those of the auxiliary classifier on fakes and on real images, ``aux_G`` and ``aux_D`` (0 without
one), and ``penalty``."""

DrawMix = Callable[[Tensor], Tensor]
"""Real images (B, C, H, W) to the weights of the gradient penalty's mix, (B,) in [0, 1]."""


def uniform_mix(real: Tensor) -> Tensor:
    """One weight per image, uniform in [0, 1]: (B,)."""
    return torch.rand(len(real), device=real.device)


Update = Callable[..., Losses]
"""An update scheme: a function with the arguments of ``alternating``."""


def alternating(
    players: Players,
    real: Tensor,
    labels: Tensor | None,
    draw_z: Callable[[], Tensor],
    loss: Loss,
    weights: PenaltyWeights = NO_PENALTY,
    draw_mix: DrawMix = uniform_mix,
    fake_labels: Tensor | None = None,
) -> Losses:
    """Update G, then update D on new fakes of the updated G (two forward passes of G).

    Args:
        players: both networks and their optimisers, changed in place.
        real: (B, C, H, W) in [-1, 1].
        labels: (B,) int64; None if unconditional. D judges the real image and the fake of a row
            with the same label, so that both are judged without a label where it is -1.
        draw_z: returns new z, (B, latent_dim), at each call.
        loss: generator and discriminator loss.
        weights: gradient penalties added to D's loss in this step.
        draw_mix: returns new weights for the mix of the gradient penalty, (B,).
        fake_labels: the classes that G draws, (B,), where some ``labels`` are -1; None draws
            ``labels``.
    """
    classes = labels if fake_labels is None else fake_labels
    G, D = players.generator, players.discriminator

    with frozen(D):
        real_logits = discriminate(D, real, labels)[0] if loss.needs_real_logits else None
        fake, own_penalty = generate(G, draw_z(), classes)
        fake_logits, aux_G = discriminate(D, fake, labels, classes)
        loss_G = loss.generator(real=real_logits, fake=fake_logits).mean()
        backward_into(G, loss_G + loss.aux_weight * aux_G + own_penalty)
        players.generator_optimizer.step()

    with frozen(G):
        D_ = unwrap(D) if weights else D
        real = real.detach().requires_grad_(weights.r1 > 0)
        fake = generate(G, draw_z(), classes)[0].requires_grad_(weights.r2 > 0)
        real_logits, aux_D = discriminate(D_, real, labels)
        fake_logits, _ = discriminate(D_, fake, labels)
        loss_D = loss.discriminator(real=real_logits, fake=fake_logits).mean()
        penalty = compute_penalties(
            D_, real, fake, real_logits, fake_logits, labels, weights, draw_mix
        )
        backward_into(D, loss_D + aux_D + penalty)
        players.discriminator_optimizer.step()

    return detach(loss_G=loss_G, loss_D=loss_D, aux_G=aux_G, aux_D=aux_D, penalty=penalty)


def shared(
    players: Players,
    real: Tensor,
    labels: Tensor | None,
    draw_z: Callable[[], Tensor],
    loss: Loss,
    weights: PenaltyWeights = NO_PENALTY,
    draw_mix: DrawMix = uniform_mix,
    fake_labels: Tensor | None = None,
) -> Losses:
    """Update G and D together from the same fakes and the same logits (one forward pass of G).

    Both gradients are computed before either optimiser steps. Each ``backward`` is limited to one
    network's parameters: the gradient of D's loss would cancel G's own. Arguments as above.
    """
    classes = labels if fake_labels is None else fake_labels
    G, D = players.generator, players.discriminator

    D_ = unwrap(D) if weights else D
    real = real.detach().requires_grad_(weights.r1 > 0)
    fake, own_penalty = generate(G, draw_z(), classes)
    real_logits, aux_D = discriminate(D_, real, labels)
    fake_logits, aux_G = discriminate(D_, fake, labels, classes)
    loss_G = loss.generator(real=real_logits, fake=fake_logits).mean()
    loss_D = loss.discriminator(real=real_logits, fake=fake_logits).mean()
    penalty = compute_penalties(D_, real, fake, real_logits, fake_logits, labels, weights, draw_mix)
    total_G = loss_G + loss.aux_weight * aux_G + own_penalty
    backward_into(G, total_G, retain_graph=True)
    backward_into(D, loss_D + aux_D + penalty)
    players.generator_optimizer.step()
    players.discriminator_optimizer.step()

    return detach(loss_G=loss_G, loss_D=loss_D, aux_G=aux_G, aux_D=aux_D, penalty=penalty)


def detach(**losses: Tensor) -> Losses:
    """The losses without their graphs."""
    return {name: value.detach() for name, value in losses.items()}


def generate(G: nn.Module, z: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """G's images (B, C, H, W), and a penalty that it adds to its loss, 0 if it has none."""
    output = G(z, labels)
    return output if isinstance(output, tuple) else (output, output.new_zeros(()))


def discriminate(
    D: nn.Module, images: Tensor, labels: Tensor | None, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """D's logits (B,) and the loss of its auxiliary classifier (a scalar, 0 without one).

    The auxiliary loss is the mean of −log p(y|x): Odena et al. 2017 (AC-GAN), equation 3. D
    minimises it on real images only, because poor fakes would teach it wrong classes (Hou et al.
    2022). G minimises it on its fakes.

    Args:
        D: the discriminator; its output is (B,), (B, 1) or (B, 1 + num_classes).
        images: (B, C, H, W) in [-1, 1].
        labels: those that D judges by; the auxiliary loss of an image with the label -1 is 0.
        classes: the classes of the images for the auxiliary loss; None is ``labels``.
    """
    output = D(images, labels)
    if output.dim() == 2 and output.shape[1] == 1:
        output = output.squeeze(1)  # many discriminators return (B, 1)
    if output.dim() == 1 or labels is None:
        return output, output.new_zeros(())
    classes = labels if classes is None else classes
    losses = cross_entropy(output[:, 1:], classes, ignore_index=-1, reduction="none")
    return output[:, 0], losses.mean()  # over all images, so that it does not depend on the shards


def compute_penalties(
    D: nn.Module,
    real: Tensor,
    fake: Tensor,
    real_logits: Tensor,
    fake_logits: Tensor,
    labels: Tensor | None,
    weights: PenaltyWeights,
    draw_mix: DrawMix = uniform_mix,
) -> Tensor:
    """Sum of the mean penalties, each with its γ, times the scale: a scalar, 0 if all are off."""
    total = real_logits.new_zeros(())
    if weights.r1:
        total = total + weights.r1 * r1(real_logits, real).mean()
    if weights.r2:
        total = total + weights.r2 * r2(fake_logits, fake).mean()
    if weights.gradient_penalty:
        values = gradient_penalty(
            lambda x: discriminate(D, x, labels)[0], real, fake, draw_mix(real)
        )
        total = total + weights.gradient_penalty * values.mean()
    return weights.scale * total


def backward_into(network: nn.Module, loss: Tensor, retain_graph: bool = False) -> None:
    """Set ``grad`` of this network's parameters, and of no others, to the gradient of the loss.

    It is None for a parameter that does not require one; optimisers leave that parameter alone.
    """
    network.zero_grad(set_to_none=True)
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if trainable:
        loss.backward(inputs=trainable, retain_graph=retain_graph)


def unwrap(network: nn.Module) -> nn.Module:
    """The original module of a compiled or an autocast one, for steps with penalties.

    Compiled code does not support double backward, and in bfloat16 the squared norm of a gradient
    has two significant digits.
    """
    while isinstance(original := getattr(network, "_orig_mod", None), nn.Module):
        network = original
    return network


UPDATES: dict[str, Update] = {"alternating": alternating, "shared": shared}


def get_update(name: str) -> Update:
    """Look up an update scheme by name; raises ``cgan.errors.UnknownNameError``."""
    if name not in UPDATES:
        raise UnknownNameError("update scheme", name, UPDATES)
    return UPDATES[name]
