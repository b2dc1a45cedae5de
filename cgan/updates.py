"""Two update schemes: how one batch updates G and D.

``alternating`` generates fakes twice: it updates G, then updates D on new fakes of the updated G.
``simultaneous`` generates them once and updates G and D from the same fakes and logits, which saves
a forward pass of each. In both schemes each network gets only the gradient of its own loss.

Work that does not depend on each other goes through ``GAN.both``: what concerns G's fakes, and what
concerns D. It runs in turn, or at the same time on two streams (``cgan.runtime.streams``).

To add a scheme: write a function with the signature of ``alternating``, and add it to ``UPDATES``
and its name to ``cgan.config.UpdateName``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.errors import UnknownNameError
from cgan.losses import Loss
from cgan.models.layers import frozen
from cgan.penalties import r1, r2

Both = Callable[[Callable[[], Any], Callable[[], Any]], tuple[Any, Any]]
"""Calls two functions that do not depend on each other, and returns both results."""

Teacher = Callable[[Tensor], Tensor]
"""Maps images (B, C, H, W) in [-1, 1] to the probabilities of their classes (B, num_classes)."""

StepLosses = dict[str, Tensor]
"""Means over the batch, detached, on the device: the adversarial losses ``loss_G`` and ``loss_D``,
those of the auxiliary classifier on fakes and on real images, ``aux_G`` and ``aux_D`` (0 without
one), ``penalty``, and ``distillation``, the weighted loss of the teacher (0 without one)."""


def in_turn(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Call one after the other."""
    return first(), second()


@dataclass
class GAN:
    """Two networks, their optimisers and their loss. Update schemes change the networks in place.

    Attributes:
        generator: G(z, labels) to images (B, C, H, W) in [-1, 1], or to images and a penalty that
            is added to G's loss.
        discriminator: D(images, labels) to logits: (B,), (B, 1), or (B, 1 + classes) with those of
            an auxiliary classifier.
        generator_optimizer: of G's parameters.
        discriminator_optimizer: of D's parameters.
        loss: the adversarial losses, and the weight of the auxiliary one.
        both: calls two functions that do not depend on each other.
        teacher: tells D's auxiliary classifier what G's images show (``PenaltyWeights.teacher``).
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    loss: Loss
    both: Both = in_turn
    teacher: Teacher | None = None


@dataclass(frozen=True)
class PenaltyWeights:
    """γ of each gradient penalty in this step; 0 turns a penalty off."""

    r1: float = 0.0
    r2: float = 0.0
    scale: float | Tensor = field(default=1.0, compare=False)
    """Factor of both; a tensor may change between replays of a captured step."""
    teacher: float = 0.0
    """Weight of the teacher's loss in D's loss in this step; it is no gradient penalty."""

    def __bool__(self) -> bool:
        """Whether there is a gradient penalty."""
        return bool(self.r1 or self.r2)


NO_PENALTY = PenaltyWeights()

Update = Callable[..., StepLosses]
"""An update scheme: a function with the arguments of ``alternating``."""


def alternating(
    gan: GAN,
    real: Tensor,
    labels: Tensor | None,
    draw_z: Callable[[], Tensor],
    weights: PenaltyWeights = NO_PENALTY,
    fake_labels: Tensor | None = None,
) -> StepLosses:
    """Update G, then update D on new fakes of the updated G (two forward passes of G).

    Args:
        gan: changed in place.
        real: (B, C, H, W) in [-1, 1].
        labels: (B,) int64; None if unconditional. D judges the real image and the fake of a row
            with the same label, so that both are judged without a label where it is -1.
        draw_z: returns new z, (B, latent_dim), at each call.
        weights: gradient penalties added to D's loss in this step.
        fake_labels: the classes that G draws, (B,), where some ``labels`` are -1; None draws
            ``labels``.
    """
    classes = labels if fake_labels is None else fake_labels
    of_G = step_generator(gan, real, labels, classes, draw_z())
    of_D = step_discriminator(gan, real, labels, classes, draw_z(), weights)
    return detach(**of_G, **of_D)


def step_generator(
    gan: GAN, real: Tensor, labels: Tensor | None, classes: Tensor | None, z: Tensor
) -> StepLosses:
    """Update G on its fakes of z (B, latent_dim); returns what it minimises, in parts."""
    G, D, loss = gan.generator, gan.discriminator, gan.loss
    with frozen(D):
        real_logits = discriminate(D, real, labels)[0] if loss.needs_real_logits else None
        fake, own_penalty = generate(G, z, classes)
        fake_logits, aux_G = discriminate(D, fake, labels, classes)
        loss_G = loss.generator(real=real_logits, fake=fake_logits).mean()
        backward_into(G, loss_G + loss.aux_weight * aux_G + own_penalty)
        gan.generator_optimizer.step()
    return {"loss_G": loss_G, "aux_G": aux_G}


def step_discriminator(
    gan: GAN,
    real: Tensor,
    labels: Tensor | None,
    classes: Tensor | None,
    z: Tensor,
    weights: PenaltyWeights = NO_PENALTY,
) -> StepLosses:
    """Update D on real images and on G's fakes of z; returns what it minimises, in parts."""
    G, D = gan.generator, gan.discriminator
    D_ = unwrap(D) if weights else D
    with frozen(G):

        def judge_fakes() -> tuple[Tensor, Judged]:
            fake = generate(G, z, classes)[0]
            return fake, judge_fake(D_, fake, labels, weights)

        (fake, of_fake), of_real = gan.both(
            judge_fakes, lambda: judge_real(D_, real, labels, weights)
        )
        lesson = teach(gan.teacher, weights.teacher, fake, of_fake)
        loss_D = backward_discriminator(D, gan.loss, of_real, of_fake, lesson)
        gan.discriminator_optimizer.step()
    return losses_of_discriminator(loss_D, of_real, of_fake, lesson)


