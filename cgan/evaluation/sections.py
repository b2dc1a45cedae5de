"""The sections of a report: each measures one side of a generator, and warns of its defects.

Sections about the generator itself come first: control, diversity, background, spots, spectrum.
Those that compare sets of images follow: distances, manifold, memorization, CAS. They do not depend
on each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from math import isnan, prod

import torch

from cgan.attributes import natural_key, sort_for_display
from cgan.data import ImageDataset
from cgan.errors import first_few
from cgan.evaluation.artifacts import PixelStatistics, spectrum_distance, worst_spot
from cgan.evaluation.control import Control
from cgan.evaluation.distances import NEIGHBOURS, Nearest, copied_share
from cgan.evaluation.features import FeatureSet, draw_by_class, first_of_each_class
from cgan.evaluation.judge_training import may_mirror, train_judge
from cgan.evaluation.reference import MIN_COPY_IMAGES, Reference
from cgan.evaluation.report import Figure
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels

LOW_CONTROL = 0.8
"""An upper confidence bound below this fraction of the real images' accuracy raises a warning."""
MAX_CLASS_WARNINGS = 10
LOW_DIVERSITY = 0.5
"""A class with a spread below this fraction of its real spread raises a warning."""
HIGH_BACKGROUND = 0.01
"""A higher mean background value, in [0, 1], raises a warning."""

Values = list[float | None]

FEW_VALUES = 3
"""Values in the title of an attribute."""
CAS_IMAGES, CAS_BYTES = 60_000, 2**30
"""Generated images that the CAS classifier is trained on, and their bytes, at most."""
HIGH_COPIED_SHARE = 0.2
"""A higher ``copied_share`` raises a warning."""
TRUNCATIONS = (0.9, 0.8, 0.7, 0.6)
"""Factors of z in a report."""


@dataclass
class ReportSection:
    """Metrics, warnings, and the reasons for metrics that were left out."""

    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def control_section(control: Control, reference: Reference) -> ReportSection:
    """Whether the generator draws the requested class."""
    real, chance = reference.control, control.chance
    section = ReportSection()
    section.figures = [
        Figure(
            "control_accuracy", "control accuracy", control.accuracy,
            real.balanced_accuracy if real else None, chance, share=True,
            meaning="fraction of images that show the requested class; higher is better",
            interval=control.interval,
        ),
        Figure(
            "control_relative", "control relative to real images", control.relative,
            1.0 if real else None,
            chance / real.balanced_accuracy if real and real.balanced_accuracy else None,
            meaning="control accuracy divided by the judge's accuracy on real images; near 1 is "
            "best",
            interval=control.relative_interval,
        ),
        Figure(
            "control_accuracy_worst_class", f"worst class ({control.worst})",
            control.per_class[control.worst], real.per_class[real.worst] if real else None,
            control.worst_class_chance, share=True,
            meaning="control accuracy of the worst class; higher is better. Of few real images, it "
            "is lower by chance",
            interval=control.worst_interval,
        ),
    ]  # fmt: skip
    for index, one in enumerate(control.per_attribute):
        values = sort_for_display(one.values)
        few = ", ".join(values[:FEW_VALUES]) + ("…" if len(values) > FEW_VALUES else "")
        section.figures.append(
            Figure(
                f"control_accuracy_attribute_{index + 1}", f"attribute {index + 1} ({few})",
                one.accuracy, real.per_attribute[index].accuracy if real else None, one.chance,
                share=True, meaning="fraction of images with the requested value; higher is better",
            )
        )  # fmt: skip
    if not control.conditional:
        section.warnings = ["a plain GAN takes no class, so its control accuracy is chance"]
    elif control.ignores_label:
        section.warnings = [
            f"it ignores its label: control accuracy {control.accuracy:.1%} is about chance "
            f"({chance:.1%}), regardless of image quality"
        ]
    else:
        if real and control.interval.high < LOW_CONTROL * real.balanced_accuracy:
            section.warnings = [
                "control accuracy is far below the judge's accuracy on real images: "
                f"{control.accuracy:.1%} against {real.balanced_accuracy:.1%}"
            ]
        section.warnings += _class_warnings(control)
    absent = [name for name in control.classes if real and isnan(real.per_class[name])]
    if absent:
        names = ", ".join(sort_for_display(absent)[:10])
        section.left_out = [f"metrics of real {names}: no image is held out"]
    return section


