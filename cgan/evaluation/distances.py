"""Distances between two sets of features: FID, KID, precision, recall, density, coverage.

Every function takes features of shape (N, F) of any float type, real ones first, and computes in
float64. The values depend on the feature network (``cgan.evaluation.features``): do not compare
values of different networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import bdtrc
from scipy.stats import beta, t
from torch import Tensor

NEIGHBOURS = 5
"""k of ``manifold_scores``: the value of Naeem et al. 2020."""

SCARCE = 0.05
"""Fraction of the images whose classes may have too few images for ``matched_counts``."""

CHUNK = 1_000
"""Rows of a distance matrix that are held in memory at once."""


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

    tr (Σ₁ Σ₂)^½ is the sum of the square roots of the eigenvalues of S Σ₂ S with S = Σ₁^½. Both Σ₁
    and S Σ₂ S are symmetric, so ``eigh`` is enough. This is the Fréchet distance of two Gaussians:
    ≥ 0, and 0 for equal sets.
    """
    values, vectors = torch.linalg.eigh(real.covariance)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    inner = torch.linalg.eigvalsh(root @ fake.covariance @ root)
    overlap = inner.clamp_min(0).sqrt().sum()
    spread = real.covariance.trace() + fake.covariance.trace() - 2 * overlap
    return max(float((real.mean - fake.mean).square().sum() + spread), 0.0)


def kernel_distance(
    real: Tensor,
    fake: Tensor,
    real_labels: Tensor | None = None,
    fake_labels: Tensor | None = None,
) -> float:
    """KID: the unbiased squared MMD with the kernel (x·y / F + 1)³. Bińkowski et al. 2018, eq. 4.

    It uses all pairs instead of random subsets, so it needs no seed. Its mean is 0 if both sets
    have the same distribution, so it can be negative. Each set needs N ≥ 2.

    Args:
        real, fake: features (N, F) and (M, F).
        real_labels, fake_labels: the classes, int64 (N,) and (M,), of sets whose number of images
            of each class is fixed. Two different images of such a set are of the same class less
            often than two independent ones: pairs within a class get that weight back, or the
            estimate would be too low. None means independent draws.
    """
    real, fake = real.double(), fake.double()
    return float(
        _mean_kernel(real, real_labels)
        + _mean_kernel(fake, fake_labels)
        - 2 * _kernel_sum(real, fake) / (len(real) * len(fake))
    )


def _mean_kernel(x: Tensor, labels: Tensor | None) -> Tensor:
    """The unbiased estimate of E k(x, x′) for independent x and x′.

    With n_k of n images in class k it is Σ_k (n_k / n)² · mean of the pairs within k, plus the
    pairs of different classes, each with the weight 1 / n². A class with one image has no pair, so
    its part of the weight goes to all others.
    """
    n, total = len(x), _kernel_sum(x, x, skip_self=True)
    if labels is None:
        return total / (n * (n - 1))
    counts = labels.bincount()
    for label in (counts > 1).nonzero().flatten():
        rows = x[labels == label]
        total = total + _kernel_sum(rows, rows, skip_self=True) / (len(rows) - 1)
    return total / (n**2 - int((counts == 1).sum()))


def _kernel_sum(x: Tensor, y: Tensor, skip_self: bool = False) -> Tensor:
    """Σ k(xᵢ, yⱼ) over all pairs, or over those with i ≠ j."""

    def kernel(products: Tensor) -> Tensor:
        base = products / x.shape[1] + 1
        return base * base * base  # ten times faster than ** 3

    total = sum((kernel(rows @ y.T).sum() for rows in x.split(CHUNK)), x.new_zeros(()))
    return total - kernel(x.square().sum(1)).sum() if skip_self else total


class Manifold(NamedTuple):
    """Separate scores for fidelity (precision, density) and diversity (recall, coverage)."""

    precision: float
    """Fraction of generated images inside the real manifold, in [0, 1]."""
    recall: float
    """Fraction of real images inside the generated manifold, in [0, 1]."""
    density: float
    """Mean number of real balls that contain a generated image, divided by k; ≥ 0, about 1 if the
    distributions are equal."""
    coverage: float
    """Fraction of real images whose ball contains a generated image, in [0, 1]."""


