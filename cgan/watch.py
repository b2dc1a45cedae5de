"""The judge's looks at a generator while it learns: figures, the best one so far, and alarms."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cgan.checkpoint import GENERATOR, GENERATOR_VERSION, read_header
from cgan.errors import FileError
from cgan.metrics.classifier import find_judge
from cgan.metrics.control import Control, check_judge
from cgan.metrics.gather import draw_by_class
from cgan.metrics.reference import Load, Reference
from cgan.places import BEST_FILE, JUDGE_FILE
from cgan.sampling import Sampler

LOOK_PICTURES = 2_000
"""Pictures drawn for one look, all classes together."""

NOISE = 1.1
"""One look finds a shortfall up to a tenth off."""

FALLEN = 0.1
"""Control accuracy this far below the best so far is an alarm,"""
FURTHER = 3.0
"""and so is an FID this many times the best so far,"""
COLLAPSED = 0.3
"""and a class with less than this of its real spread,"""
FEWEST_TO_COLLAPSE = 20
"""if so many pictures of each were drawn."""

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class Verdict:
    """What one look found.

    Attributes:
        control: class control, with the confusion matrix.
        fid: in the judge's features; None where too few pictures are held out.
        fid_real: of as many training pictures.
        diversity: spread of each class over its real spread, the least of all; None of one picture.
        least_diverse: the class it belongs to.
        features: the feature network's name.
        background: mean ink, of 1, where training pictures have none; None where all have some.
    """

    control: Control
    fid: float | None
    fid_real: float | None
    diversity: float | None
    least_diverse: str
    features: str
    background: float | None = None

    @property
    def shortfall(self) -> float:
        """Errors and FID, each over what real pictures get, added: 2 is as good as real."""
        known = self.control.judge_accuracy
        ceiling = 0.01 if known is None else 1 - known
        missed = (1 - self.control.accuracy) / max(ceiling, 1e-3)
        if not self.control.conditional:
            missed = 0.0  # chance, whatever it learns
        if self.fid is None or self.fid_real is None:
            return missed
        return missed + self.fid / max(self.fid_real, 1e-6)

    def figures(self) -> dict[str, float]:
        """For the loggers."""
        found = {
            "control_accuracy": self.control.accuracy,
            "control_accuracy_worst_class": self.control.per_class[self.control.worst],
            "fid": self.fid,
            "diversity_least": self.diversity,
            "background_ink": self.background,
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """For the generator's header."""
        return {
            **self.control.to_dict(),
            "fid": self.fid,
            "fid_real": self.fid_real,
            "diversity_least": self.diversity,
            "background_ink": self.background,
            "features": self.features,
            "shortfall": self.shortfall,
        }


class Watch:
    """One judge for one run, with what it must know of the real pictures."""

    def __init__(self, load: Load, device: torch.device, folder: Path) -> None:
        judge = find_judge(load, device, beside=folder)
        judge.save(folder / JUDGE_FILE)  # so that a run can be verified without its data
        self.per_class = max(LOOK_PICTURES // len(judge.classes), 2)
        self.load, self.device, self.judge = load, device, judge
        self.reference = Reference(judge, load, per_class=self.per_class, device=device)
        self.best = _read_best(folder)
        self.told: set[str] = set()

    def look(self, sampler: Sampler, per_class: int | None = None) -> Verdict:
        """Draw pictures of each class and see what they are worth."""
        check_judge(sampler, self.judge)
        reference = self.reference
        if per_class not in (None, reference.per_class):
            reference = Reference(self.judge, self.load, per_class=per_class, device=self.device)
        count = reference.per_class * len(sampler.classes)
        drawn = reference.look(draw_by_class(sampler, reference.per_class), count)
        labels = range(len(sampler.classes))
        spreads = [
            (spread, name)
            for label, name in zip(labels, sampler.classes, strict=True)
            if (spread := reference.diversity_of(drawn, label)) is not None
        ]
        diversity, least_diverse = min(spreads, default=(None, ""))
        return Verdict(
            Control.of(self.judge, drawn.asked, drawn.named, sampler.conditional),
            reference.fid_of(drawn),
            reference.fid,
            diversity,
            least_diverse,
            reference.network.name,
            float(drawn.ink.mean()) if reference.blank.any() else None,
        )

    def is_best(self, verdict: Verdict) -> bool:
        """Whether this one is to be kept: no worse than the best so far, as far as a look can tell.

        Of those that one look can't tell apart the latest is kept: it has learned at smaller steps.
        """
        least = min(verdict.shortfall, self.best["least_shortfall"] if self.best else float("inf"))
        if verdict.shortfall > NOISE * least:
            return False
        self.best = {**verdict.to_dict(), "least_shortfall": least}
        return True

    def warn(self, verdict: Verdict, folder: Path, share: float) -> None:
        """Say, once each, that control has fallen, pictures fell apart, or classes collapsed."""
        control, best = verdict.control, self.best or verdict.to_dict()
        kept = f"the best generator so far is kept in {folder / BEST_FILE}"
        if control.accuracy < best["control_accuracy"] - FALLEN:
            self._tell(
                "control",
                f"control accuracy has fallen from {best['control_accuracy']:.1%} to "
                f"{control.accuracy:.1%}: {kept}",
            )
        if verdict.fid is not None and best["fid"] and verdict.fid > FURTHER * best["fid"]:
            self._tell("fid", f"FID has risen from {best['fid']:.3g} to {verdict.fid:.3g}: {kept}")
        # At first every generator draws a class's mean.
        late = share >= 0.25 and self.per_class >= FEWEST_TO_COLLAPSE
        if late and verdict.diversity is not None and verdict.diversity < COLLAPSED:
            self._tell(
                "collapse",
                f"{verdict.least_diverse} has collapsed: its pictures have only "
                f"{verdict.diversity:.0%} of the real spread, whatever the seed",
            )
        if share >= 0.5 and control.deaf:
            self._tell(
                "deaf",
                f"it does not listen: after {share:.0%} of the budget control accuracy is "
                f"{control.accuracy:.1%}, and {control.chance:.1%} is chance",
            )

    def _tell(self, kind: str, sentence: str) -> None:
        if kind not in self.told:
            self.told.add(kind)
            logger.warning("%s", sentence)


def _read_best(folder: Path) -> dict[str, Any] | None:
    """What was measured of the best generator of a run that goes on."""
    try:
        measured: dict[str, Any] = read_header(folder / BEST_FILE, GENERATOR, GENERATOR_VERSION)[
            "measured"
        ]
    except (FileError, KeyError):
        return None
    return measured if "least_shortfall" in measured else None