def _class_warnings(control: Control) -> list[str]:
    """Warnings for classes with less than 50 % control, the worst first."""
    low = [(share, name) for name, share in control.per_class.items() if share < 0.5]
    low.sort(key=lambda row: (row[0], natural_key(row[1])))
    warnings = []
    for share, name in low[:MAX_CLASS_WARNINGS]:
        index = control.classes.index(name)
        others = control.confusion[index].clone()
        others[index] = 0
        other = control.classes[int(others.argmax())]
        rate = int(others.max()) / int(control.confusion[index].sum())
        warnings.append(
            f"control accuracy of {name} is only {share:.0%}: {rate:.0%} of its images show {other}"
        )
    if len(low) > MAX_CLASS_WARNINGS:
        warnings.append(f"and the same for {len(low) - MAX_CLASS_WARNINGS} more classes")
    return warnings


def second_judge_section(
    control: Control, drawn: FeatureSet, reference: Reference
) -> ReportSection:
    """Control by the second judge, and how often both judges predict the same class.

    Args:
        control: by the first judge.
        drawn: the generated images.
        reference: the real images, with a second judge.
    """
    held_out, second = reference.held_out, reference.second_control_of(drawn, control.conditional)
    agreement = float((held_out.predicted == held_out.second_predicted).double().mean())
    return ReportSection(
        warnings=disagreement(control, second),
        figures=[
            Figure(
                "control_accuracy_second_judge", f"control accuracy by {second.judge}",
                second.accuracy, second.judge_accuracy, second.chance, share=True,
                meaning="the same images, classified by a judge with another architecture",
                interval=second.interval,
            ),
            Figure(
                "control_relative_second_judge", "the same relative to real images",
                second.relative, 1.0 if second.judge_accuracy else None,
                meaning="divided by that judge's accuracy on real images; near 1 is best",
                interval=second.relative_interval,
            ),
            Figure(
                "judge_agreement", "agreement of the judges",
                float((drawn.predicted == drawn.second_predicted).double().mean()),
                agreement if len(held_out) else None, share=True,
                meaning="images for which both judges predict the same class",
            ),
        ],
    )  # fmt: skip


def disagreement(first: Control, second: Control) -> list[str]:
    """A warning if two judges differ by more than their intervals explain."""
    one, other = first.relative_interval, second.relative_interval
    if one is None or other is None or (one.low <= other.high and other.low <= one.high):
        return []
    says = [
        f"{control.relative:.2f} ({interval.low:.2f} to {interval.high:.2f}) by {control.judge}"
        for control, interval in ((first, one), (second, other))
    ]
    return [
        "two readers disagree by more than chance: control relative to real images is "
        f"{says[0]} and {says[1]}; the first one counts"
    ]


def diversity_section(spreads: Values, reference: Reference) -> ReportSection:
    """Spread of each class relative to the real spread."""
    classes, own, real = reference.train.classes, known(spreads), known(reference.diversity)
    if not own:
        reason = "it needs two generated and two real images of a class"
        return ReportSection(left_out=[f"diversity: {reason}"])
    least = classes[spreads.index(min(own))]
    section = ReportSection(
        [
            Figure(
                "diversity_least", f"lowest diversity ({least})", min(own), min(real, default=None),
                meaning="spread of a class relative to its real spread; near 1 is best",
            )
        ]
    )  # fmt: skip
    named = zip(classes, spreads, strict=True)
    uniform = [name for name, ratio in named if ratio is not None and ratio < LOW_DIVERSITY]
    if uniform:
        names = first_few(sort_for_display(uniform))
        section.warnings = [
            f"mode collapse in {names}: images of different seeds are nearly the same "
            f"(lowest spread: {min(own):.2f} of the real one)"
        ]
    return section


def background_section(drawn: FeatureSet, reference: Reference) -> ReportSection:
    """Values in pixels that are 0 in every training image."""
    if not reference.background.any():
        return ReportSection(left_out=["background noise: no pixel is 0 in every training image"])
    matched = first_of_each_class(drawn.target, reference.counts)
    level = float(drawn.background_level[matched if len(matched) else slice(None)].mean())
    held_out = reference.held_out.background_level
    section = ReportSection(
        [
            Figure(
                "background_ink", "background noise", level,
                float(held_out.mean()) if len(held_out) else None,
                meaning="mean value of pixels that are 0 in all training images; near 0 is best",
            )
        ]
    )  # fmt: skip
    if level > HIGH_BACKGROUND:
        section.warnings = [f"background noise: the mean value is {level:.3f} (range 0 to 1)"]
    return section


def spots_section(drawn: PixelStatistics | None, reference: Reference) -> ReportSection:
    """Isolated dots, at one place of many images and in all: a defect that features do not see."""
    if drawn is None:
        return ReportSection(left_out=["spots: no images are compared"])
    spot = worst_spot(drawn, reference.pixels)
    section = ReportSection(
        [
            Figure(
                "spots_at_one_place", f"spots at one place ({spot.kind})", spot.share, spot.real,
                share=True,
                meaning="images with an isolated spot at the place where real ones have it least "
                "often in comparison; near real is best",
            ),
            Figure(
                "spots_per_image", "spots per image", float(drawn.spots.sum()),
                float(reference.pixels.spots.sum()),
                meaning="isolated dark and light spots in an image; near real is best",
            ),
        ]
    )  # fmt: skip
    if spot.is_fixed:
        section.warnings = [spot.sentence]
    return section


