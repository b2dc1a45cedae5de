"""Distances against values worked by hand, plain loops, other packages and planted faults."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

from cgan.evaluation import distances
from cgan.evaluation.distances import (
    Manifold,
    Moments,
    copied_share,
    diversity_ratio,
    expected_minimum,
    frechet_difference,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    matched_counts,
    minimum_interval,
    moments,
    paired_difference,
    ratio_interval,
    wilson_interval,
)


def points(count: int, width: int = 6, seed: int = 0) -> Tensor:
    """Correlated normal features with a mean, so that no covariance is diagonal."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return normal @ torch.randn(width, width, generator=generator, dtype=torch.float64) + 0.5


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def gaussian(mean: list[float], deviations: list[float]) -> Moments:
    diagonal = torch.tensor(deviations, dtype=torch.float64).square().diag()
    return Moments(torch.tensor(mean, dtype=torch.float64), diagonal)


REAL, FAKE = points(60), points(50, seed=1)


def frechet(real: Tensor, fake: Tensor) -> float:
    return frechet_distance(moments(real), moments(fake))


# Fréchet distance


@pytest.mark.parametrize(
    ("mean", "deviation", "other_mean", "other_deviation", "expected"),
    [(0, 1, 3, 1, 9.0), (2, 1, 2, 4, 9.0), (-1, 2, 1, 5, 13.0), (0, 0, 1, 2, 5.0)],
)
def test_frechet_of_1d_gaussians_is_squared_mean_and_deviation_gaps(
    mean: float, deviation: float, other_mean: float, other_deviation: float, expected: float
) -> None:
    first, second = gaussian([mean], [deviation]), gaussian([other_mean], [other_deviation])
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_diagonal_gaussians_adds_up_over_the_axes() -> None:
    first, second = gaussian([0, 1, 2], [1, 2, 3]), gaussian([1, 1, 0], [3, 2, 7])
    assert frechet_distance(first, second) == pytest.approx((1 + 0 + 4) + (4 + 0 + 16))


def test_moments_by_hand() -> None:
    mean, covariance = moments(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
    assert mean.tolist() == [1, 2]
    assert covariance.tolist() == [[2, 4], [4, 8]]  # over N − 1


def test_frechet_of_1d_sets_by_hand() -> None:
    """Means 0 and 2, unbiased variances 2 and 8: 4 + (√2 − 2√2)²."""
    assert frechet(column(-1, 1), column(0, 4)) == pytest.approx(6)


def test_frechet_is_the_formula_with_a_matrix_square_root() -> None:
    (mean, covariance), (other_mean, other) = (
        (features.numpy().mean(0), np.cov(features.numpy(), rowvar=False))
        for features in (REAL, FAKE)
    )
    root = scipy.linalg.sqrtm(covariance @ other)
    expected = ((mean - other_mean) ** 2).sum() + np.trace(covariance + other - 2 * root.real)
    assert frechet(REAL, FAKE) == pytest.approx(expected, rel=1e-10)


def test_frechet_of_fewer_pictures_than_features() -> None:
    """Singular covariances, AᵀA and BᵀB: tr (Σ₁Σ₂)^½ is then the nuclear norm of ABᵀ."""
    real, fake = points(10, width=40), points(12, width=40, seed=1)
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (real, fake))
    overlap = torch.linalg.matrix_norm(a @ b.T, "nuc")
    expected = (real.mean(0) - fake.mean(0)).square().sum() + a.square().sum() + b.square().sum()
    # A zero eigenvalue comes out as ± 1e-16 of the largest; its root is 1e-8.
    assert frechet(real, fake) == pytest.approx(float(expected - 2 * overlap), rel=1e-6)


def test_frechet_of_equal_sets_is_0_and_never_below() -> None:
    for features in (REAL, points(10, width=40), torch.ones(3, 2)):
        assert 0 <= frechet(features, features.flip(0)) < 1e-5


