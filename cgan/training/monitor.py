"""Evaluation during training: metrics, the best generator so far, and warnings."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cgan.data import ImageDataset, ImageFolder, Split
from cgan.errors import FileError
from cgan.evaluation.artifacts import Spot
from cgan.evaluation.control import Control, check_judge
from cgan.evaluation.features import evenly_spaced
from cgan.evaluation.judge_training import get_or_train_judge, reader_architecture
from cgan.evaluation.reference import Reference
from cgan.runtime.device import explain_out_of_memory
from cgan.sampling.sampler import Sampler
from cgan.storage.checkpoint import GENERATOR, read_header
from cgan.storage.paths import BEST_FILE, JUDGE_FILE
from cgan.storage.safe_reading import MAX_CONFUSION_CLASSES

EVAL_IMAGES = 2_000
"""Images per evaluation, all classes together."""
EVAL_SEED = 2**32
"""First seed of evaluations during training. Reports use the seeds from 0."""
TIE_TOLERANCE = 1.1
"""Two selection scores within this ratio count as equal, because evaluations are noisy."""
CONTROL_DROP = 0.1
"""Control accuracy this far below the best so far raises a warning."""
FID_RISE = 3.0
"""An FID higher than the best so far by this factor raises a warning."""
COLLAPSED = 0.3
"""A class with less than this fraction of its real spread raises a warning,"""
MIN_COLLAPSE_IMAGES = 20
"""if at least this many images per class were generated."""
COPIED = 0.2
"""A higher share of copies of training images raises a warning."""
COPY_QUERIES = 500
"""Generated images that are compared with all training images,"""
MAX_COPIED_VALUES = 10_000 * 3 * 32 * 32
"""if those have at most this many values: larger sets take minutes to search."""
Load = Callable[[Split], ImageDataset | ImageFolder]

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class EvalResult:
    """The result of one evaluation during training.

    Attributes:
        control: class control, with the confusion matrix.
        split: the real images that it was compared with: ``"validation"`` or ``"test"``.
        fid: in the judge's features; None if too few images are held out.
        fid_real: FID of as many other real images.
        diversity: the smallest spread of a class relative to its real spread; None if undefined.
        least_diverse: the class with that spread.
        features: the feature network's name.
        background: mean value of background pixels, in [0, 1]; None if there are none.
        spot: where isolated spots exceed those of real images most.
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
    spot: Spot | None = None

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
            "spots_at_one_place": None if self.spot is None else self.spot.share,
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


