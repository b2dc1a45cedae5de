"""Rejection sampling: a judge checks each image, and rejected images are drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cgan.errors import ConfigError, MeasureError, UnconditionalError
from cgan.sampling.class_names import GeneratorInfo, Request

MAX_DRAWS = 100
"""Draws per image before rejection sampling fails."""

Draw = Callable[[list[int], Tensor, list[int]], Tensor]
"""Seeds, labels and draw indices to images."""


class ImageClassifier(Protocol):
    """Anything that classifies images, such as ``cgan.evaluation.judge.Judge``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of its predictions."""
        ...

    def classify(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to class indices, int64 (B,)."""
        ...


def check_verifiable(request: Request) -> None:
    """Check that a judge can verify the images of a request.

    Raises:
        UnconditionalError: they have no classes.
        ConfigError: they are of a mix of classes.
    """
    if request.mix is not None:
        raise ConfigError("a judge verifies single classes: leave out the mix or the verification")
    if request.labels is None:
        raise UnconditionalError("a plain GAN takes no class, so there is nothing to verify")


@dataclass
class RejectionSampler:
    """Draws rejected images again, and counts draws.

    A rejected image is replaced by one with the next z of its own seed, so it is a function of
    model, class, seed and judge. Do not measure control on accepted images. ``acceptance`` is
    biased too, because classes with less control are drawn more often.
    """

    judge: ImageClassifier
    drawn: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """Fraction of draws that the judge accepted, in [0, 1]."""
        return self.accepted / max(self.drawn, 1)

    def check(self, generator: GeneratorInfo, request: Request) -> None:
        """Check that the judge fits the request.

        Raises:
            UnconditionalError: the request has no classes.
            ConfigError: it is for a mix of classes.
            MeasureError: the judge has other classes than the generator.
        """
        check_verifiable(request)
        if self.judge.classes != generator.classes:
            raise MeasureError(
                f"the judge knows {', '.join(self.judge.classes[:5])}… and the generator draws "
                f"{', '.join(generator.classes[:5])}…: use a judge of the generator's training data"
            )

    @torch.inference_mode()
    def resample(self, images: Tensor, seeds: Sequence[int], labels: Tensor, draw: Draw) -> None:
        """Replace rejected images in place until the judge accepts all of them.

        Raises:
            MeasureError: an image was rejected ``MAX_DRAWS`` times.
        """
        rejected = list(range(len(seeds)))
        for index in range(MAX_DRAWS):
            if index:
                again = [seeds[position] for position in rejected]
                images[rejected] = draw(again, labels[rejected], [index] * len(rejected))
            predicted = self.judge.classify(images[rejected]).to(labels.device)
            agrees = (predicted == labels[rejected]).tolist()
            self.drawn += len(rejected)
            self.accepted += sum(agrees)
            rejected = [position for position, ok in zip(rejected, agrees, strict=True) if not ok]
            if not rejected:
                return
        name, seed = self.judge.classes[int(labels[rejected[0]])], seeds[rejected[0]]
        raise MeasureError(
            f"the judge rejected all {MAX_DRAWS} draws of seed {seed} for {name!r}: this generator "
            "has too little control to be verified (see cgan evaluate); train it longer"
        )