def spectrum_section(drawn: PixelStatistics | None, reference: Reference) -> ReportSection:
    """How far the power spectrum is from that of training images."""
    if drawn is None:
        return ReportSection(left_out=["spectrum: no images are compared"])
    held_out, train = reference.held_out_pixels, reference.pixels.power
    return ReportSection(
        [
            Figure(
                "spectrum", "spectrum, dB", spectrum_distance(train, drawn.power),
                spectrum_distance(train, held_out.power) if held_out else None,
                meaning="mean difference of the power spectrum from that of training images; lower "
                "is better",
            )
        ]
    )  # fmt: skip


def known(values: Values) -> list[float]:
    """The values that are not None."""
    return [value for value in values if value is not None]


def distance_section(drawn: FeatureSet, reference: Reference, class_fids: Values) -> ReportSection:
    """Distances between the distributions: FID, KID, and FID within each class."""
    section, classes, size = ReportSection(), reference.train.classes, reference.network.size
    fid, kid = reference.fid_of(drawn), reference.kid_of(drawn)
    if fid is None:
        few = min(len(reference.matched(drawn)), len(reference.held_out))
        section.left_out.append(f"FID: {too_few(few, size)}")
    if kid is None:
        section.left_out.append("KID: it needs two generated and two held-out images")
    without = [label for label in reference.labels if class_fids[label] is None]
    if without:
        names = ", ".join(sort_for_display([classes[label] for label in without])[:10])
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


def manifold_section(drawn: FeatureSet, reference: Reference) -> ReportSection:
    """Fidelity and diversity, separately."""
    own, real = reference.manifold_of(drawn), reference.manifold
    if own is None:
        few = min(len(reference.matched(drawn)), len(reference.held_out))
        reason = f"{few} images are too few for {NEIGHBOURS} neighbours"
        return ReportSection(left_out=[f"precision, recall, density, coverage: {reason}"])
    return ReportSection(
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


def truncation_section(sampler: Sampler, reference: Reference) -> ReportSection:
    """Control and recall of truncated z: the dial between control and variety."""
    section = ReportSection()
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


def memorization_section(closest: Nearest, reference: Reference) -> ReportSection:
    """How close generated images are to training images."""
    if (count := len(reference.held_out_data)) < MIN_COPY_IMAGES:
        few = f"{count} real images are held out, and it needs {MIN_COPY_IMAGES}"
        return ReportSection(left_out=[f"memorization: {few}"])
    held_out = reference.nearest_distance
    share = copied_share(closest.distance, held_out)
    of_new = (1 + 0.01 * (len(held_out) - 1)) / (len(held_out) + 1)  # of the 1 % quantile
    section = ReportSection(
        [
            Figure(
                "nearest_training_picture", "nearest training image",
                float(closest.distance.median()), float(held_out.median()),
                meaning="median Euclidean distance, pixels in [0, 1]; near real is best",
            ),
            Figure(
                "copied_share", "closer than 99 % of held-out ones", share, of_new, share=True,
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


def cas_section(sampler: Sampler, reference: Reference) -> ReportSection:
    """CAS: real-image accuracy of a classifier trained on generated images only.

    Ravuri and Vinyals 2019, "Classification accuracy score"; the GAN-train of Shmelkov et al. 2018.
    """
    train, test = reference.train, reference.held_out_data
    if not sampler.conditional:
        return ReportSection(left_out=["CAS: images of a plain GAN have no class"])
    if not len(test):
        return ReportSection(left_out=["CAS: no real images are held out to classify"])
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
    attributes = train.num_attributes
    generated = ImageDataset(name, images, labels, train.classes, num_attributes=attributes)
    student = train_judge(
        generated, test, "generated", sampler.device,
        architecture=reference.judge.header.architecture, mirror=may_mirror(train),
    )  # fmt: skip
    figure = Figure(
        "cas", "CAS", student.header.held_out_accuracy,
        reference.control.balanced_accuracy if reference.control else None,
        1 / len(train.classes), share=True,
        meaning="real-image accuracy of a classifier trained on generated images; higher is better",
    )  # fmt: skip
    return ReportSection([figure])


def too_few(count: int, size: int) -> str:
    """Why a covariance cannot be computed."""
    return f"{count:,} images are too few for a covariance of {size:,} features"


def mean(values: list[float]) -> float | None:
    """The mean; None for an empty list."""
    return sum(values) / len(values) if values else None
