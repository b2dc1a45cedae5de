"""The sections of a report: control, distances, manifold, diversity, memorization, background, CAS.

Each function takes the generated images and the reference and returns a :class:`Section`. None
depends on another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isnan

import torch

from cgan.data import ImageDataset
from cgan.evaluation.control import Control
from cgan.evaluation.distances import NEIGHBOURS, Nearest, copied_share
from cgan.evaluation.feature_set import FeatureSet, draw_by_class
from cgan.evaluation.judge_training import train_judge
from cgan.evaluation.reference import Reference
from cgan.evaluation.report import Figure
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels

CAS_PICTURES = 60_000

LOW_CONTROL = 0.8
"""Control below this fraction of the real images' accuracy raises a warning."""
MAX_CLASS_WARNINGS = 10
LOW_DIVERSITY = 0.5
"""A class with less than this fraction of the real spread raises a warning."""
HIGH_COPIED_SHARE = 0.2
"""More images than this that are closer to training images than 99 % of held-out ones are raise a
warning."""
HIGH_BACKGROUND_INK = 0.01
"""A higher mean background value, in [0, 1], raises a warning."""

Values = list[float | None]


@dataclass
class Section:
    """Figures, warnings, and figures left out with the reason."""

    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def control_section(control: Control, reference: Reference) -> Section:
    """Whether the generator draws the requested class."""
    real, chance = reference.control, control.chance
    section = Section()
    section.figures = [
        Figure(
            "control_accuracy", "control accuracy", control.accuracy,
            real.accuracy if real else None, chance, share=True,
            meaning="fraction of images that show the requested class; higher is better",
        ),
        Figure(
            "control_accuracy_worst_class", f"worst class ({control.worst})",
            control.per_class[control.worst], real.per_class[real.worst] if real else None,
            chance, share=True, meaning="control accuracy of the worst class; higher is better",
        ),
    ]  # fmt: skip
    if not control.conditional:
        section.warnings = ["a plain GAN takes no class, so its control accuracy is chance"]
    elif control.ignores_label:
        section.warnings = [
            f"it ignores its label: control accuracy {control.accuracy:.1%} is about chance "
            f"({chance:.1%}), however good its images look"
        ]
    else:
        if real and control.interval.high < LOW_CONTROL * real.accuracy:
            section.warnings = [
                "control accuracy is far below the judge's accuracy on real images: "
                f"{control.accuracy:.1%} against {real.accuracy:.1%}"
            ]
        section.warnings += _class_warnings(control)
    absent = [name for name in control.classes if real and isnan(real.per_class[name])]
    if absent:
        section.left_out = [f"figures of real {', '.join(absent[:10])}: none is held out"]
    return section


def _class_warnings(control: Control) -> list[str]:
    """Classes that are mostly drawn as other classes, the worst first."""
    low = sorted((share, name) for name, share in control.per_class.items() if share < 0.5)
    warnings = []
    for share, name in low[:MAX_CLASS_WARNINGS]:
        row = control.confusion[control.classes.index(name)]
        other = control.classes[int(row.argmax())]
        warnings.append(
            f"asked for {name}, it draws {name} only {share:.0%} of the time, "
            f"and {other} {int(row.max()) / int(row.sum()):.0%}"
        )
    if len(low) > MAX_CLASS_WARNINGS:
        warnings.append(f"and the same for {len(low) - MAX_CLASS_WARNINGS} more classes")
    return warnings


def distance_section(drawn: FeatureSet, reference: Reference, class_fids: Values) -> Section:
    """Distances between the distributions: FID, KID, and FID within each class."""
    section, classes, size = Section(), reference.train.classes, reference.network.size
    fid, kid = reference.fid_of(drawn), reference.kid_of(drawn)
    if fid is None:
        few = min(len(reference.matched(drawn)), len(reference.held_out))
        section.left_out.append(f"FID: {too_few(few, size)}")
    if kid is None:
        section.left_out.append("KID: it needs two images drawn and two held out")
    without = [label for label in reference.labels if class_fids[label] is None]
    if without:
        names = ", ".join(classes[label] for label in without[:10])
        few = min(
            min(len(reference.matched(drawn, k)), len(reference.held_out.of_class(k)))
            for k in without
        )
        more = "…" if len(without) > 10 else ""
        section.left_out.append(f"intra-class FID of {names}{more}: {too_few(few, size)}")
    own, real, chance = map(known, (class_fids, reference.class_fids, reference.chance_fids))
    worst = f" ({classes[class_fids.index(max(own))]})" if own else ""
    section.figures = [
        Figure("fid", "FID", fid, reference.fid, meaning="distance of the feature sets; lower"),
        Figure("kid", "KID", kid, reference.kid, meaning="the same without a Gaussian; lower"),
        Figure(
            "intra_fid_mean", "intra-class FID, mean", mean(own), mean(real), mean(chance),
            meaning="FID within each class; lower",
        ),
        Figure(
            "intra_fid_worst", f"intra-class FID, worst{worst}", max(own, default=None),
            max(real, default=None), max(chance, default=None),
            meaning="of the class furthest from real; lower",
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
                ("precision", True, "generated images that look like real ones; higher"),
                ("recall", True, "real images that the generator could draw; higher"),
                ("density", False, "how close generated images are to real ones; near real"),
                ("coverage", True, "real images with a generated one beside them; higher"),
            )
        ]
    )  # fmt: skip