def test_frechet_is_symmetric_and_sees_no_rotation_or_common_shift() -> None:
    expected = frechet(REAL, FAKE)
    rotation = torch.linalg.qr(points(6)).Q
    assert frechet(FAKE, REAL) == pytest.approx(expected, rel=1e-10)
    assert frechet(REAL @ rotation, FAKE @ rotation) == pytest.approx(expected, rel=1e-10)
    # In float32 a mean of 1000 leaves a covariance of about 1 few digits.
    assert frechet(REAL + 1000, FAKE + 1000) == pytest.approx(expected, rel=1e-8)


def test_frechet_is_that_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.image.fid")._compute_fid
    expected = theirs(*moments(REAL), *moments(FAKE))
    assert frechet(REAL, FAKE) == pytest.approx(float(expected), rel=1e-10)


def test_frechet_is_that_of_torch_fidelity() -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    statistics = (theirs.fid_features_to_statistics(features) for features in (REAL, FAKE))
    (expected,) = theirs.fid_statistics_to_metric(*statistics, verbose=False).values()
    assert frechet(REAL, FAKE) == pytest.approx(expected, rel=1e-10)


# Kernel distance


def test_kernel_distance_by_hand() -> None:
    """(xy + 1)³: 1 among 0 and 1, 343 among 2 and 3, 1, 1, 27, 64 across."""
    assert kernel_distance(column(0, 1), column(2, 3)) == 1 + 343 - 2 * 93 / 4


def test_kernel_distance_of_unequal_sets_by_hand() -> None:
    """Two features halve each product. An unbiased estimate may be negative."""
    real = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # 1
    fake = torch.tensor([[2.0, 2.0], [0.0, 0.0], [2.0, 0.0]])  # 1, 27, 1
    across = 8 + 1 + 8 + 27 + 1 + 1
    assert kernel_distance(real, fake) == pytest.approx(1 + 29 / 3 - 2 * across / 6)


