"""Each network's gradient is that of its own loss, exactly, and of nothing else."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cgan.config import UpdateName
from cgan.errors import UnknownNameError
from cgan.losses import LOSSES, Loss, get_loss
from cgan.models import build_pair
from cgan.penalties import r1, r2
from cgan.updates import (
    GAN,
    UPDATES,
    PenaltyWeights,
    backward_into,
    discriminate,
    frozen,
    get_update,
)

PENALTIES = [
    PenaltyWeights(),
    PenaltyWeights(r1=2.0),
    PenaltyWeights(r1=2.0, r2=0.5),
    PenaltyWeights(r1=2.0, r2=0.5, scale=0.5),
]
LABELS = torch.tensor([0, 1, 2, 1])


class Recorder(torch.optim.SGD):
    """An optimiser that keeps the gradients it was given, and moves or not as it is told."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        super().__init__(network.parameters(), lr)
        self.seen: list[Tensor] = []

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        parameters = self.param_groups[0]["params"]
        self.seen = [p.grad.clone() for p in parameters]
        super().step()


def make(
    lr: float = 0.0, discriminator_label: str = "projection", loss: str | Loss = "hinge"
) -> tuple[GAN, Tensor, list[Tensor]]:
    torch.manual_seed(0)
    loss = get_loss(loss) if isinstance(loss, str) else loss
    G, D = build_pair(
        "mlp", image_shape=(1, 8, 8), num_classes=3, latent_dim=4, width=8,
        discriminator_label=discriminator_label,
    )  # fmt: skip
    return (
        GAN(G, D, Recorder(G, lr), Recorder(D, lr), loss),
        torch.randn(4, 1, 8, 8),
        [torch.randn(4, 4), torch.randn(4, 4)],
    )


