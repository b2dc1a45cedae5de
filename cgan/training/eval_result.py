"""The result of one evaluation during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cgan.evaluation.control import Control
from cgan.storage.limits import MAX_CONFUSION_CLASSES


@dataclass(frozen=True)
class EvalResult:
    """The result of one evaluation during training.

    Attributes:
        control: class control, with the confusion matrix.
        split: the real images that it was compared with: ``"validation"`` or ``"test"``.
        fid: in the judge's features; None if too few images are held out.
        fid_real: FID of the same number of training images.
        diversity: the smallest spread of a class relative to its real spread; None if undefined.
        least_diverse: the class with that spread.
        features: the feature network's name.
        background: mean value of background pixels, in [0, 1]; None if there are none.
        copied: the share of images that are closer to a training image than 99 % of the validation
            images are (1 % is chance); None if it was not measured.
    """

    control: Control
    split: Literal["validation", "test"]
    fid: float | None
    fid_real: float | None
    diversity: float | None
    least_diverse: str
    features: str
    background: float | None = None
    copied: float | None = None

    @property
    def selection_score(self) -> float:
        """Error rate plus FID, each divided by that of real images; lower is better."""
        known = self.control.judge_accuracy
        real_errors = 0.01 if known is None else 1 - known
        errors = (1 - self.control.accuracy) / max(real_errors, 1e-3)
        if not self.control.conditional:
            errors = 0.0  # its control is chance at all times
        if self.fid is None or self.fid_real is None:
            return errors
        return errors + self.fid / max(self.fid_real, 1e-6)

    def metrics(self) -> dict[str, float]:
        """The metrics to log."""
        found = {
            "control_accuracy": self.control.accuracy,
            "control_accuracy_worst_class": self.control.per_class[self.control.worst],
            "fid": self.fid,
            "diversity_least": self.diversity,
            "background_ink": self.background,
            "copied_share": self.copied,
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """The ``measured`` entry of a generator's header, whose size is limited."""
        few = len(self.control.classes) <= MAX_CONFUSION_CLASSES
        control = self.control.to_dict(with_confusion=few)
        return {
            **control,
            "split": self.split,
            "fid": self.fid,
            "fid_real": self.fid_real,
            "diversity_least": self.diversity,
            "background_ink": self.background,
            "features": self.features,
            "selection_score": self.selection_score,
        }