def test_kernel_distance_is_the_mean_over_pairs() -> None:
    def mean(first: Tensor, second: Tensor, same: bool) -> float:
        kernels = [
            (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3
            for i, x in enumerate(first.tolist())
            for j, y in enumerate(second.tolist())
            if not (same and i == j)
        ]
        return sum(kernels) / len(kernels)

    expected = mean(REAL, REAL, True) + mean(FAKE, FAKE, True) - 2 * mean(REAL, FAKE, False)
    assert kernel_distance(REAL, FAKE) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_symmetric_and_blind_to_order() -> None:
    expected = kernel_distance(REAL, FAKE)
    assert kernel_distance(FAKE, REAL) == pytest.approx(expected, rel=1e-10)
    assert kernel_distance(REAL.flip(0), FAKE) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased() -> None:
    """0 in the mean for sets of one distribution; pairs of a point with itself would raise it."""
    generator = torch.Generator().manual_seed(0)
    sets = torch.randn(500, 2, 6, 3, generator=generator)
    found = torch.tensor([kernel_distance(real, fake) for real, fake in sets])
    assert abs(found.mean()) < 3 * found.std() / len(found) ** 0.5
    assert (found < 0).any()


def test_kernel_distance_is_that_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.image.kid").poly_mmd
    real = REAL[: len(FAKE)]  # theirs takes sets of one size only
    assert kernel_distance(real, FAKE) == pytest.approx(float(theirs(real, FAKE)), rel=1e-10)


def test_kernel_distance_is_that_of_torch_fidelity_with_one_subset() -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    real = REAL[: len(FAKE)]
    expected = theirs.kid_features_to_metric(
        real, FAKE, kid_subsets=1, kid_subset_size=len(real), verbose=False
    )[theirs.KEY_METRIC_KID_MEAN]
    assert kernel_distance(real, FAKE) == pytest.approx(expected, rel=1e-10)


# Precision, recall, density, coverage


def loops(real: Tensor, fake: Tensor, k: int) -> Manifold:
    reals, fakes = real.tolist(), fake.tolist()

    def balls(centres: list[list[float]]) -> list[tuple[list[float], float]]:
        return [(c, sorted(math.dist(c, other) for other in centres)[k]) for c in centres]

    def held(balls: list[tuple[list[float], float]], point: list[float]) -> int:
        return sum(math.dist(centre, point) <= radius for centre, radius in balls)

    return Manifold(
        precision=sum(held(balls(reals), f) > 0 for f in fakes) / len(fakes),
        recall=sum(held(balls(fakes), r) > 0 for r in reals) / len(reals),
        density=sum(held(balls(reals), f) for f in fakes) / len(fakes) / k,
        coverage=sum(any(held([b], f) for f in fakes) for b in balls(reals)) / len(reals),
    )


def test_manifold_by_hand() -> None:
    """Real balls [−1, 1], [0, 2], [1, 5], [3, 11]; fake [½, 2½], [1½, 3½], [2½, 20½], [11½, …]."""
    scores = manifold_scores(column(0, 1, 3, 7), column(1.5, 2.5, 11.5, 100), neighbours=1)
    assert scores == Manifold(precision=0.5, recall=0.75, density=0.75, coverage=0.5)


def test_the_border_of_a_ball_belongs_to_it() -> None:
    scores = manifold_scores(column(0, 1, 3, 7), column(1.5, 2.5, 11, 100), neighbours=1)
    assert scores == Manifold(precision=0.75, recall=0.75, density=1.0, coverage=0.75)
    swapped = manifold_scores(column(1.5, 2.5, 11, 100), column(0, 1, 3, 7), neighbours=1)
    assert (swapped.precision, swapped.recall) == (scores.recall, scores.precision)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("width", [1, 2, 6])
def test_manifold_is_that_of_plain_loops(width: int, k: int) -> None:
    real, fake = points(40, width), points(30, width, seed=1) + 0.5
    found = manifold_scores(real, fake, k)
    assert found == pytest.approx(loops(real, fake, k), rel=1e-12)
    assert min(found) > 0  # all four have something to count


@pytest.mark.parametrize("k", [1, 5])
def test_manifold_is_that_of_prdc(k: int) -> None:
    theirs = pytest.importorskip("prdc").compute_prdc
    real, fake = points(200, 4), points(150, 4, seed=1)
    expected = theirs(real.numpy(), fake.numpy(), nearest_k=k)
    assert manifold_scores(real, fake, k)._asdict() == pytest.approx(expected, rel=1e-12)


def test_manifold_of_a_copy() -> None:
    """Every ball holds its centre and, on its border, its k-th neighbour: k + 1 on average."""
    scores = manifold_scores(REAL[:20], REAL[:20].flip(0), neighbours=4)
    assert scores == pytest.approx(Manifold(1, 1, 5 / 4, 1))


def test_manifold_sees_no_common_shift() -> None:
    """Squares of 1000 in float32 would drown every distance."""
    scores = manifold_scores((REAL + 1000).float(), (FAKE + 1000).float())
    assert scores == manifold_scores(REAL, FAKE)


def test_manifold_needs_more_points_than_neighbours() -> None:
    assert manifold_scores(REAL[:6], FAKE[:6], neighbours=5)
    for real, fake in ((REAL[:5], FAKE), (REAL, FAKE[:5])):
        with pytest.raises(RuntimeError):
            manifold_scores(real, fake, neighbours=5)


def two_modes(count: int, seed: int) -> Tensor:
    """The first half around (−20, 0), the second around (20, 0)."""
    modes = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    modes[:, 0] += torch.where(torch.arange(count) < count // 2, -20, 20)
    return modes


def test_a_missing_mode_costs_recall_and_coverage_but_no_precision() -> None:
    real, fake = two_modes(400, seed=0), two_modes(400, seed=1)
    whole, half = manifold_scores(real, fake), manifold_scores(real, two_modes(800, 1)[:400])
    assert min(whole.precision, whole.recall, whole.coverage) > 0.9
    assert half.precision > 0.9
    assert 0.4 < half.recall <= 0.5
    assert 0.4 < half.coverage <= 0.5


def test_pictures_off_the_manifold_cost_precision_and_density_but_no_recall() -> None:
    real, fake = two_modes(400, seed=0), two_modes(400, seed=1)
    whole = manifold_scores(real, fake)
    fake[::2] += torch.tensor([0.0, 100.0])
    scores = manifold_scores(real, fake)
    assert 0.4 < scores.precision <= 0.5
    assert scores.density == pytest.approx(whole.density / 2, rel=0.1)
    assert scores.recall > 0.9


def test_one_picture_again_and_again_has_no_diversity() -> None:
    """Precision and density cannot see it."""
    real = points(200, 2)
    fake = real.mean(0).expand(200, -1)
    scores = manifold_scores(real, fake)
    assert scores.precision == 1
    assert scores.recall == 0
    assert 0 < scores.coverage < 0.1
    assert diversity_ratio(real, fake) == 0


# Diversity


def test_diversity_by_hand() -> None:
    """Variances 2 + 2 and 0 + ½."""
    real, fake = torch.tensor([[0.0, 0.0], [2.0, 2.0]]), torch.tensor([[5.0, 0.0], [5.0, 1.0]])
    assert diversity_ratio(real, fake) == pytest.approx((1 / 8) ** 0.5)


def test_diversity_is_the_ratio_of_total_deviations() -> None:
    spreads = [np.trace(np.cov(features.numpy(), rowvar=False)) for features in (FAKE, REAL)]
    expected = (spreads[0] / spreads[1]) ** 0.5
    assert diversity_ratio(REAL, FAKE) == pytest.approx(expected, rel=1e-12)
    assert diversity_ratio(REAL, 3 * REAL + 1000) == pytest.approx(3, rel=1e-10)


# Copies


def test_copied_share_by_hand() -> None:
    """Of 0, 1, …, 100 the 1 % quantile is 1."""
    held_out, distance = torch.arange(101.0), torch.tensor([0.0, 0.5, 1.5, 60.0])
    assert copied_share(distance, held_out.flip(0)) == 0.5
    assert copied_share(distance, held_out, quantile=0.5) == 0.75


def test_all_copies_have_a_share_of_1_and_new_pictures_the_quantile() -> None:
    training, held_out, new = (points(3000, 4)[i::3] for i in range(3))

    def nearest(queries: Tensor) -> Tensor:
        return torch.cdist(queries, training).min(1).values

    baseline = nearest(held_out)
    assert copied_share(torch.zeros(len(training)), baseline) == 1
    assert copied_share(baseline, baseline) == 0.01
    assert 0.002 < copied_share(nearest(new), baseline) < 0.025
    some = torch.cat([new[:700], training[:300]])
    assert copied_share(nearest(some), baseline) == pytest.approx(0.3, abs=0.02)


def test_copies_are_seen_where_held_out_pictures_repeat_training_ones() -> None:
    held_out = torch.tensor([0.0, 0.0, *range(1, 99)])
    assert copied_share(torch.zeros(10), held_out) == 1


# All


def test_figures_are_counted_in_float64_whatever_comes_in() -> None:
    figures: list[Callable[[Tensor, Tensor], object]] = [
        frechet, kernel_distance, manifold_scores, diversity_ratio,
    ]  # fmt: skip
    real, fake = REAL.float(), FAKE.float()
    for figure in figures:
        assert figure(real, fake) == figure(real.double(), fake.double())
        assert figure(real, fake) == pytest.approx(figure(REAL, FAKE), rel=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 25, 60])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one, with a rest, without one, and one for all."""
    kernel, manifold = kernel_distance(REAL, FAKE), manifold_scores(REAL, FAKE)
    monkeypatch.setattr(distances, "CHUNK", chunk)
    assert kernel_distance(REAL, FAKE) == pytest.approx(kernel, rel=1e-12)
    assert manifold_scores(REAL, FAKE) == manifold


# Wilson interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0, 0.2775), (9, 10, 0.5958, 0.9821), (10, 10, 0.7225, 1), (5, 10, 0.2366, 0.7634)],
)
def test_wilson_of_the_textbook(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_that_of_scipy() -> None:
    import scipy.stats  # a second of import

    for trials in (1, 2, 17, 1000):
        for successes in {0, 1, trials // 3, trials - 1, trials}:
            theirs = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
            found = wilson_interval(successes, trials)
            assert found == pytest.approx((theirs.low, theirs.high), abs=1e-7)
            assert found.low >= 0
            assert found.high <= 1


def test_wilson_reaches_farther_with_more_confidence() -> None:
    import scipy.stats

    theirs = scipy.stats.binomtest(3, 20).proportion_ci(0.99, method="wilson")
    assert wilson_interval(3, 20, z=2.575829) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_matched_counts_by_hand() -> None:
    def counts(available: list[int], proportions: list[int]) -> list[int]:
        return matched_counts(torch.tensor(available), torch.tensor(proportions)).tolist()

    assert counts([1_000, 500], [500, 50]) == [1_000, 100]
    assert counts([1_000, 40], [500, 50]) == [400, 40]
    assert counts([7, 7, 7], [3, 2, 2]) == [7, 4, 4]
    assert counts([10, 10], [0, 3]) == [0, 10]  # nothing is held out of the first class
    assert counts([10, 0], [3, 3]) == [10, 0]  # the second class has no images
    assert counts([10, 10], [0, 0]) == [0, 0]
    # A class with 1 of 41 wanted images has a single training image: it does not limit the others.
    assert counts([200, 200, 1], [20, 20, 2]) == [200, 200, 1]
    assert counts([200, 200, 1], [20, 20, 4]) == [5, 5, 1]  # but one with 9 % of them does


def test_no_unlucky_class_decides_how_many_images_are_compared() -> None:
    """300 classes of six images, each in a random split: a tenth is for the test."""
    generator = torch.Generator().manual_seed(0)
    split = torch.rand(300, 6, generator=generator)
    test, train = (split < 0.1).sum(1), (split >= 0.2).sum(1)
    counts = matched_counts(train, test)
    assert int(counts.sum()) > 0.9 * int(test.sum())
    assert (counts <= train).all()
    assert (counts[test > 0] > 0).logical_or(train[test > 0] == 0).all()
    shares, wanted = counts / counts.sum(), test / test.sum()
    assert float((shares - wanted).abs().sum()) < 0.1


def test_expected_minimum_by_hand() -> None:
    """Two coins are both heads a quarter of the time; with one class it is the mean."""
    assert expected_minimum(2, 1, 0.5) == pytest.approx(0.25)
    assert expected_minimum(1, 10, 0.3) == pytest.approx(0.3)
    # Two throws each: 4 of 4 heads give 1, at least one each but not all give 1/2.
    assert expected_minimum(2, 2, 0.5) == pytest.approx(1 / 16 + 0.5 * (9 / 16 - 1 / 16))
    drawn = np.random.default_rng(0).binomial(1_000, 0.1, (20_000, 10)).min(1).mean() / 1_000
    assert expected_minimum(10, 1_000, 0.1) == pytest.approx(drawn, abs=3e-4)


def stratified_pairs(repeats: int, per_class: int) -> list[tuple[Tensor, Tensor]]:
    """Two sets of one distribution: three classes far apart, as many points of each."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]]).repeat_interleave(per_class, 0)
    noise = torch.randn(repeats, 2, len(centres), 2, generator=generator)
    return [(centres + a, centres + b) for a, b in noise]


def test_kernel_distance_of_sets_with_fixed_counts_is_unbiased() -> None:
    """Without the labels the estimate is far below 0, because no pair repeats its class."""
    labels = torch.arange(3).repeat_interleave(4)
    sets = stratified_pairs(400, 4)
    found = torch.tensor([kernel_distance(a, b, labels, labels) for a, b in sets])
    assert abs(found.mean()) < 3 * found.std() / len(found) ** 0.5
    naive = torch.tensor([kernel_distance(a, b) for a, b in sets])
    assert naive.mean() < -10 * naive.std() / len(naive) ** 0.5


def test_kernel_distance_with_labels_by_hand() -> None:
    """Classes {0, 1} and {2, 3}, kernel (xy + 1)³; within: 1 and 343, across: 1, 1, 27, 64."""
    labels = torch.tensor([0, 0, 1, 1])
    x = column(0, 1, 2, 3)
    within, across = 2 * 1 + 2 * 343, 2 * (1 + 1 + 27 + 64)
    own = (2 * within + across) / 16
    other = column(5, 5, 5, 5)
    cross = sum((5 * value + 1) ** 3 for value in (0, 1, 2, 3)) / 4
    wanted = own + 26**3 - 2 * cross
    assert kernel_distance(x, other, labels, None) == pytest.approx(wanted)


def test_one_image_of_a_class_does_not_bring_the_bias_back() -> None:
    labels = torch.tensor([0] * 12 + [1] * 12 + [2])
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])[labels]
    sets = [(centres + a, centres + b) for a, b in torch.randn(400, 2, 25, 2, generator=generator)]
    found = torch.tensor([kernel_distance(a, b, labels, labels) for a, b in sets])
    naive = torch.tensor([kernel_distance(a, b) for a, b in sets])
    assert abs(found.mean()) < 0.25 * abs(naive.mean())


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says() -> None:
    """Simulated: a generator of 40 % control read on 2,000 images, a judge of 73 % on 500."""
    random = np.random.default_rng(0)
    covered = []
    for drawn, real in zip(
        random.binomial(2_000, 0.4, 4_000), random.binomial(500, 0.73, 4_000), strict=True
    ):
        low, high = ratio_interval(drawn / 2_000, 2_000, real / 500, 500)
        covered.append(low <= 0.4 / 0.73 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_the_interval_of_a_ratio_near_its_limits() -> None:
    low, high = ratio_interval(1.0, 500, 1.0, 500)
    assert low < 1 < high
    assert high - low < 0.02
    assert ratio_interval(0.0, 500, 0.7, 500).low == 0


@pytest.mark.parametrize(
    "truth",
    [[0.8] * 10, [0.3] + [0.9] * 9, [0.5, 0.52, 0.6, 0.7, 0.95], [0.99] * 9 + [0.97], [0.5, 0.9]],
)
@pytest.mark.parametrize("trials", [50, 1_000])
def test_the_interval_of_the_worst_class_covers_the_truth(truth: list[float], trials: int) -> None:
    """At least 95 %, with classes that are equally bad and with one that is worse than all."""
    random = np.random.default_rng(0)
    covered = []
    for successes in random.binomial(trials, truth, (700, len(truth))):
        low, high = minimum_interval(successes.tolist(), [trials] * len(truth))
        assert low <= successes.min() / trials <= high
        covered.append(low <= min(truth) <= high)
    assert np.mean(covered) > 0.935


def test_one_class_has_the_exact_interval_of_clopper_and_pearson() -> None:
    theirs = scipy.stats.binomtest(7, 50).proportion_ci(method="exact")
    assert minimum_interval([7], [50]) == pytest.approx((theirs.low, theirs.high))
    assert minimum_interval([7, 50], [50, 50]) == pytest.approx((theirs.low, theirs.high))
    assert minimum_interval([0, 50], [50, 50]).low == 0
    assert minimum_interval([50, 50], [50, 50]).high == 1


def normal(count: int, mean: float, spread: float, random: torch.Generator) -> torch.Tensor:
    scale = spread * torch.tensor([1.0, 0.7, 0.5, 0.3])
    return mean + torch.randn(count, 4, generator=random, dtype=torch.float64) * scale


def test_the_interval_of_a_fid_difference_covers_the_truth_as_often_as_it_says() -> None:
    """Simulated: two generators, with different means and spreads, and the same real images."""
    random, covered = torch.Generator().manual_seed(0), []
    variances = torch.tensor([1.0, 0.49, 0.25, 0.09], dtype=torch.float64)
    near, far = (4 * m**2 + ((s - 1) ** 2 * variances).sum() for m, s in ((0.1, 0.9), (0.3, 1.2)))
    for _ in range(1_500):
        sets = normal(300, 0, 1, random), normal(300, 0.1, 0.9, random)
        _, (low, high) = frechet_difference(*sets, normal(300, 0.3, 1.2, random))
        covered.append(low <= far - near <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_a_fid_difference_is_the_difference_of_both() -> None:
    random = torch.Generator().manual_seed(0)
    real, first, second = (normal(50, mean, 1, random) for mean in (0, 0.5, 0.7))
    difference, (low, high) = frechet_difference(real, first, second)
    one, other = (frechet_distance(moments(real), moments(x)) for x in (first, second))
    assert difference == pytest.approx(other - one)
    assert low < difference < high
    assert frechet_difference(real, first, first)[0] == 0


def test_what_two_generators_have_in_common_cancels() -> None:
    """Rows with the same z: a small difference is seen, where independent rows would hide it."""
    random = torch.Generator().manual_seed(0)
    real, z = normal(500, 0, 1, random), normal(500, 0, 1, random)
    difference, (low, high) = frechet_difference(real, 1.05 * z + 0.1, 1.1 * z + 0.2)
    assert 0 < low < difference < high
    assert frechet_difference(real, z, z)[1] == (0, 0)


def test_paired_difference_by_hand() -> None:
    first = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    second = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0]])
    found = paired_difference(first, second, torch.zeros(4, dtype=torch.int64))
    # Differences 0 1 1 0 and 0 1 0 0: by image 0, 1, ½, 0; by seed ½ and ¼.
    assert found.mean == 0.375
    images, seeds = 0.25 / 4, 0.03125 / 2  # the variance 0.6875 / 3 is below 1 / 4, the least
    degrees = (images + seeds) ** 2 / (images**2 / 3 + seeds**2 / 1)
    half = scipy.stats.t.ppf(0.975, degrees) * math.sqrt(images + seeds)
    assert found.low == pytest.approx(0.375 - half, rel=1e-12)
    assert 0.375 + half > 1
    assert found.high == 1