def grads(loss: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("penalty", PENALTIES, ids=["bare", "r1", "r1+r2", "scaled"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scheme", UPDATES)
def test_gradients_are_exactly_those_of_each_loss_alone(
    scheme: str, name: str, penalty: PenaltyWeights
) -> None:
    gan, real, latents = make(loss=name)
    G, D, loss = gan.generator, gan.discriminator, gan.loss
    draw_z = iter(latents).__next__
    get_update(scheme)(gan, real, LABELS, draw_z, penalty)

    z_G, z_D = latents if scheme == "alternating" else (latents[0], latents[0])
    fake_logits = D(G(z_G, LABELS), LABELS)
    wanted_G = grads(loss.generator(real=D(real, LABELS), fake=fake_logits).mean(), G)

    real.requires_grad_()
    fake = G(z_D, LABELS).detach().requires_grad_()
    real_logits, fake_logits = D(real, LABELS), D(fake, LABELS)
    total = loss.discriminator(real=real_logits, fake=fake_logits).mean()
    if penalty.r1:
        total = total + penalty.scale * penalty.r1 * r1(real_logits, real).mean()
    if penalty.r2:
        total = total + penalty.scale * penalty.r2 * r2(fake_logits, fake).mean()
    wanted_D = grads(total, D)

    assert same(gan.generator_optimizer.seen, wanted_G)
    assert same(gan.discriminator_optimizer.seen, wanted_D)


@pytest.mark.parametrize("scheme", UPDATES)
def test_a_generators_own_penalty_is_added_to_its_loss(scheme: str) -> None:
    """A generator that returns images and the sum of its squared weights, whose gradient is 2 w."""

    class Penalised(nn.Module):
        def __init__(self, G: nn.Module) -> None:
            super().__init__()
            self.G = G

        def forward(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            return self.G(z, labels), sum(p.square().sum() for p in self.parameters())

    seen = []
    for wrap in (lambda G: G, Penalised):
        gan, real, latents = make()
        gan.generator = wrap(gan.generator)
        gan.generator_optimizer = optimizer = Recorder(gan.generator, 0.0)
        draw_z = iter(latents).__next__
        get_update(scheme)(gan, real, LABELS, draw_z)
        seen.append(optimizer.seen)
        weights = list(gan.generator.parameters())
    for without, penalised, weight in zip(*seen, weights, strict=True):
        torch.testing.assert_close(penalised, without + 2 * weight)


@pytest.mark.parametrize("penalty", [0.0, 2.0])
@pytest.mark.parametrize("scheme", UPDATES)
def test_a_teacher_teaches_the_classifier_of_D_and_nobody_else(scheme: str, penalty: float) -> None:
    """D's loss has the cross-entropy with the teacher's probabilities, and G's gradient stays as it
    is. Without a weight nobody asks the teacher."""
    asked: list[Tensor] = []

    def teacher(images: Tensor) -> Tensor:
        asked.append(images)
        return images.flatten(1)[:, :3].softmax(1)

    seen = []
    for weight in (0.0, 3.0):
        gan, real, latents = make(discriminator_label="projection+auxiliary")
        gan.teacher = teacher
        weights = PenaltyWeights(r1=penalty, r2=penalty, teacher=weight)
        losses = get_update(scheme)(gan, real, LABELS, iter(latents).__next__, weights)
        seen.append((gan.generator_optimizer.seen, gan.discriminator_optimizer.seen))
        assert len(asked) == (weight > 0)
    (of_G, of_D), (taught_G, taught_D) = seen
    assert same(of_G, taught_G)
    G, D = gan.generator, gan.discriminator
    fake = G(latents[1] if scheme == "alternating" else latents[0], LABELS).detach()
    assert torch.equal(asked[0], fake)
    assert not asked[0].requires_grad
    lesson = 3 * cross_entropy(D(fake, LABELS)[:, 1:], teacher(fake))
    torch.testing.assert_close(losses["distillation"], lesson.detach())
    wanted = torch.autograd.grad(lesson, list(D.parameters()), materialize_grads=True)
    for before, after, own in zip(of_D, taught_D, wanted, strict=True):
        torch.testing.assert_close(after - before, own, atol=1e-5, rtol=1e-4)


def test_a_teacher_needs_a_classifier() -> None:
    gan, real, latents = make()
    gan.teacher = lambda images: images.flatten(1)[:, :3].softmax(1)
    taught = gan.discriminator_optimizer
    get_update("simultaneous")(gan, real, LABELS, lambda: latents[0], PenaltyWeights(teacher=3))
    other, _, _ = make()
    get_update("simultaneous")(other, real, LABELS, lambda: latents[0])
    assert same(taught.seen, other.discriminator_optimizer.seen)


def test_without_labels_all_columns_are_logits() -> None:
    """A discriminator of patches returns several logits per image."""
    patches = torch.arange(12.0).view(4, 3)
    logits, aux_loss = discriminate(lambda *_: patches, torch.zeros(4, 1), None)  # type: ignore[arg-type]
    assert torch.equal(logits, patches)
    assert aux_loss == 0


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_discriminator_may_return_a_column(labels: Tensor | None) -> None:
    column = torch.arange(4.0).view(4, 1)
    logits, aux_loss = discriminate(lambda *_: column, torch.zeros(4, 1), labels)  # type: ignore[arg-type]
    assert logits.tolist() == [0, 1, 2, 3]
    assert aux_loss == 0


@pytest.mark.parametrize("scheme", UPDATES)
def test_the_losses_of_the_auxiliary_classifier_are_returned(scheme: str) -> None:
    gan, real, (z, _) = make(discriminator_label="projection+auxiliary")
    G, D = gan.generator, gan.discriminator
    losses = get_update(scheme)(gan, real, LABELS, lambda: z)
    for name, images in (("aux_D", real), ("aux_G", G(z, LABELS))):
        expected = nn.functional.cross_entropy(D(images, LABELS)[:, 1:], LABELS)
        torch.testing.assert_close(losses[name], expected)


@pytest.mark.parametrize("scheme", UPDATES)
def test_both_networks_move_and_everything_is_thawed(scheme: str) -> None:
    gan, real, latents = make(lr=0.1)
    networks = (gan.generator, gan.discriminator)
    before = [[p.clone() for p in network.parameters()] for network in networks]
    get_update(scheme)(gan, real, LABELS, iter(latents).__next__, PenaltyWeights(r1=1.0))
    for network, old in zip(networks, before, strict=True):
        assert not same(list(network.parameters()), old)
        assert all(p.requires_grad for p in network.parameters())


def test_alternating_judges_fakes_of_the_updated_generator_and_simultaneous_of_the_old() -> None:
    shown: dict[str, list[Tensor]] = {}
    for scheme in UPDATES:
        gan, real, latents = make(lr=0.5)
        shown[scheme] = []
        record = shown[scheme]
        gan.discriminator.register_forward_pre_hook(
            lambda _, inputs, record=record: record.append(inputs[0].detach().clone())
        )
        old = build_pair("mlp", image_shape=(1, 8, 8), num_classes=3, latent_dim=4, width=8)[0]
        old.load_state_dict(gan.generator.state_dict())
        get_update(scheme)(
            gan,
            real,
            LABELS,
            iter(latents).__next__,
            PenaltyWeights(),
        )
        with torch.no_grad():
            from_old = old(latents[0], LABELS)
            second = latents[1] if scheme == "alternating" else latents[0]
            from_new = gan.generator(second, LABELS)
        if scheme == "alternating":
            G_turn, D_turn, _ = record
            torch.testing.assert_close(G_turn, from_old)
            torch.testing.assert_close(D_turn, from_new)
        else:
            assert len(record) == 2  # one forward on real pictures, one on fakes
            torch.testing.assert_close(record[0], from_old)
            assert not torch.allclose(record[0], from_new, atol=1e-3)


def test_simultaneous_runs_the_generator_once_and_alternating_twice() -> None:
    for scheme, expected in (("alternating", 2), ("simultaneous", 1)):
        gan, real, latents = make()
        calls: list[int] = []
        gan.generator.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        get_update(scheme)(gan, real, LABELS, iter(latents).__next__, PenaltyWeights())
        assert len(calls) == expected


def test_frozen_network_gets_no_gradient_while_the_other_learns() -> None:
    gan, _, latents = make()
    G, D = gan.generator, gan.discriminator
    with frozen(D):
        loss = D(G(latents[0], LABELS), LABELS).mean()
        assert not any(p.requires_grad for p in D.parameters())
        loss.backward()
    assert all(p.grad is None for p in D.parameters())
    assert all(p.grad is not None for p in G.parameters())
    assert all(p.requires_grad for p in D.parameters())


def test_following_one_loss_leaves_the_other_networks_gradients_untouched() -> None:
    gan, _, latents = make()
    G, D = gan.generator, gan.discriminator
    for p in D.parameters():
        p.grad = torch.full_like(p, 7.0)
    backward_into(G, D(G(latents[0], LABELS), LABELS).mean())
    assert all((p.grad == 7.0).all() for p in D.parameters())


def test_method_one_of_the_notes_cancels_the_generators_gradient() -> None:
    """Both losses backward, then both steps: D's loss takes back from G what G's loss gave."""
    gan, real, latents = make()
    G, D, loss = gan.generator, gan.discriminator, get_loss("nonsaturating")
    fake_logits = D(G(latents[0], LABELS), LABELS)
    loss_G = loss.generator(real=None, fake=fake_logits).mean()
    true = torch.cat([g.flatten() for g in grads_keep(loss_G, G)])
    loss_D = loss.discriminator(real=D(real, LABELS), fake=fake_logits).mean()
    both = torch.cat([g.flatten() for g in grads_keep(loss_G + loss_D, G)])
    from_D = both - true
    assert torch.cosine_similarity(true, from_D, dim=0) < -0.99
    assert both.norm() < 0.25 * true.norm()


def grads_keep(loss: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True))


def test_plain_pair_learns_without_labels() -> None:
    G, D = build_pair("mlp", image_shape=(1, 8, 8), num_classes=None, latent_dim=4, width=8)
    gan = GAN(G, D, Recorder(G, 0.1), Recorder(D, 0.1), get_loss("nonsaturating"))
    for update in UPDATES.values():
        losses = update(
            gan, torch.randn(4, 1, 8, 8), None, lambda: torch.randn(4, 4),
            PenaltyWeights(r1=10.0),
        )  # fmt: skip
        assert losses["penalty"] > 0
        assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("scheme", UPDATES)
def test_r2_works_with_a_generator_that_does_not_learn(scheme: str) -> None:
    gan, real, (z, _) = make()
    gan.generator.requires_grad_(False)
    gan.generator_optimizer = torch.optim.SGD(gan.generator.parameters(), 0.1)
    before = [weight.clone() for weight in gan.generator.parameters()]
    losses = get_update(scheme)(gan, real, LABELS, lambda: z, PenaltyWeights(r2=2.0))
    assert losses["penalty"] > 0
    after = list(gan.generator.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(weight.grad is not None for weight in gan.discriminator.parameters())


def test_names_are_those_of_the_config() -> None:
    assert tuple(UPDATES) == UpdateName.__args__
    with pytest.raises(UnknownNameError, match="did you mean 'simultaneous'"):
        get_update("simultan")


def test_auxiliary_classifier_by_hand() -> None:
    """−log p(y|x) of logits (0, ln 3): ln 4 for class 0, ln 4/3 for class 1; the mean of both."""

    class Fixed(nn.Module):
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            return torch.tensor([[7.0, 0.0, math.log(3)], [8.0, 0.0, math.log(3)]])

    logits, misnamed = discriminate(Fixed(), torch.zeros(2, 1), torch.tensor([0, 1]))
    assert logits.tolist() == [7.0, 8.0]
    assert float(misnamed) == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)


def test_without_auxiliary_classifier_there_is_nothing_to_pay() -> None:
    gan, real, _ = make()
    logits, misnamed = discriminate(gan.discriminator, real, LABELS)
    assert torch.equal(logits, gan.discriminator(real, LABELS))
    assert float(misnamed) == 0


@pytest.mark.parametrize("scheme", UPDATES)
def test_auxiliary_classifier_learns_from_real_pictures_and_teaches_g_with_fakes(
    scheme: str,
) -> None:
    loss = get_loss("nonsaturating")._replace(aux_weight=0.25)  # in G's loss only
    gan, real, (z, _) = make(discriminator_label="auxiliary", loss=loss)
    G, D = gan.generator, gan.discriminator
    get_update(scheme)(gan, real, LABELS, lambda: z, PenaltyWeights(r1=2.0))

    fake = D(G(z, LABELS), LABELS)
    loss_G = loss.generator(real=None, fake=fake[:, 0]).mean()
    loss_G = loss_G + 0.25 * nn.functional.cross_entropy(fake[:, 1:], LABELS)
    for seen, expected in zip(gan.generator_optimizer.seen, grads(loss_G, G), strict=True):  # type: ignore[attr-defined]
        torch.testing.assert_close(seen, expected)

    real.requires_grad_()
    fake, answer = D(G(z, LABELS).detach(), LABELS), D(real, LABELS)
    loss_D = loss.discriminator(real=answer[:, 0], fake=fake[:, 0]).mean()
    loss_D = loss_D + nn.functional.cross_entropy(answer[:, 1:], LABELS)
    loss_D = loss_D + 2.0 * r1(answer[:, 0], real).mean()
    for seen, expected in zip(gan.discriminator_optimizer.seen, grads(loss_D, D), strict=True):  # type: ignore[attr-defined]
        torch.testing.assert_close(seen, expected)


def flags(gan: GAN) -> list[list[bool]]:
    networks = (gan.generator, gan.discriminator)
    return [[p.requires_grad for p in network.parameters()] for network in networks]


@pytest.mark.parametrize("scheme", UPDATES)
@pytest.mark.parametrize("fused", [False, True])
def test_layers_that_the_caller_froze_stay_frozen(scheme: str, fused: bool) -> None:
    """They keep their values, the others learn, and the others' gradients are the usual ones."""
    moved: dict[bool, list[Tensor]] = {}
    for freezes in (False, True):
        gan, real, latents = make(loss="relativistic")
        G, D = gan.generator, gan.discriminator
        layers = [G.hidden[0].weight, *D.head.embedding.parameters()]
        for parameter in layers if freezes else ():
            parameter.requires_grad_(False)
        gan.generator_optimizer, gan.discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), 0.1, fused=fused) for network in (G, D)
        )
        before = [layer.clone() for layer in layers]
        wanted = flags(gan)
        weights = PenaltyWeights(r1=1.0, r2=1.0)
        get_update(scheme)(gan, real, LABELS, iter(latents).__next__, weights)
        assert flags(gan) == wanted
        assert same(before, [layer.detach() for layer in layers]) == freezes
        frozen_ones = {id(layer) for layer in layers}
        everything = [*D.parameters(), *G.parameters()]
        assert all((p.grad is None) == (freezes and id(p) in frozen_ones) for p in everything)
        moved[freezes] = [p.detach() for p in D.parameters() if id(p) not in frozen_ones]
    if scheme == "simultaneous":  # in `alternating` D learns from an updated G, which differs
        assert same(moved[False], moved[True])


