"""The flow: its density, its KL divergence, and what steering leaves alone."""

import copy
import math

import pytest
import torch
from torch import nn

from cgan.config import ModelConfig
from cgan.models import build_pair, steer_generator
from cgan.models.flow import AffineCoupling, Flow, SteeredGenerator
from cgan.updates import generate


def flow(latent_dim: int = 6, classes: int = 3, blocks: int = 2, scale: float = 0.3) -> Flow:
    """A flow that is not the identity."""
    torch.manual_seed(0)
    made = Flow(latent_dim, classes, blocks, width=16)
    with torch.no_grad():
        for coupling in [*made.change_first, *made.change_second]:
            coupling.out.weight.normal_(0, scale)
            coupling.out.bias.normal_(0, scale)
    return made


def test_it_starts_as_the_identity_up_to_the_order_and_without_divergence() -> None:
    u = torch.randn(5, 7)
    z, kl = Flow(7, 3, blocks=3, width=8).with_kl(u, torch.tensor([0, 1, 2, 0, 1]))
    assert torch.equal(z.sort(1).values, u.sort(1).values)
    assert torch.allclose(kl, torch.zeros(5), atol=1e-5)


def test_a_coupling_computed_by_hand() -> None:
    coupling = AffineCoupling(1, 2, num_classes=2, width=4)
    with torch.no_grad():
        coupling.out.bias.copy_(torch.tensor([0.5, -0.25, 2.0, 3.0]))  # two of s, two of t
    x2, log_scale = coupling(torch.tensor([[9.0]]), torch.tensor([[1.0, 4.0]]), torch.tensor([1]))
    s = [math.tanh(value) for value in (0.5, -0.25)]
    assert x2.tolist()[0] == pytest.approx([math.exp(s[0]) + 2, 4 * math.exp(s[1]) + 3])
    assert log_scale.tolist()[0] == pytest.approx(s)


@pytest.mark.parametrize("latent_dim", [2, 5, 6])
def test_the_divergence_uses_the_determinant_of_the_jacobian(latent_dim: int) -> None:
    made = flow(latent_dim).double()
    u = torch.randn(latent_dim, dtype=torch.float64)
    label = torch.tensor([2])
    jacobian = torch.autograd.functional.jacobian(lambda v: made(v[None], label)[0], u)
    z, kl = made.with_kl(u[None], label)
    log_det = torch.linalg.slogdet(jacobian).logabsdet
    wanted = 0.5 * (z.square().sum() - u.square().sum()) - log_det
    assert kl.item() == pytest.approx(wanted.item(), rel=1e-9)


def test_the_mean_divergence_of_a_shift_and_a_scale_is_that_of_two_gaussians() -> None:
    made = Flow(2, 1, blocks=1, width=4).double()
    with torch.no_grad():
        made.change_first[0].out.bias.copy_(torch.tensor([0.6, 1.5]))
    u = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = math.tanh(0.6)
    wanted = 0.5 * (math.exp(2 * s) + 1.5**2 - 1) - s  # KL(N(1.5, e^2s) ‖ N(0, 1))
    measured = made.with_kl(u, torch.zeros(len(u), dtype=torch.int64))[1].mean()
    assert measured.item() == pytest.approx(wanted, rel=0.01)


def test_every_dimension_reaches_every_other_one() -> None:
    made = flow(latent_dim=9, blocks=4)
    u = torch.randn(9)
    jacobian = torch.autograd.functional.jacobian(lambda v: made(v[None], torch.tensor([0]))[0], u)
    assert (jacobian != 0).all()


def test_z_depends_on_the_class() -> None:
    u = torch.randn(1, 6)
    first, second = (flow()(u, torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(first, second)


def plain() -> nn.Module:
    return build_pair("dcgan", image_shape=(1, 8, 8), num_classes=None, latent_dim=6, width=4)[0]


def test_the_generator_is_frozen_and_keeps_its_statistics() -> None:
    generator = plain()
    before = copy.deepcopy(generator.state_dict())
    steered = SteeredGenerator(generator, flow(), kl_weight=0.5)
    steered.train()
    images, penalty = generate(steered, torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    (images.mean() + penalty).backward()
    assert all(weight.grad is None for weight in generator.parameters())
    assert all(weight.grad is not None for weight in steered.flow.parameters())
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
    assert not any(module.training for module in generator.modules())


def test_the_penalty_is_the_weighted_mean_divergence() -> None:
    chosen, u, labels = flow(), torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    _, penalty = generate(SteeredGenerator(plain(), chosen, kl_weight=0.5), u, labels)
    assert torch.allclose(penalty, 0.5 * chosen.with_kl(u, labels)[1].mean())


class Opaque(nn.Module):
    """2 z as an image, without a gradient."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return 2 * z.detach()[:, None, None]


class Imitation(nn.Module):
    """w · z as an image."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(3.0))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.w * z[:, None, None]


def test_a_surrogate_gives_the_gradient_and_the_generator_the_images() -> None:
    chosen, u, labels = flow(), torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    steered = SteeredGenerator(Opaque(), chosen, kl_weight=0.0, surrogate=Imitation())
    images, penalty = generate(steered, u, labels)
    z = chosen(u, labels)
    assert torch.allclose(images, 2 * z[:, None, None])
    assert penalty.item() == pytest.approx(z.square().mean().item())  # (3 z − 2 z)²

    w, weight = steered.surrogate.w, chosen.change_first[0].out.weight
    (of_images,) = torch.autograd.grad(images.sum(), weight, retain_graph=True)
    (wanted,) = torch.autograd.grad(3 * z.sum(), weight)
    assert torch.allclose(of_images, wanted, rtol=1e-4)
    of_penalty = torch.autograd.grad(penalty, [w, weight], allow_unused=True, retain_graph=True)
    assert of_penalty[0].item() == pytest.approx(2 * z.square().mean().item())
    assert of_penalty[1] is None or not of_penalty[1].any()  # it does not teach the flow
    assert torch.autograd.grad(images.sum(), w, allow_unused=True) == (None,)


def test_it_draws_what_the_generator_draws_from_the_chosen_z() -> None:
    generator, chosen = plain().eval(), flow()
    steered = SteeredGenerator(generator, chosen).eval()
    u, labels = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    assert torch.equal(steered(u, labels), generator(chosen(u, labels)))


def test_other_generators_have_no_penalty() -> None:
    images, penalty = generate(plain(), torch.randn(2, 6), None)
    assert images.shape == (2, 1, 8, 8)
    assert penalty.item() == 0


def test_built_from_a_config() -> None:
    model = ModelConfig(latent_dim=6, flow_blocks=3, flow_width=8)
    made = steer_generator(plain(), model, classes=5, kl_weight=0.0).flow
    assert len(made.change_first) == len(made.change_second) == 3
    assert made.change_second[0].first.out_features == 8
    assert made.change_second[0].embedding.num_embeddings == 5