def manifold_scores(real: Tensor, fake: Tensor, neighbours: int = NEIGHBOURS) -> Manifold:
    """Precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2), density and coverage
    (Naeem et al. 2020, equations 3 and 5).

    The manifold of a set is the union of the balls around its points. The radius of a ball is the
    distance to the k-th nearest other point of the set. Use sets of equal size; each needs more
    than ``neighbours`` points.
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
    """Distance of each point to its k-th nearest neighbour: (N,)."""
    # Each point is its own nearest neighbour, at distance 0, so take k + 1.
    return torch.cat(
        [
            torch.cdist(rows, points).kthvalue(neighbours + 1, dim=1).values
            for rows in points.split(CHUNK)
        ]
    )


def diversity_ratio(real: Tensor, fake: Tensor) -> float:
    """Spread of the generated features relative to the real ones: √(tr Σ_fake / tr Σ_real) ≥ 0.

    For one class: 1 if generated images vary as much as real ones, 0 if all are the same. It is
    infinite or NaN if the real features do not vary.
    """
    real, fake = real.double(), fake.double()
    spread = fake.var(0).sum() / real.var(0).sum()
    return float(spread.sqrt())


def matched_counts(available: Tensor, proportions: Tensor) -> Tensor:
    """Images to take of each class, so that the label proportions are as given.

    Args:
        available: images of each class, int64 (K,).
        proportions: any multiple of the wanted label proportions, int64 (K,).

    Returns:
        the largest counts ≤ ``available`` in these proportions, rounded down: int64 (K,). Classes
        that are not available do not count. The scarcest classes, with at most ``SCARCE`` of all
        wanted images together, may get fewer: otherwise a single class with few training images
        would decide how many images of all classes are compared.
    """
    wanted = torch.where(available > 0, proportions, 0)
    if not wanted.any():
        return wanted
    ratio = torch.where(wanted > 0, available / wanted.clamp_min(1), torch.inf)
    order = ratio.argsort(stable=True)
    passed = wanted[order].cumsum(0) <= SCARCE * int(wanted.sum())
    limiting = order[int(passed.sum())]
    counts = wanted * available[limiting] // wanted[limiting]
    return torch.minimum(counts.clamp_min(1), available).where(wanted > 0, 0)


@dataclass(frozen=True)
class Nearest:
    """Nearest reference image of each query: distance (N,), index (N,), and whether it is the
    mirror image that is near (N,)."""

    distance: Tensor
    index: Tensor
    flipped: Tensor


def copied_share(distance: Tensor, held_out_distance: Tensor, quantile: float = 0.01) -> float:
    """Fraction of generated images closer to a training image than 99 % of held-out images are.

    About ``quantile`` if generated images are as new as held-out ones, 1 if all are copies. Based
    on the data-copying test of Meehan et al. 2020. Distances (N,) and (M,) are from
    ``cgan.evaluation.features.nearest_image``.
    """
    threshold = torch.quantile(held_out_distance.double(), quantile)
    return float((distance.double() <= threshold).double().mean())


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> Interval:
    """The 95 % confidence interval of a proportion, also valid near 0 and 1: Wilson 1927."""
    share, z2 = successes / trials, z * z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = z / (1 + z2 / trials) * (share * (1 - share) / trials + z2 / (4 * trials**2)) ** 0.5
    return Interval(max(middle - reach, 0.0), min(middle + reach, 1.0))


def ratio_interval(first: float, first_trials: int, second: float, second_trials: int) -> Interval:
    """The 95 % confidence interval of the ratio of two independent proportions.

    It combines the Wilson intervals of both: Donner and Zou 2012, "Closed-form confidence intervals
    for functions of the normal mean and standard deviation", section 2 (MOVER-R).

    Args:
        first, second: the proportions, in [0, 1] and (0, 1].
        first_trials, second_trials: their numbers of trials.
    """
    low, high = wilson_interval(round(first * first_trials), first_trials)
    low2, high2 = wilson_interval(round(second * second_trials), second_trials)
    product = first * second

    def bound(of_first: float, of_second: float, sign: float) -> float:
        spread = of_first * of_second * (2 * first - of_first) * (2 * second - of_second)
        root: float = max(product * product - spread, 0.0) ** 0.5
        return (product + sign * root) / (of_second * (2 * second - of_second))

    return Interval(bound(low, high2, -1.0), bound(high, low2, 1.0))


@dataclass(frozen=True)
class Difference:
    """A mean difference of two accuracies, and its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_difference(first: Tensor, second: Tensor, labels: Tensor) -> Difference:
    """How much more often the first of two classifiers is right, as a mean over the classes.

    Both are trained with the same seeds and see the same images, so the difference of each pair
    counts. The variance is that of the images, within each class, plus that of the seeds; the
    interval is Student's, with the degrees of freedom of Satterthwaite 1946. Few seeds hardly know
    their spread: a bootstrap of three would be too narrow.

    Args:
        first, second: whether each image is right, (seeds, N) each; at least two seeds.
        labels: the class of each image, int64 (N,).
    """
    difference = first.double() - second.double()
    by_class = [difference[:, labels == label] for label in labels.unique().tolist()]
    seeds, classes = len(difference), len(by_class)
    per_seed = torch.stack([one.mean(1) for one in by_class]).mean(0)
    parts = [(float(per_seed.var()) / seeds, seeds - 1)]  # variances, degrees of freedom
    for one in by_class:
        count = one.shape[1]
        # Few images that agree do not know that all do: one of them may be the exception.
        spread = max(float(one.mean(0).var()), 1 / count) if count > 1 else 1.0
        parts.append((spread / count / classes**2, max(count - 1, 1)))
    mean, variance = float(per_seed.mean()), sum(part for part, _ in parts)
    degrees = variance**2 / sum(part**2 / free for part, free in parts)
    half = float(t.ppf(0.975, degrees)) * variance**0.5
    return Difference(mean, max(mean - half, -1.0), min(mean + half, 1.0))