@pytest.mark.parametrize("scheme", UPDATES)
@pytest.mark.parametrize("side", [0, 1], ids=["generator", "discriminator"])
def test_a_frozen_network_does_not_move_and_the_other_does(scheme: str, side: int) -> None:
    gan, real, latents = make()
    networks = (gan.generator, gan.discriminator)
    networks[side].requires_grad_(False)
    for name, network in zip(("generator", "discriminator"), networks, strict=True):
        optimizer = torch.optim.Adam(network.parameters(), 0.1, fused=True)
        setattr(gan, f"{name}_optimizer", optimizer)
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    get_update(scheme)(gan, real, LABELS, iter(latents).__next__, PenaltyWeights(r1=1.0))
    still = [
        same(old, [p.detach() for p in network.parameters()])
        for old, network in zip(before, networks, strict=True)
    ]
    assert still == [side == 0, side == 1]
    assert not any(p.requires_grad for p in networks[side].parameters())


def test_a_network_thaws_as_it_was_if_the_block_raises() -> None:
    gan, _, _ = make()
    first, *others = gan.discriminator.parameters()
    first.requires_grad_(False)
    with suppress(ZeroDivisionError), frozen(gan.discriminator):
        assert not any(p.requires_grad for p in gan.discriminator.parameters())
        raise ZeroDivisionError
    assert not first.requires_grad
    assert all(p.requires_grad for p in others)