def simultaneous(
    gan: GAN,
    real: Tensor,
    labels: Tensor | None,
    draw_z: Callable[[], Tensor],
    weights: PenaltyWeights = NO_PENALTY,
    fake_labels: Tensor | None = None,
) -> StepLosses:
    """Update G and D together from the same fakes and the same logits (one forward pass of G).

    Both gradients are those at the old weights of both networks. Each ``backward`` is limited to
    one network's parameters: the gradient of D's loss would cancel G's own. Arguments as for
    ``alternating``.
    """
    G, D, loss = gan.generator, gan.discriminator, gan.loss
    classes = labels if fake_labels is None else fake_labels
    D_, z = unwrap(D) if weights else D, draw_z()

    def judge_fakes() -> tuple[Tensor, Tensor, Judged]:
        fake, own_penalty = generate(G, z, classes)
        return fake, own_penalty, judge_fake(D_, fake, labels, weights, classes)

    (fake, own_penalty, of_fake), of_real = gan.both(
        judge_fakes, lambda: judge_real(D_, real, labels, weights)
    )
    lesson = teach(gan.teacher, weights.teacher, fake, of_fake)

    def update_G() -> Tensor:
        loss_G = loss.generator(real=of_real.logits.detach(), fake=of_fake.logits).mean()
        total = loss_G + loss.aux_weight * of_fake.aux + own_penalty
        backward_into(G, total, retain_graph=True)
        gan.generator_optimizer.step()  # nothing reads G's old weights any more
        return loss_G

    loss_G, loss_D = gan.both(
        update_G, lambda: backward_discriminator(D, loss, of_real, of_fake, lesson)
    )
    gan.discriminator_optimizer.step()  # G's gradient reads D's weights, so it comes last
    of_D = losses_of_discriminator(loss_D, of_real, of_fake, lesson)
    return detach(loss_G=loss_G, aux_G=of_fake.aux, **of_D)


class Judged(NamedTuple):
    """D's judgement of real images, or of fakes."""

    logits: Tensor
    """(B,)."""
    aux: Tensor
    """The loss of the auxiliary classifier, a scalar: D minimises that of real images, G that of
    fakes."""
    penalty: Tensor
    """The weighted gradient penalty at these images, a scalar."""
    class_logits: Tensor | None = None
    """Those of the auxiliary classifier, (B, num_classes), if D has one."""


def judge_real(
    D: nn.Module, real: Tensor, labels: Tensor | None, weights: PenaltyWeights = NO_PENALTY
) -> Judged:
    """D's judgement of real images, with R1."""
    real = real.detach().requires_grad_(weights.r1 > 0)
    logits, aux = discriminate(D, real, labels)
    return Judged(logits, aux, penalise(r1, weights.r1, logits, real, weights.scale))


def judge_fake(
    D: nn.Module,
    fake: Tensor,
    labels: Tensor | None,
    weights: PenaltyWeights = NO_PENALTY,
    classes: Tensor | None = None,
) -> Judged:
    """D's judgement of fakes, with R2; arguments as for ``discriminate``."""
    if weights.r2 and not fake.requires_grad:  # of a frozen G
        fake = fake.detach().requires_grad_()
    logits, class_logits = split_output(D(fake, labels), labels)
    aux = auxiliary_loss(class_logits, logits, labels, classes)
    penalty = penalise(r2, weights.r2, logits, fake, weights.scale)
    return Judged(logits, aux, penalty, class_logits)


def teach(teacher: Teacher | None, weight: float, fake: Tensor, judged: Judged) -> Tensor | None:
    """Distillation (Hinton et al. 2015): the weighted cross-entropy of D's classifier with the
    teacher's probabilities of the classes of fakes, a scalar. None without a teacher, a weight or a
    classifier.

    D's classifier soon knows a few thousand training images by heart. G's images never end, so
    there it learns what the teacher knows.
    """
    if teacher is None or not weight or judged.class_logits is None:
        return None
    with torch.no_grad():
        taught = teacher(fake.detach())
    return weight * cross_entropy(judged.class_logits, taught)