def test_paired_difference_is_a_mean_over_the_classes() -> None:
    """Three images of one class count as much as one of the other, of which little is known."""
    labels = torch.tensor([0, 0, 0, 1])
    first, second = torch.tensor([[1, 1, 1, 0]] * 2), torch.tensor([[0, 0, 0, 0]] * 2)
    found = paired_difference(first, second, labels)
    assert (found.mean, found.low, found.high) == (0.5, -1, 1)
    two = paired_difference(first[:, :2], second[:, :2], labels[:2])
    assert (two.mean, two.high) == (1, 1)
    assert two.low < 0  # two images of two are no certainty
    many = torch.zeros(2, 1_000)
    same = paired_difference(many, many, torch.zeros(1_000, dtype=torch.int64))
    assert same.mean == 0
    assert same.high == -same.low == pytest.approx(0.00196, abs=1e-5)


@pytest.mark.parametrize("spread", [0.0, 0.04])
def test_the_interval_of_a_paired_difference_covers_the_truth(spread: float) -> None:
    """Of three seeds, with and without an effect of the seed; images are hard or easy for both."""
    generator = np.random.default_rng(0)
    labels, covered, width = torch.arange(300) % 3, 0, 0.0
    for _ in range(400):
        hard = generator.uniform(-0.25, 0.15, 300)
        effect = generator.normal(0, spread, (2, 3, 1))
        chance = 0.7 + hard + effect + np.array([0.05, 0.0])[:, None, None]
        right = generator.uniform(size=(2, 3, 300)) < chance
        found = paired_difference(*torch.from_numpy(right), labels)
        covered += found.low <= 0.05 <= found.high
        width += (found.high - found.low) / 400
    assert covered >= 0.94 * 400
    assert width < 0.15 + 4 * spread
