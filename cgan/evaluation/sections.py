"""Sections of a report about the generator itself: control, diversity, background.

The section functions do not depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isnan

from cgan.data.class_folders import first_few
from cgan.evaluation.control import Control
from cgan.evaluation.feature_set import FeatureSet, first_of_each_class
from cgan.evaluation.reference import Reference
from cgan.evaluation.report import Figure

LOW_CONTROL = 0.8
"""An upper confidence bound below this fraction of the real images' accuracy raises a warning."""
MAX_CLASS_WARNINGS = 10
LOW_DIVERSITY = 0.5
"""A class with a spread below this fraction of its real spread raises a warning."""
HIGH_BACKGROUND_INK = 0.01
"""A higher mean background value, in [0, 1], raises a warning."""

Values = list[float | None]

FEW_VALUES = 3
"""Values in the title of an attribute."""


@dataclass
class Section:
    """Metrics, warnings, and the reasons for metrics that were left out."""

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
            real.balanced_accuracy if real else None, chance, share=True,
            meaning="fraction of images that show the requested class; higher is better",
        ),
        Figure(
            "control_accuracy_worst_class", f"worst class ({control.worst})",
            control.per_class[control.worst], real.per_class[real.worst] if real else None,
            control.worst_class_chance, share=True,
            meaning="control accuracy of the worst class; higher is better",
        ),
    ]  # fmt: skip
    for index, one in enumerate(control.per_attribute):
        few = ", ".join(one.values[:FEW_VALUES]) + ("…" if len(one.values) > FEW_VALUES else "")
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
        section.left_out = [f"metrics of real {', '.join(absent[:10])}: no image is held out"]
    return section


def _class_warnings(control: Control) -> list[str]:
    """Warnings for classes with less than 50 % control, the worst first."""
    low = sorted((share, name) for name, share in control.per_class.items() if share < 0.5)
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


def second_judge_section(drawn: FeatureSet, reference: Reference) -> Section:
    """Control by the second judge, and how often both judges predict the same class."""
    judge = reference.second_judge
    assert judge is not None
    control = Control.of(judge, drawn.target, drawn.second_predicted)
    held_out = reference.held_out
    real = Control.of(judge, held_out.target, held_out.second_predicted) if held_out else None
    agreement = float((held_out.predicted == held_out.second_predicted).double().mean())
    return Section(
        [
            Figure(
                "control_accuracy_second_judge", f"control accuracy by {judge.name}",
                control.accuracy, real.balanced_accuracy if real else None, control.chance,
                share=True,
                meaning="the same images, classified by a judge with another architecture",
            ),
            Figure(
                "judge_agreement", "agreement of the judges",
                float((drawn.predicted == drawn.second_predicted).double().mean()),
                agreement if len(held_out) else None, share=True,
                meaning="images for which both judges predict the same class",
            ),
        ]
    )  # fmt: skip


def diversity_section(spreads: Values, reference: Reference) -> Section:
    """Spread of each class relative to the real spread."""
    classes, own, real = reference.train.classes, known(spreads), known(reference.diversity)
    if not own:
        reason = "it needs two generated and two real images of a class"
        return Section(left_out=[f"diversity: {reason}"])
    least = classes[spreads.index(min(own))]
    section = Section(
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
        section.warnings = [
            f"mode collapse in {first_few(uniform)}: images of different seeds are nearly the same "
            f"(lowest spread: {min(own):.2f} of the real one)"
        ]
    return section


def background_section(drawn: FeatureSet, reference: Reference) -> Section:
    """Values in pixels that are 0 in every training image."""
    if not reference.background.any():
        return Section(left_out=["background noise: no pixel is 0 in every training image"])
    matched = first_of_each_class(drawn.target, reference.counts)
    ink = float(drawn.ink[matched if len(matched) else slice(None)].mean())
    held_out = reference.held_out.ink
    section = Section(
        [
            Figure(
                "background_ink", "background noise", ink,
                float(held_out.mean()) if len(held_out) else None,
                meaning="mean value of pixels that are 0 in all training images; near 0 is best",
            )
        ]
    )  # fmt: skip
    if ink > HIGH_BACKGROUND_INK:
        section.warnings = [f"background noise: the mean value is {ink:.3f} (range 0 to 1)"]
    return section


def known(values: Values) -> list[float]:
    """The values that are not None."""
    return [value for value in values if value is not None]
