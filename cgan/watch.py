"""The judge's looks at a generator while it learns: figures, the best one so far, and alarms."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from cgan.checkpoint import BEST_FILE, GENERATOR, GENERATOR_VERSION, JUDGE_FILE, read_header
from cgan.data import PictureFolder, Pictures, Split
from cgan.errors import FileError
from cgan.metrics.classifier import find_judge
from cgan.metrics.control import Control, check_judge
from cgan.metrics.distances import Moments, diversity_ratio, frechet_distance, moments
from cgan.metrics.features import FeatureNetwork, find_features
from cgan.metrics.gather import Seen, choose, draw_by_class, look_through, read_by_class
from cgan.sampling import Sampler

LOOK_PICTURES = 2_000
"""Pictures drawn for one look, all classes together."""

FALLEN = 0.1
"""Control accuracy this far below the best so far is an alarm,"""
FURTHER = 3.0
"""and so is an FID this many times the best so far,"""
COLLAPSED = 0.3
"""and a class with less than this of its real spread."""

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
    """

    control: Control
    fid: float | None
    fid_real: float | None
    diversity: float | None
    least_diverse: str
    features: str

    @property
    def shortfall(self) -> float:
        """Errors and FID, each over what real pictures get, added: 2 is as good as real."""
        ceiling = 1 - (self.control.judge_accuracy or 0.99)
        missed = (1 - self.control.accuracy) / max(ceiling, 1e-3)
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
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """For the generator's header."""
        return {
            **self.control.to_dict(),
            "fid": self.fid,
            "fid_real": self.fid_real,
            "diversity_least": self.diversity,
            "features": self.features,
            "shortfall": self.shortfall,
        }


class Watch:
    """One judge for one run, with what it must know of the real pictures."""

    def __init__(
        self,
        load: Callable[[Split], Pictures | PictureFolder],
        device: torch.device,
        folder: Path,
    ) -> None:
        self.train, test = load("train"), load("test")
        self.judge = find_judge(load, device, beside=folder)
        self.judge.save(folder / JUDGE_FILE)  # so that a run can be verified without its data
        self.network: FeatureNetwork = find_features("judge", self.judge)
        self.reference = self._moments(self._see(test, torch.arange(len(test))))
        self.best = _read_best(folder)
        self.told: set[str] = set()
        self.real: dict[int, Seen] = {}

    @property
    def per_class(self) -> int:
        """Pictures of each class for one look."""
        return max(LOOK_PICTURES // len(self.judge.classes), 2)

    def look(self, sampler: Sampler, per_class: int | None = None) -> Verdict:
        """Draw pictures of each class and see what they are worth."""
        check_judge(sampler, self.judge)
        per_class = per_class or self.per_class
        drawn = look_through(draw_by_class(sampler, per_class), self.judge, self.network)
        if per_class not in self.real:
            self.real[per_class] = self._see(self.train, choose(self.train, per_class))
        real = self.real[per_class]
        fid, fid_real = self._fid(drawn), self._fid(real)
        spreads = [
            (ratio, name)
            for label, name in enumerate(sampler.classes)
            if min(len(drawn.of(label)), len(real.of(label))) >= 2
            and isfinite(ratio := diversity_ratio(real.of(label), drawn.of(label)))
        ]
        diversity, least_diverse = min(spreads, default=(None, ""))
        return Verdict(
            Control.of(sampler, self.judge, drawn.asked, drawn.named),
            fid,
            fid_real,
            diversity,
            least_diverse,
            self.network.name,
        )

    def is_best(self, verdict: Verdict) -> bool:
        """Whether this one is better than all before it, which is then remembered."""
        if self.best is not None and self.best["shortfall"] <= verdict.shortfall:
            return False
        self.best = verdict.to_dict()
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
        if verdict.diversity is not None and verdict.diversity < COLLAPSED:
            self._tell(
                "collapse",
                f"{verdict.least_diverse} has collapsed: its pictures have only "
                f"{verdict.diversity:.0%} of the real spread, whatever the seed",
            )
        deaf = control.accuracy < 1.5 * control.chance
        if control.conditional and share >= 0.5 and deaf:
            self._tell(
                "deaf",
                f"it does not listen: after {share:.0%} of the budget control accuracy is "
                f"{control.accuracy:.1%}, and {control.chance:.1%} is chance",
            )

    def _tell(self, kind: str, sentence: str) -> None:
        if kind not in self.told:
            self.told.add(kind)
            logger.warning("%s", sentence)

    def _see(self, pictures: Pictures | PictureFolder, indices: torch.Tensor) -> Seen:
        return look_through(read_by_class(pictures, indices), self.judge, self.network)

    def _fid(self, seen: Seen) -> float | None:
        mine = self._moments(seen)
        if self.reference is None or mine is None:
            return None
        return frechet_distance(self.reference, mine)

    def _moments(self, seen: Seen) -> Moments | None:
        return moments(seen.features) if len(seen) > self.network.size else None


def _read_best(folder: Path) -> dict[str, Any] | None:
    """What was measured of the best generator of a run that goes on."""
    try:
        measured: dict[str, Any] = read_header(folder / BEST_FILE, GENERATOR, GENERATOR_VERSION)[
            "measured"
        ]
    except (FileError, KeyError):
        return None
    return measured if "shortfall" in measured else None