def losses_of_discriminator(
    loss_D: Tensor, of_real: Judged, of_fake: Judged, lesson: Tensor | None
) -> StepLosses:
    """What D minimises, in parts."""
    distillation = loss_D.new_zeros(()) if lesson is None else lesson
    penalty = of_real.penalty + of_fake.penalty
    return {"loss_D": loss_D, "aux_D": of_real.aux, "penalty": penalty,
            "distillation": distillation}  # fmt: skip


def detach(**losses: Tensor) -> StepLosses:
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
    minimises it on real images only, unlike theirs: from poor fakes it would learn wrong classes. G
    minimises it on its fakes.

    Args:
        D: the discriminator; its output is (B,), (B, 1) or (B, 1 + num_classes).
        images: (B, C, H, W) in [-1, 1].
        labels: those that D judges by; the auxiliary loss of an image with the label -1 is 0.
        classes: the classes of the images for the auxiliary loss; None is ``labels``.
    """
    logits, class_logits = split_output(D(images, labels), labels)
    return logits, auxiliary_loss(class_logits, logits, labels, classes)


def split_output(output: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """D's logits (B,), and those of its auxiliary classifier (B, num_classes), if it has one.
    Without labels all are its logits."""
    if output.dim() == 2 and output.shape[1] == 1:
        output = output.squeeze(1)  # many discriminators return (B, 1)
    if output.dim() == 1 or labels is None:
        return output, None
    return output[:, 0], output[:, 1:]


def auxiliary_loss(
    class_logits: Tensor | None, logits: Tensor, labels: Tensor | None, classes: Tensor | None
) -> Tensor:
    """The mean of −log p(y|x), as ``discriminate`` describes it."""
    if class_logits is None or labels is None:
        return logits.new_zeros(())
    classes = labels if classes is None else classes
    losses = cross_entropy(class_logits, classes, ignore_index=-1, reduction="none")
    return losses.mean()  # over all images, so that it does not depend on the shards


def penalise(
    penalty: Callable[[Tensor, Tensor], Tensor],
    gamma: float,
    logits: Tensor,
    images: Tensor,
    scale: float | Tensor,
) -> Tensor:
    """γ times the mean of a penalty, ``r1`` or ``r2``, times the scale: a scalar; 0 if γ is 0."""
    return scale * (gamma * penalty(logits, images).mean()) if gamma else logits.new_zeros(())


def backward_discriminator(
    D: nn.Module, loss: Loss, of_real: Judged, of_fake: Judged, lesson: Tensor | None = None
) -> Tensor:
    """Set ``grad`` of D's parameters to the gradient of its loss, whose adversarial part is
    returned.

    It goes backward through the real images and the fakes one after another. In one pass, torch
    would add up their gradients in an order that depends on the threads that went forward, and on
    all that they did before.
    """
    real, fake = (judged.logits.detach().requires_grad_() for judged in (of_real, of_fake))
    loss_D = loss.discriminator(real=real, fake=fake).mean()
    gradients = torch.autograd.grad(loss_D, (real, fake), allow_unused=True, materialize_grads=True)
    D.zero_grad(set_to_none=True)
    add_gradients(D, [of_real.logits, of_real.aux, of_real.penalty], [gradients[0], None, None])
    # G's loss goes backward through the graph of the fakes as well, so it is retained.
    outputs = [of_fake.logits, of_fake.penalty] + ([] if lesson is None else [lesson])
    add_gradients(D, outputs, [gradients[1], None, None][: len(outputs)], retain_graph=True)
    return loss_D


def backward_into(network: nn.Module, loss: Tensor, retain_graph: bool = False) -> None:
    """Set ``grad`` of this network's parameters, and of no others, to the gradient of the loss.

    It is None for a parameter that does not require one; optimisers leave that parameter alone.
    """
    network.zero_grad(set_to_none=True)
    add_gradients(network, [loss], [None], retain_graph)


def add_gradients(
    network: nn.Module,
    outputs: list[Tensor],
    gradients: list[Tensor | None],
    retain_graph: bool = False,
) -> None:
    """Go backward from these outputs, and add to ``grad`` of this network's parameters only.

    Args:
        network: its parameters that require a gradient get one.
        outputs: tensors; those that require no gradient are left out.
        gradients: the gradient of the loss by each output; None is 1, for a scalar.
        retain_graph: as for ``torch.Tensor.backward``.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o.requires_grad]
    if trainable and pairs:
        starts, weights = zip(*pairs, strict=True)
        torch.autograd.backward(starts, weights, retain_graph, inputs=trainable)


def unwrap(network: nn.Module) -> nn.Module:
    """The original module of a compiled or an autocast one, for steps with penalties.

    Compiled code does not support double backward, and in bfloat16 the squared norm of a gradient
    has two significant digits.
    """
    while isinstance(original := getattr(network, "_orig_mod", None), nn.Module):
        network = original
    return network


UPDATES: dict[str, Update] = {"alternating": alternating, "simultaneous": simultaneous}


def get_update(name: str) -> Update:
    """Look up an update scheme by name; raises ``cgan.errors.UnknownNameError``."""
    if name not in UPDATES:
        raise UnknownNameError("update scheme", name, UPDATES)
    return UPDATES[name]
