"""Obeying for certain: a judge looks at each picture, and what it refuses is drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cgan.asking import Described, PlainGan, Request
from cgan.errors import MeasureError

VERIFY_LIMIT = 100
"""Draws of one picture after which a judge's disagreement is an error."""

Draw = Callable[[list[int], Tensor, list[int]], Tensor]
"""Seeds, labels and attempts to pictures."""


class Names(Protocol):
    """Whoever names pictures: a :class:`cgan.metrics.classifier.Judge`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names it knows, in the order of its answers."""
        ...

    def classify(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [0, 1] to int64 (B,)."""
        ...


@dataclass
class Verifier:
    """Redraws what its judge does not take for the class that was asked for, and keeps count.

    A picture that is refused gets the next z of its own seed's sequence, so that it stays a
    function of model, class, seed and judge. What it lets through says nothing of the generator's
    own control, and ``acceptance`` little: classes that it obeys less are drawn more often.
    """

    judge: Names
    drawn: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """Share of draws that the judge agreed with, in [0, 1]."""
        return self.accepted / max(self.drawn, 1)

    def check(self, generator: Described, request: Request) -> None:
        """Refuse what cannot be verified.

        Raises:
            PlainGan: no class is asked for.
            MeasureError: the judge knows other classes.
        """
        if request.labels is None:
            raise PlainGan("a plain GAN is asked for no class, so there is nothing to verify")
        if self.judge.classes != generator.classes:
            raise MeasureError(
                f"the judge knows {', '.join(self.judge.classes[:5])}… and the generator draws "
                f"{', '.join(generator.classes[:5])}…: give a judge of the data it was trained on"
            )

    @torch.inference_mode()
    def redraw(self, pictures: Tensor, seeds: Sequence[int], labels: Tensor, draw: Draw) -> None:
        """Replace, in place, what the judge does not take for its class, until it does.

        Raises:
            MeasureError: it never does.
        """
        waiting = list(range(len(seeds)))
        for attempt in range(VERIFY_LIMIT):
            if attempt:
                again = [seeds[index] for index in waiting]
                pictures[waiting] = draw(again, labels[waiting], [attempt] * len(waiting))
            named = self.judge.classify(pictures[waiting]).to(labels.device)
            agreed = (named == labels[waiting]).tolist()
            self.drawn += len(waiting)
            self.accepted += sum(agreed)
            waiting = [index for index, yes in zip(waiting, agreed, strict=True) if not yes]
            if not waiting:
                return
        name, seed = self.judge.classes[int(labels[waiting[0]])], seeds[waiting[0]]
        raise MeasureError(
            f"the judge took none of {VERIFY_LIMIT} draws of seed {seed} for {name!r}: this "
            "generator obeys too rarely to be verified (see cgan evaluate); train it longer"
        )
