"""A conditional normalising flow, and the generator that it steers.

The flow f(u, y) maps u ~ N(0, I) to a latent vector z that a generator without labels draws as
class y. It is invertible with a known Jacobian, so the density of z is known too.
Dinh et al. 2017, "Density estimation using Real NVP"; with a class: Ardizzone et al. 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from cgan.models.conditioning import embed_labels
from cgan.models.freeze import frozen

MAX_LOG_SCALE = 1.5
"""Largest absolute log-scale of one coupling, so that a step cannot make it overflow."""
EMBEDDING_STD = 0.5
"""Standard deviation of the initial embeddings: about that of the first layer's other inputs."""


class AffineCoupling(nn.Module):
    """x₂ ↦ x₂ · exp(s(x₁, y)) + t(x₁, y): Dinh et al. 2017, equations 7 and 8.

    The label enters as a bias of the first layer, which equals an embedding that is concatenated to
    x₁, and is faster. Shapes: x₁ (B, given), x₂ (B, changed), y (B,). It starts as the identity.
    """

    def __init__(self, given: int, changed: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(given, width)
        self.embedding = nn.Embedding(num_classes, width)
        nn.init.normal_(self.embedding.weight, 0.0, EMBEDDING_STD)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, 2 * changed)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x1: Tensor, x2: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The new x₂, and log |det J|, (B,)."""
        h = silu(self.first(x1) + embed_labels(labels, self.embedding.weight))
        s, t = self.out(silu(self.second(h))).chunk(2, dim=1)
        s = MAX_LOG_SCALE * torch.tanh(s / MAX_LOG_SCALE)
        return torch.addcmul(t, x2, s.exp()), s.sum(1)


class Latents(NamedTuple):
    """Latent vectors of a flow."""

    z: Tensor
    """(B, latent_dim)."""
    kl: Tensor
    """log q(z|y) − log N(z; 0, I), (B,); its mean over u is the KL divergence, in nats."""


class Flow(nn.Module):
    """z = f(u, y): u (B, latent_dim) and y (B,) to z (B, latent_dim).

    Each block changes one half of the dimensions given the other, and then the other way round.
    The halves are the even and the odd dimensions of the block before, so they mix.

    Args:
        latent_dim: length of u and z, at least 2.
        num_classes: number of labels.
        blocks: pairs of couplings.
        width: hidden units of each coupling.
    """

    def __init__(self, latent_dim: int, num_classes: int, blocks: int, width: int) -> None:
        super().__init__()
        odd = latent_dim // 2
        even = latent_dim - odd
        self.change_odd = nn.ModuleList(
            AffineCoupling(even, odd, num_classes, width) for _ in range(blocks)
        )
        self.change_even = nn.ModuleList(
            AffineCoupling(odd, even, num_classes, width) for _ in range(blocks)
        )

    def forward(self, u: Tensor, labels: Tensor) -> Latents:
        """Map u to z. Of u ~ N(0, I), log q(z|y) is log N(u; 0, I) − log |det J|."""
        z, log_det = u, u.new_zeros(len(u))
        for change_odd, change_even in zip(self.change_odd, self.change_even, strict=True):
            even, odd = z[:, ::2], z[:, 1::2]
            odd, first = change_odd(even, odd, labels)
            even, second = change_even(odd, even, labels)
            z, log_det = torch.cat([even, odd], dim=1), log_det + first + second
        kl = 0.5 * (z.square().sum(1) - u.square().sum(1)) - log_det
        return Latents(z, kl)


class SteeredGenerator(nn.Module):
    """G(f(u, y)): a generator without labels, whose latent vectors a flow chooses by class.

    The generator is frozen: it has no gradient and stays in evaluation mode.

    A generator that cannot be differentiated gets a surrogate, which learns to draw what it draws.
    Images are still the generator's, but gradients with respect to z are those of the surrogate
    (a straight-through estimator: Bengio et al. 2013).

    Args:
        generator: z (B, latent_dim) to images (B, C, H, W) in [-1, 1].
        flow: chooses z.
        kl_weight: weight of the KL divergence in the penalty.
        surrogate: a network with the interface of the generator; None differentiates the generator.
    """

    def __init__(
        self,
        generator: nn.Module,
        flow: Flow,
        kl_weight: float = 0.0,
        surrogate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator.requires_grad_(False)
        self.flow, self.kl_weight, self.surrogate = flow, kl_weight, surrogate
        self.train()

    def train(self, mode: bool = True) -> SteeredGenerator:
        """Set the mode of the flow and the surrogate."""
        super().train(mode)
        self.generator.eval()
        return self

    def forward(self, u: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Generate one image per row of u.

        In training mode it also returns a penalty, a scalar: the weighted mean of ``Latents.kl``,
        plus the mean squared error of the surrogate.
        """
        z, kl = self.flow(u, labels)
        if not self.training:
            images: Tensor = self.generator(z)
            return images
        penalty = self.kl_weight * kl.mean()
        if self.surrogate is None:
            return self.generator(z), penalty
        with torch.no_grad():
            images = self.generator(z)
        penalty = penalty + (self.surrogate(z.detach()) - images).square().mean()
        with frozen(self.surrogate):
            imitated = self.surrogate(z)
        return images + (imitated - imitated.detach()), penalty
