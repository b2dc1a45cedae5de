"""Build the report of one generator from its sections."""

from __future__ import annotations

from math import isnan

import torch
from einops import rearrange
from torch import Tensor

from cgan.attributes import display_order
from cgan.evaluation.artifacts import position_images
from cgan.evaluation.control import Control, check_judge
from cgan.evaluation.distances import Nearest
from cgan.evaluation.features import FeatureSet, take_flipped
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import TEACHER
from cgan.evaluation.reference import Reference
from cgan.evaluation.report import ClassFigures, Report
from cgan.evaluation.sections import (
    Values,
    background_section,
    cas_section,
    control_section,
    distance_section,
    diversity_section,
    manifold_section,
    memorization_section,
    second_judge_section,
    spectrum_section,
    spots_section,
    truncation_section,
)
from cgan.sampling.request import Request
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels

GRID_COLUMNS, GRID_ROWS = 10, 100
PAIRS = 20


def build_report(
    sampler: Sampler, reference: Reference, *, cas: bool = False, truncation: bool = False
) -> Report:
    """Evaluate one generator.

    Args:
        sampler: the generator; ``reference.per_class`` images of each class are drawn.
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
    closest, pixels = reference.nearest(drawn.images), reference.pixels_of(drawn.images)
    second = [second_judge_section(control, drawn, reference)] if reference.second_judge else []
    sections = [
        control_section(control, reference),
        distance_section(drawn, reference, class_fids),
        manifold_section(drawn, reference),
        diversity_section(spreads, reference),
        memorization_section(closest, reference),
        background_section(drawn, reference),
        spots_section(pixels, reference),
        spectrum_section(pixels, reference),
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
        train_images=len(reference.trained_on),
        test_images=len(reference.held_out_data),
        compared=int(reference.counts.sum()),
        images_seen=sampler.header["images_seen"],
        seconds=sampler.header["seconds"],
        control=control,
        figures=[
            figure
            for section in (sections[0], *second, *sections[1:])
            for figure in section.figures
        ],
        classes=figures_by_class(control, reference, drawn, class_fids, spreads),
        # That two readers disagree comes first.
        warnings=[warning for section in (*second, *sections) for warning in section.warnings],
        left_out=reference.notes + [reason for one in sections for reason in one.left_out],
        grid=draw_grid(sampler),
        pairs=pairs,
        pair_distances=distances,
        taught_by=networks_in_training(sampler),
        reader=describe_reader(reference.judge, sampler.header.get("teacher")),
        spectra=None if pixels is None else (pixels.power, reference.pixels.power),
        positions=None if pixels is None else position_images(pixels, reference.pixels),
        compared_features=reference.matched(drawn),
        generator=sampler.digest,
    )


def networks_in_training(sampler: Sampler) -> str:
    """The networks that taught a generator: none of them may judge it."""
    config, steered = sampler.config, sampler.header.get("steered")
    kind = f"a discriminator ({config.model.backbone})"
    if config.model.conditional and "auxiliary" in config.model.discriminator_label:
        kind += " with a classifier of the same training images"
    if teacher := sampler.header.get("teacher"):
        kind += f", which the {teacher} taught"
    others = [f"begun with the weights of {config.warm_start}"] if config.warm_start else []
    if steered is not None:
        others.append(f"drawn by the generator {steered['name']}, whose weights did not change")
    return "; ".join([kind, *others])


def describe_reader(judge: Judge, teacher: str | None = None) -> str:
    """What a judge has in common with the networks that taught a generator."""
    if judge.is_pretrained:
        found = "features of a network for other photographs"
        if teacher is None:
            return f"{found}, which no generator is trained with"
        if judge.header.architecture == TEACHER or teacher == judge.name:
            return f"{found}, which taught the discriminator: its figures are too kind"
        return f"{found}; another one of its family taught the discriminator"
    return "a small network trained on the same images, as a discriminator is"


def figures_by_class(
    control: Control, reference: Reference, drawn: FeatureSet, class_fids: Values, spreads: Values
) -> list[ClassFigures]:
    """Control, intra-class FID and KID, coverage and diversity of each class."""
    real = reference.control
    shares = real.per_class.values() if real else [None] * len(control.classes)
    real_control = [None if share is None or isnan(share) else share for share in shares]
    rows = zip(
        control.classes, control.per_class.values(), control.intervals, real_control,
        class_fids, reference.class_fids,
        [reference.kid_of(drawn, label) for label in reference.labels], reference.class_kids,
        [reference.coverage_of(drawn, label) for label in reference.labels],
        reference.class_coverages, spreads, strict=True,
    )  # fmt: skip
    return [
        ClassFigures(name, share, interval.low, interval.high, *others)
        for name, share, interval, *others in rows
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
    labels = display_order(reference.train.classes)  # the page shows pairs class by class
    each = max(PAIRS // len(labels), 1)
    order = torch.cat([by_distance[target[by_distance] == label][:each] for label in labels])
    if len(order) > PAIRS:  # more classes than pairs: those with the closest pairs
        order = order[closest.distance[order].argsort()[:PAIRS]]
    trained = take_flipped(reference.trained_on, closest.index[order], closest.flipped[order])
    return torch.stack([drawn.images[order], trained], dim=1), closest.distance[order]


def draw_grid(sampler: Sampler) -> Tensor:
    """uint8 (rows, columns, C, H, W): a row per class, ``GRID_ROWS`` at most, a z per column."""
    rows, columns = min(len(sampler.classes), GRID_ROWS), GRID_COLUMNS
    if sampler.conditional:
        labels = tuple(label for label in range(rows) for _ in range(columns))
        request = Request(labels, tuple(range(columns)) * rows)
    else:
        request = sampler.request(None, rows * columns)
    images = torch.cat([to_pixels(batch).cpu() for batch, _ in sampler.batches(request)])
    return rearrange(images, "(k n) c h w -> k n c h w", n=columns)
