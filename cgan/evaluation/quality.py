"""Sections of a report that compare sets of images: distances, manifold, memorization, CAS.

The section functions do not depend on each other.
"""

from __future__ import annotations

from itertools import compress
from math import prod

import torch

from cgan.data import ImageDataset
from cgan.evaluation.distances import NEIGHBOURS, Nearest, copied_share
from cgan.evaluation.feature_set import FeatureSet, draw_by_class
from cgan.evaluation.judge_training import train_judge
from cgan.evaluation.reference import Reference
from cgan.evaluation.report import Figure
from cgan.evaluation.sections import Section, Values, known
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels

CAS_IMAGES, CAS_BYTES = 60_000, 2**30
"""Generated images that the CAS classifier is trained on, and their bytes, at most."""

HIGH_COPIED_SHARE = 0.2
"""A higher ``copied_share`` raises a warning."""

TRUNCATIONS = (0.9, 0.8, 0.7, 0.6)
"""Factors of z in a report."""


def distance_section(drawn: FeatureSet, reference: Reference, class_fids: Values) -> Section:
    """Distances between the distributions: FID, KID, and FID within each class."""
    section, classes, size = Section(), reference.train.classes, reference.network.size
    fid, kid = reference.fid_of(drawn), reference.kid_of(drawn)
    if fid is None:
        few = min(len(reference.matched(drawn)), len(reference.held_out))
        section.left_out.append(f"FID: {too_few(few, size)}")
    if kid is None:
        section.left_out.append("KID: it needs two generated and two held-out images")
    without = [label for label in reference.labels if class_fids[label] is None]
    if without:
        names = ", ".join(classes[label] for label in without[:10])
        few = min(
            min(len(reference.matched(drawn, k)), len(reference.held_out.of_class(k)))
            for k in without
        )
        more = "…" if len(without) > 10 else ""
        section.left_out.append(f"intra-class FID of {names}{more}: {too_few(few, size)}")
    columns = (class_fids, reference.class_fids, reference.chance_fids)
    kept = [value is not None for value in class_fids]  # the same classes in all three columns
    own, real, chance = (known(list(compress(column, kept))) for column in columns)
    worst = f" ({classes[class_fids.index(max(own))]})" if own else ""
    section.figures = [
        Figure("fid", "FID", fid, reference.fid, meaning="feature distance; lower is better"),
        Figure("kid", "KID", kid, reference.kid, meaning="kernel distance; lower is better"),
        Figure(
            "intra_fid_mean", "intra-class FID, mean", mean(own), mean(real), mean(chance),
            meaning="FID within each class; lower is better",
        ),
        Figure(
            "intra_fid_worst", f"intra-class FID, worst{worst}", max(own, default=None),
            max(real, default=None), max(chance, default=None),
            meaning="highest FID of a class; lower is better",
        ),
    ]  # fmt: skip
    return section


def manifold_section(drawn: FeatureSet, reference: Reference) -> Section:
    """Fidelity and diversity, separately."""
    own, real = reference.manifold_of(drawn), reference.manifold
    if own is None:
        few = min(len(reference.matched(drawn)), len(reference.held_out))
        reason = f"{few} images are too few for {NEIGHBOURS} neighbours"
        return Section(left_out=[f"precision, recall, density, coverage: {reason}"])
    return Section(
        [
            Figure(
                key, key, getattr(own, key), getattr(real, key) if real else None,
                share=share, meaning=meaning,
            )
            for key, share, meaning in (
                ("precision", True, "generated images within the real manifold; higher is better"),
                ("recall", True, "real images within the generated manifold; higher is better"),
                ("density", False, "real neighbourhoods per generated image; near real is best"),
                ("coverage", True, "real images with a generated neighbour; higher is better"),
            )
        ]
    )  # fmt: skip


def truncation_section(sampler: Sampler, reference: Reference) -> Section:
    """Control and recall of truncated z: the dial between control and variety."""
    section = Section()
    for factor in TRUNCATIONS:
        drawn = reference.draw(sampler, truncation=factor)
        manifold, control = reference.manifold_of(drawn), reference.control_of(drawn)
        key, title = f"truncation_{factor:g}", f"at truncation {factor:g}"
        if sampler.conditional:
            section.figures.append(
                Figure(f"control_accuracy_{key}", f"control accuracy {title}", control.accuracy,
                       share=True, meaning="with z multiplied by this factor; higher is better")
            )  # fmt: skip
        if manifold is not None:
            section.figures.append(
                Figure(f"recall_{key}", f"recall {title}", manifold.recall, share=True,
                       meaning="with z multiplied by this factor; higher is better")
            )  # fmt: skip
    return section


def memorization_section(closest: Nearest, reference: Reference) -> Section:
    """How close generated images are to training images."""
    if not len(reference.held_out):
        return Section(left_out=["memorization: no real images are held out to compare with"])
    held_out = reference.nearest_distance
    share = copied_share(closest.distance, held_out)
    section = Section(
        [
            Figure(
                "nearest_training_picture", "nearest training image",
                float(closest.distance.median()), float(held_out.median()),
                meaning="median Euclidean distance, pixels in [0, 1]; near real is best",
            ),
            Figure(
                "copied_share", "closer than 99 % of held-out ones", share, 0.01, share=True,
                meaning="generated images that are this close to a training image; 1 % if new",
            ),
        ]
    )  # fmt: skip
    if share > HIGH_COPIED_SHARE:
        section.warnings = [
            f"possible memorization: {share:.0%} of the images are closer to a training image than "
            "99 % of held-out images are"
        ]
    return section


def cas_section(sampler: Sampler, reference: Reference) -> Section:
    """CAS: real-image accuracy of a classifier trained on generated images only.

    Ravuri and Vinyals 2019, "Classification accuracy score"; the GAN-train of Shmelkov et al. 2018.
    """
    train, test = reference.train, reference.held_out_data
    if not sampler.conditional:
        return Section(left_out=["CAS: images of a plain GAN have no class"])
    if not len(test):
        return Section(left_out=["CAS: no real images are held out to classify"])
    limit = min(len(train), CAS_IMAGES, CAS_BYTES // prod(train.image_shape))
    per_class = max(limit // len(train.classes), 1)
    images = torch.empty(per_class * len(train.classes), *train.image_shape, dtype=torch.uint8)
    labels = torch.empty(len(images), dtype=torch.int64)
    begin = 0
    for batch, target in draw_by_class(sampler, per_class):
        end = begin + len(batch)
        images[begin:end], labels[begin:end] = to_pixels(batch).cpu(), target
        begin = end
    name = f"generated images ({train.name})"
    generated = ImageDataset(name, images, labels, train.classes)
    student = train_judge(generated, test, "generated", sampler.device)
    figure = Figure(
        "cas", "CAS", student.header.held_out_accuracy,
        reference.control.balanced_accuracy if reference.control else None,
        1 / len(train.classes), share=True,
        meaning="real-image accuracy of a classifier trained on generated images; higher is better",
    )  # fmt: skip
    return Section([figure])


def too_few(count: int, size: int) -> str:
    """Why a covariance cannot be computed."""
    return f"{count:,} images are too few for a covariance of {size:,} features"


def mean(values: list[float]) -> float | None:
    """The mean; None for an empty list."""
    return sum(values) / len(values) if values else None