def minimum_interval(successes: Sequence[int], trials: Sequence[int]) -> Interval:
    """An interval that holds the smallest of several proportions with at least 95 % confidence.

    The lower end is the smallest of the lower ends of exact 95 % intervals (Clopper and Pearson
    1934): that of the smallest proportion is among them. The smallest observed share is too low,
    because the worst of several was chosen. So the upper end shares its error among all
    proportions that may be the smallest (Bonferroni).
    """
    k, n = np.asarray(successes), np.asarray(trials)
    low = np.where(k > 0, beta.ppf(0.025, np.maximum(k, 1), n - k + 1), 0.0)
    high = np.where(k < n, beta.ppf(0.975, k + 1, np.maximum(n - k, 1)), 1.0)
    candidates = int((low <= high.min()).sum())
    top = beta.ppf(1 - 0.025 / candidates, k + 1, np.maximum(n - k, 1))
    return Interval(float(low.min()), float(np.where(k < n, top, 1.0).min()))


def frechet_difference(real: Tensor, first: Tensor, second: Tensor) -> tuple[float, Interval]:
    """FID of ``second`` minus that of ``first``, against the same real features, and its interval.

    FID is the squared Wasserstein distance of two Gaussians, so its change with one image is a
    Kantorovich potential of that distance, and the variance follows from all of them (the delta
    method; Rippl, Munk and Sturm 2016, "Limit laws of the empirical Wasserstein distance: Gaussian
    distributions"). The 95 % interval is that of FID at this number of images: FID of few images
    is too high, for both.

    Args:
        real: features (N, F), more than F of them.
        first, second: features (M, F), more than F of each; row i of both has the same z, so that
            what both have in common cancels.
    """
    target = moments(real)
    values, changes, real_changes = [], [], []
    for features in (first, second):
        own = moments(features)
        values.append(frechet_distance(target, own))
        changes.append(_frechet_changes(features, own, target))
        real_changes.append(_frechet_changes(real, target, own))
    pairs = (changes, real_changes)
    variance = sum(float((one[1] - one[0]).var() / len(one[0])) for one in pairs)
    difference, reach = values[1] - values[0], 1.959964 * variance**0.5
    return difference, Interval(difference - reach, difference + reach)


def _frechet_changes(features: Tensor, own: Moments, other: Moments) -> Tensor:
    """By how much more of each image would change the distance of its set to another one: (N,).

    (x − μ)ᵀ(I − T)(x − μ) + 2 (μ − μ′)ᵀ(x − μ), where T maps the one Gaussian to the other.
    """
    centred = features.double() - own.mean
    values, vectors = torch.linalg.eigh(own.covariance)
    values = values.clamp_min(1e-10 * float(values.max()))
    root, inverse = (vectors * values**power @ vectors.T for power in (0.5, -0.5))
    inner, axes = torch.linalg.eigh(root @ other.covariance @ root)
    middle = axes * inner.clamp_min(0).sqrt() @ axes.T
    transport = inverse @ middle @ inverse
    matrix = torch.eye(len(own.mean), dtype=torch.float64) - transport
    quadratic: Tensor = (centred @ matrix * centred).sum(1)
    return quadratic + 2 * centred @ (own.mean - other.mean)


def expected_minimum(classes: int, trials: int, chance: float) -> float:
    """Expected smallest share of successes of ``classes`` independent proportions.

    Each has ``trials`` trials with the probability ``chance``. It is below ``chance``, because the
    worst of several is chosen: E[min] = Σ_{n ≥ 1} P(X ≥ n)^classes / trials.
    """
    at_least = bdtrc(np.arange(trials), trials, chance)  # P(X > 0), …, P(X > trials − 1)
    return float((at_least**classes).sum() / trials)