@pytest.mark.parametrize("scheme", UPDATES)
def test_the_scale_multiplies_all_penalties(scheme: str) -> None:
    def penalty(scale: float) -> Tensor:
        gan, real, latents = make()
        weights = PenaltyWeights(r1=2.0, r2=0.5, scale=scale)
        losses = get_update(scheme)(
            gan, real, LABELS, iter(latents).__next__, weights,
        )  # fmt: skip
        return losses["penalty"]

    assert penalty(1.0) > 0
    assert torch.equal(penalty(0.0), torch.zeros(()))
    assert torch.equal(penalty(0.25), 0.25 * penalty(1.0))  # exact: a power of two


def test_the_auxiliary_loss_leaves_unlabelled_images_out() -> None:
    """D learns the classes of labelled images only; G the classes of all its fakes.

    It is a mean over all images, so the mean over any shards of a batch is that of the batch.
    """
    label = "projection+auxiliary"
    _, D = build_pair(
        "mlp", image_shape=(1, 8, 8), num_classes=3, discriminator_label=label, width=8
    )
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, -1, 2, -1])
    classes = torch.tensor([0, 1, 2, 0])
    log_p = D(images, labels)[:, 1:].log_softmax(1)
    of_real = discriminate(D, images, labels)[1]
    of_fakes = discriminate(D, images, labels, classes)[1]
    torch.testing.assert_close(of_real, -(log_p[0, 0] + log_p[2, 2]) / 4)
    torch.testing.assert_close(of_fakes, -log_p[range(4), classes].mean())


@pytest.mark.parametrize("scheme", UPDATES)
def test_unlabelled_rows_are_judged_without_a_label_and_drawn_with_a_class(scheme: str) -> None:
    """As if D were the plain discriminator in these rows, and G drew the given classes."""
    labels, classes = torch.tensor([-1, 1, -1, 2]), torch.tensor([0, 1, 2, 2])
    shown: dict[str, list[Tensor]] = {"G": [], "D": []}
    gan, real, latents = make(loss="relativistic")
    for name, network in (("G", gan.generator), ("D", gan.discriminator)):
        network.register_forward_pre_hook(
            lambda _, inputs, name=name: shown[name].append(inputs[1])
        )
    get_update(scheme)(
        gan, real, labels, iter(latents).__next__,
        PenaltyWeights(r1=1.0), fake_labels=classes,
    )  # fmt: skip
    assert shown["G"]
    assert all(torch.equal(given, classes) for given in shown["G"])
    assert all(torch.equal(given, labels) for given in shown["D"])