class Monitor:
    """Evaluates the generators of one run: with a small judge in looks, at the end with the reader.

    Evaluations during training use the validation images and their own seeds, so the test images
    and the seeds of the report do not influence which generator is the best.

    Args:
        load: returns a split of the data.
        device: the device to evaluate on.
        folder: the run folder; the judge is saved there, so that images can be verified without
            the data.
        architecture: of the judge for looks; without looks, that of the reader saves another one.
        unlabelled: training images without a class.
    """

    def __init__(
        self,
        load: Load,
        device: torch.device,
        folder: Path,
        architecture: str | None = None,
        unlabelled: ImageDataset | ImageFolder | None = None,
    ) -> None:
        self.load, self.device, self.folder = load, device, folder
        self.unlabelled = unlabelled
        with self._explain_out_of_memory():
            self.judge = get_or_train_judge(load, device, folder, architecture)
        self.judge.save(folder / JUDGE_FILE)
        self.per_class = max(EVAL_IMAGES // len(self.judge.classes), 2)
        self.best = _read_best(folder)
        self.warned: set[str] = set()

    @cached_property
    def validation(self) -> Reference:
        """The real images of evaluations during training."""
        return self._reference("validation", self.per_class)

    def evaluate(self, sampler: Sampler) -> EvalResult:
        """Evaluate against the validation images; raises ``RunError`` if memory runs out."""
        return self._evaluate(sampler, "validation", self.validation, EVAL_SEED)

    def evaluate_on_test(self, sampler: Sampler, per_class: int) -> EvalResult:
        """Evaluate against the test images, with as many images and the seeds of a report.

        Raises:
            RunError: memory ran out.
        """
        with self._explain_out_of_memory():
            architecture = reader_architecture(self.load("train"))
            self.judge = get_or_train_judge(
                self.load, self.device, beside=self.folder, architecture=architecture
            )
        reference = self._reference("test", per_class, real="validation")
        return self._evaluate(sampler, "test", reference, seed=0)

    def _explain_out_of_memory(self) -> AbstractContextManager[None]:
        return explain_out_of_memory(
            f"evaluating on {self.device}",
            "free memory, or turn evaluation off "
            "(--set eval_every_images=0 --set control_per_class=0)",
        )

    def _reference(self, split: Split, per_class: int, real: Split = "train") -> Reference:
        with self._explain_out_of_memory():
            return Reference(
                self.judge, self.load("train"), self.load(split),
                None if real == "train" else self.load(real),
                per_class=per_class, device=self.device, unlabelled=self.unlabelled,
            )  # fmt: skip

    def _evaluate(
        self,
        sampler: Sampler,
        split: Literal["validation", "test"],
        reference: Reference,
        seed: int,
    ) -> EvalResult:
        check_judge(sampler, self.judge)
        with self._explain_out_of_memory():
            drawn = reference.draw(sampler, seed)
        spreads = [
            (spread, name)
            for label, name in enumerate(sampler.classes)
            if (spread := reference.diversity_of(drawn, label)) is not None
        ]
        diversity, least_diverse = min(spreads, default=(None, ""))
        return EvalResult(
            control=reference.control_of(drawn, sampler.conditional),
            split=split,
            fid=reference.fid_of(drawn),
            fid_real=reference.fid,
            diversity=diversity,
            least_diverse=least_diverse,
            features=reference.network.name,
            background=float(drawn.background_level.mean()) if reference.background.any() else None,
            copied=self._copied_share(reference, drawn.images) if split == "validation" else None,
            spot=reference.worst_spot(reference.pixels_of(drawn.images)),
        )

    def _copied_share(self, reference: Reference, images: Tensor) -> float | None:
        """The share of copies; None if it cannot be told, or not quickly."""
        train = reference.trained_on
        if len(train) * math.prod(train.image_shape) > MAX_COPIED_VALUES:
            return None
        return reference.copied_share(evenly_spaced(images, COPY_QUERIES))

    def is_best(self, result: EvalResult) -> bool:
        """Whether to keep this generator: no worse than the best so far, within the noise.

        Among equal generators the latest is kept, because its learning rate was lower.
        """
        lowest = self.best["lowest_selection_score"] if self.best else float("inf")
        lowest = min(result.selection_score, lowest)
        if result.selection_score > TIE_TOLERANCE * lowest:
            return False
        self.best = {**result.to_dict(), "lowest_selection_score": lowest}
        return True

    def warn(self, result: EvalResult, folder: Path, progress: float) -> None:
        """Log each warning once: control dropped, FID rose, a class collapsed, images are copies,
        label ignored.
        """
        control, best = result.control, self.best or result.to_dict()
        kept = f"the best generator so far is kept in {folder / BEST_FILE}"
        if control.accuracy < best["control_accuracy"] - CONTROL_DROP:
            self._warn_once(
                "control",
                f"control accuracy has fallen from {best['control_accuracy']:.1%} to "
                f"{control.accuracy:.1%}: {kept}",
            )
        if result.fid is not None and best["fid"] and result.fid > FID_RISE * best["fid"]:
            self._warn_once(
                "fid", f"FID has risen from {best['fid']:.3g} to {result.fid:.3g}: {kept}"
            )
        # Early in training, a generator draws about the mean image of a class.
        late = progress >= 0.25 and self.per_class >= MIN_COLLAPSE_IMAGES
        if late and result.diversity is not None and result.diversity < COLLAPSED:
            self._warn_once(
                "collapse",
                f"{result.least_diverse} has collapsed: its images have only "
                f"{result.diversity:.0%} of the real spread",
            )
        # Early images are blurred, and a blurred image is close to many others.
        if progress >= 0.5 and result.copied is not None and result.copied > COPIED:
            self._warn_once(
                "copies",
                f"{result.copied:.0%} of the images are closer to a training image than 99 % of "
                "the validation images are: the generator may copy them; train it on more images",
            )
        if progress >= 0.5 and result.spot is not None and result.spot.is_fixed:
            self._warn_once("spots", result.spot.sentence)
        if progress >= 0.5 and control.ignores_label:
            self._warn_once(
                "label",
                f"the generator ignores its label: after {progress:.0%} of the budget control "
                f"accuracy is {control.accuracy:.1%}, and {control.chance:.1%} is chance",
            )

    def _warn_once(self, kind: str, sentence: str) -> None:
        if kind not in self.warned:
            self.warned.add(kind)
            logger.warning("%s", sentence)


def _read_best(folder: Path) -> dict[str, Any] | None:
    """The measurements of the best generator of a resumed run."""
    try:
        measured: dict[str, Any] = read_header(folder / BEST_FILE, GENERATOR)["measured"]
    except FileError:
        return None
    return measured if {"lowest_selection_score", "fid"} <= measured.keys() else None
