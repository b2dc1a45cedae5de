"""Distances between two sets of features, each a few lines of float64.

Every function takes features of shape (N, F), any float type, real ones first, and needs nothing
but them: where they come from (``cgan.evaluation.features``) decides what a figure means, so two
figures of different features are never to be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

NEIGHBOURS = 5
"""k of ``manifold_scores``, as Naeem et al. 2020 choose it."""

CHUNK = 1_000
"""Rows of a distance matrix that are in memory at once."""


class Moments(NamedTuple):
    """Mean (F,) and covariance (F, F) of a feature set, in float64."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor) -> Moments:
    """Mean and unbiased covariance of features (N, F), N ≥ 2."""
    features = features.double()
    return Moments(features.mean(0), torch.cov(features.T).view(2 * features.shape[1:]))


def frechet_distance(real: Moments, fake: Moments) -> float:
    """FID: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½). Heusel et al. 2017, equation 6.

    tr (Σ₁ Σ₂)^½ is the sum of the square roots of the eigenvalues of S Σ₂ S with S = Σ₁^½, which is
    symmetric, so two symmetric eigenproblems do. Fréchet distance of two Gaussians, ≥ 0, 0 for
    equal sets.
    """
    values, vectors = torch.linalg.eigh(real.covariance)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    inner = torch.linalg.eigvalsh(root @ fake.covariance @ root)
    overlap = inner.clamp_min(0).sqrt().sum()
    spread = real.covariance.trace() + fake.covariance.trace() - 2 * overlap
    return max(float((real.mean - fake.mean).square().sum() + spread), 0.0)


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """KID: the unbiased squared MMD with the kernel (x·y / F + 1)³. Bińkowski et al. 2018, eq. 4.

    Over all pairs, not over random subsets, so it needs no seed. About 0 for sets of one
    distribution, and then as often below as above it. N ≥ 2 each.
    """
    real, fake = real.double(), fake.double()
    n, m = len(real), len(fake)
    return float(
        _kernel_sum(real, real, skip_self=True) / (n * (n - 1))
        + _kernel_sum(fake, fake, skip_self=True) / (m * (m - 1))
        - 2 * _kernel_sum(real, fake) / (n * m)
    )


def _kernel_sum(x: Tensor, y: Tensor, skip_self: bool = False) -> Tensor:
    """Σ k(xᵢ, yⱼ) over all pairs, or over those with i ≠ j."""

    def kernel(products: Tensor) -> Tensor:
        base = products / x.shape[1] + 1
        return base * base * base  # ten times as fast as ** 3

    total = sum((kernel(rows @ y.T).sum() for rows in x.split(CHUNK)), x.new_zeros(()))
    return total - kernel(x.square().sum(1)).sum() if skip_self else total


class Manifold(NamedTuple):
    """Fidelity (precision, density) and diversity (recall, coverage), apart."""

    precision: float
    """Share of generated pictures inside the real manifold; in [0, 1]."""
    recall: float
    """Share of real pictures inside the generated manifold; in [0, 1]."""
    density: float
    """How many real neighbourhoods hold a generated picture, over k; ≥ 0, about 1 if equal."""
    coverage: float
    """Share of real pictures with a generated one in their neighbourhood; in [0, 1]."""


def manifold_scores(real: Tensor, fake: Tensor, neighbours: int = NEIGHBOURS) -> Manifold:
    """Precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2), density and coverage
    (Naeem et al. 2020, equations 3 and 5).

    A set's manifold is the union of the balls around its points that reach to each one's k-th
    nearest neighbour in the same set (the point itself not counted). Sets of equal size are
    compared fairly; each needs more than ``neighbours`` points.
    """
    real, fake = real.double(), fake.double()
    real_radius, fake_radius = (_radius(points, neighbours) for points in (real, fake))
    inside_real = torch.zeros(len(fake), dtype=torch.int64, device=real.device)
    recalled = covered = 0
    for rows, radius in zip(real.split(CHUNK), real_radius.split(CHUNK), strict=True):
        distances = torch.cdist(rows, fake)
        in_ball = distances <= radius[:, None]
        inside_real += in_ball.sum(0)
        covered += int(in_ball.any(1).sum())
        recalled += int((distances <= fake_radius).any(1).sum())
    return Manifold(
        precision=float((inside_real > 0).double().mean()),
        recall=recalled / len(real),
        density=float(inside_real.double().mean()) / neighbours,
        coverage=covered / len(real),
    )


def _radius(points: Tensor, neighbours: int) -> Tensor:
    """Distance of each point to its k-th nearest other: (N,)."""
    # A point is its own nearest at distance 0, hence one more.
    return torch.cat(
        [
            torch.cdist(rows, points).kthvalue(neighbours + 1, dim=1).values
            for rows in points.split(CHUNK)
        ]
    )


def diversity_ratio(real: Tensor, fake: Tensor) -> float:
    """Spread of the generated features over that of the real ones: √(tr Σ_fake / tr Σ_real).

    For one class: 1 where it is as varied as the real one, 0 where every picture is the same.
    ≥ 0; features that never vary in the real set make it not a number.
    """
    real, fake = real.double(), fake.double()
    spread = fake.var(0).sum() / real.var(0).sum()
    return float(spread.sqrt())


@dataclass(frozen=True)
class Nearest:
    """For each query, the nearest point of a reference: distance (N,) and index (N,)."""

    distance: Tensor
    index: Tensor


def nearest(queries: Tensor, reference: Tensor) -> Nearest:
    """The Euclidean nearest neighbour of each query (N, F) among the reference (M, F).

    The candidate is found in float32, centred so that a common shift costs no digits; its distance
    is then counted in float64: a copy is exactly 0.
    """
    centre = reference.double().mean(0)
    points, near = ((found.double() - centre).float() for found in (queries, reference))
    lengths = near.square().sum(1)
    index = torch.cat([(lengths - 2 * rows @ near.T).argmin(1) for rows in points.split(CHUNK)])
    return Nearest((queries.double() - reference[index].double()).norm(dim=1), index)


def copied_share(distance: Tensor, held_out_distance: Tensor, quantile: float = 0.01) -> float:
    """Share of pictures nearer to a training picture than the nearest 1 % of held-out ones are.

    About ``quantile`` where pictures are as new as held-out real ones, 1 where all are copies.
    After the data-copying test of Meehan et al. 2020. Distances (N,) and (M,) from ``nearest``.
    """
    threshold = torch.quantile(held_out_distance.double(), quantile)
    return float((distance.double() <= threshold).double().mean())


class Interval(NamedTuple):
    """Where a share lies with 95 % confidence."""

    low: float
    high: float


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> Interval:
    """The 95 % interval of a share, sound near 0 and 1 too: Wilson 1927."""
    share, z2 = successes / trials, z * z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = z / (1 + z2 / trials) * (share * (1 - share) / trials + z2 / (4 * trials**2)) ** 0.5
    return Interval(max(middle - reach, 0.0), min(middle + reach, 1.0))