def diversity_section(spreads: Values, reference: Reference) -> Section:
    """Spread of each class relative to the real spread."""
    classes, own, real = reference.train.classes, known(spreads), known(reference.diversity)
    if not own:
        reason = "it needs two images of a class, drawn and real"
        return Section(left_out=[f"diversity: {reason}"])
    least = classes[spreads.index(min(own))]
    section = Section(
        [
            Figure(
                "diversity_least", f"diversity, least ({least})", min(own), min(real, default=None),
                meaning="spread of a class over its real spread; near 1",
            )
        ]
    )  # fmt: skip
    named = zip(classes, spreads, strict=True)
    uniform = [name for name, ratio in named if ratio is not None and ratio < LOW_DIVERSITY]
    if uniform:
        section.warnings = [
            "it draws nearly the same image for every seed when asked for "
            f"{', '.join(uniform)}: the spread is {min(own):.2f} of the real one"
        ]
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
                meaning="Euclidean, pixels in [0, 1], median; near real",
            ),
            Figure(
                "copied_share", "closer than 99 % of held-out ones", share, 0.01, share=True,
                meaning="generated images that close to a training image; 1 % if they are new",
            ),
        ]
    )  # fmt: skip
    if share > HIGH_COPIED_SHARE:
        section.warnings = [
            f"it may be copying: {share:.0%} of its images are closer to a training image than "
            "99 % of held-out images are"
        ]
    return section


def background_section(drawn: FeatureSet, reference: Reference) -> Section:
    """Values in pixels that are 0 in every training image."""
    if not reference.background.any():
        return Section(left_out=["background noise: no pixel is 0 in every training image"])
    ink, held_out = float(drawn.ink.mean()), reference.held_out.ink
    section = Section(
        [
            Figure(
                "background_ink", "background noise", ink,
                float(held_out.mean()) if len(held_out) else None,
                meaning="mean value, in [0, 1], of pixels that are 0 in training; near 0",
            )
        ]
    )  # fmt: skip
    if ink > HIGH_BACKGROUND_INK:
        section.warnings = [f"there is noise in the background: {ink:.3f} on a scale of 0 to 1"]
    return section


def cas_section(sampler: Sampler, reference: Reference) -> Section:
    """CAS: real-image accuracy of a classifier trained on generated images only.

    Ravuri and Vinyals 2019, "Classification accuracy score"; the GAN-train of Shmelkov et al. 2018.
    """
    train, test = reference.train, reference.test
    if not sampler.conditional:
        return Section(left_out=["CAS: images of a plain GAN have no class"])
    if not len(test):
        return Section(left_out=["CAS: no real images are held out to classify"])
    per_class = max(min(len(train), CAS_PICTURES) // len(train.classes), 1)
    drawn = [(to_pixels(images).cpu(), y) for images, y in draw_by_class(sampler, per_class)]
    generated = ImageDataset(
        f"generated images ({train.name})",
        torch.cat([images for images, _ in drawn]),
        torch.cat([labels for _, labels in drawn]),
        train.classes,
    )
    student = train_judge(generated, test, "generated", sampler.device)
    figure = Figure(
        "cas", "CAS", student.header.held_out_accuracy, reference.judge.header.held_out_accuracy,
        1 / len(train.classes), share=True,
        meaning="real images classified correctly by a classifier of generated ones; higher",
    )  # fmt: skip
    return Section([figure])


def too_few(count: int, size: int) -> str:
    """Why there is no covariance."""
    return f"{count:,} images are too few for a covariance of {size:,} features"


def mean(values: list[float]) -> float | None:
    """The mean; None for an empty list."""
    return sum(values) / len(values) if values else None


def known(values: Values) -> list[float]:
    """The values that are not None."""
    return [value for value in values if value is not None]
