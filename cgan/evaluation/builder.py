"""Build the report of one generator from its sections."""

from __future__ import annotations

from math import isnan

import torch
from einops import rearrange
from torch import Tensor

from cgan.evaluation.control import Control, check_judge
from cgan.evaluation.distances import Nearest
from cgan.evaluation.feature_set import FeatureSet, draw_by_class
from cgan.evaluation.quality import (
    cas_section,
    distance_section,
    manifold_section,
    memorization_section,
    truncation_section,
)
from cgan.evaluation.reference import Reference
from cgan.evaluation.report import ClassFigures, Report
from cgan.evaluation.sections import (
    Values,
    background_section,
    control_section,
    diversity_section,
    second_judge_section,
)
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels

GRID_COLUMNS = 10
PAIRS = 20


def build_report(
    sampler: Sampler, reference: Reference, *, cas: bool = False, truncation: bool = False
) -> Report:
    """Evaluate one generator.

    Args:
        sampler: the generator; seeds 0 to ``reference.per_class`` − 1 of each class are drawn.
        reference: the real images of its data; the held-out ones are its test images.
        cas: also train a classifier on generated images; takes as long as training a judge.
        truncation: also measure control and recall of truncated z.

    Raises:
        MeasureError: the judge has other classes, or the generator's images are not finite. A
            metric that cannot be computed is left out, and the report says why.
    """
    check_judge(sampler, reference.judge)
    drawn = reference.draw(sampler)
    control = reference.control_of(drawn, sampler.conditional)
    class_fids = [reference.fid_of(drawn, label) for label in reference.labels]
    spreads = [reference.diversity_of(drawn, label) for label in reference.labels]
    closest = reference.nearest(drawn.images)
    sections = [
        control_section(control, reference),
        *([second_judge_section(drawn, reference)] if reference.second_judge else []),
        distance_section(drawn, reference, class_fids),
        manifold_section(drawn, reference),
        diversity_section(spreads, reference),
        memorization_section(closest, reference),
        background_section(drawn, reference),
        *([truncation_section(sampler, reference)] if truncation else []),
        *([cas_section(sampler, reference)] if cas else []),
    ]
    pairs, distances = closest_pairs(drawn, closest, reference)
    return Report(
        model=str(sampler.path),
        data=sampler.header["data"],
        conditional=sampler.conditional,
        features=reference.network.name,
        pictures=len(drawn),
        train_images=len(reference.train),
        test_images=len(reference.held_out_data),
        compared=int(reference.counts.sum()),
        images_seen=sampler.header["images_seen"],
        seconds=sampler.header["seconds"],
        control=control,
        figures=[figure for section in sections for figure in section.figures],
        classes=figures_by_class(control, reference, class_fids, spreads),
        warnings=[warning for section in sections for warning in section.warnings],
        left_out=[reason for section in sections for reason in section.left_out],
        grid=draw_grid(sampler),
        pairs=pairs,
        pair_distances=distances,
    )


def figures_by_class(
    control: Control, reference: Reference, class_fids: Values, spreads: Values
) -> list[ClassFigures]:
    """Control, intra-class FID and diversity of each class."""
    real = reference.control
    shares = real.per_class.values() if real else [None] * len(control.classes)
    real_control = [None if share is None or isnan(share) else share for share in shares]
    rows = zip(
        control.classes, control.per_class.values(), control.intervals, real_control,
        class_fids, reference.class_fids, spreads, strict=True,
    )  # fmt: skip
    return [
        ClassFigures(name, share, interval.low, interval.high, real_share, fid, real_fid, spread)
        for name, share, interval, real_share, fid, real_fid, spread in rows
    ]


def closest_pairs(
    drawn: FeatureSet, closest: Nearest, reference: Reference
) -> tuple[Tensor, Tensor]:
    """Generated images with their nearest training images, the closest pairs of each class.

    They are chosen per class, because the closest pairs overall would all show the simplest class.

    Returns:
        uint8 (N, 2, C, H, W) and distances (N,), N ≤ ``PAIRS``.
    """
    target = drawn.target[drawn.kept]
    by_distance = closest.distance.argsort()
    each = max(PAIRS // len(reference.labels), 1)
    order = torch.cat(
        [by_distance[target[by_distance] == label][:each] for label in reference.labels]
    )
    if len(order) > PAIRS:  # more classes than pairs: those with the closest pairs
        order = order[closest.distance[order].argsort()[:PAIRS]]
    pairs = torch.stack([drawn.images[order], reference.train.take(closest.index[order])], dim=1)
    return pairs, closest.distance[order]


def draw_grid(sampler: Sampler) -> Tensor:
    """uint8 (K, columns, C, H, W): the first seeds of each class, one row per class."""
    batches = draw_by_class(sampler, GRID_COLUMNS)
    pixels = torch.cat([to_pixels(images).cpu() for images, _ in batches])
    return rearrange(pixels, "(k n) c h w -> k n c h w", n=GRID_COLUMNS)
