"""The real pictures that generators are measured against, and what real ones get themselves.

Three sets go through judge and feature network: what a generator draws; ``new``, the real pictures
held out, which neither generator nor judge learned from; and ``real``, as many pictures of each
class of the training part as are drawn, or all it has. What ``real`` gets against ``new`` is the
ceiling. It is counted once, however many generators are measured. FID and its like depend on how
many pictures there are, so no more drawn ones are compared than there are in ``real``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from cgan.data import PictureFolder, Pictures, Split
from cgan.metrics.classifier import Judge
from cgan.metrics.control import Control
from cgan.metrics.distances import (
    NEIGHBOURS,
    Manifold,
    Moments,
    diversity_ratio,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    moments,
)
from cgan.metrics.features import find_features
from cgan.metrics.gather import (
    Labelled,
    Seen,
    choose,
    evenly,
    look_through,
    nearest_picture,
    never_inked,
    read_by_class,
)

Load = Callable[[Split], Pictures | PictureFolder]

MEMORY_QUERIES = 2_000
"""Pictures whose nearest training picture is looked for."""


MOST_PAIRED = 10_000
"""Pictures whose distances to each other are all counted, for KID and the manifolds."""


class Reference:
    """Real pictures, seen by one judge and one feature network.

    Args:
        judge: a classifier of the data.
        load: gives the split ``"train"`` or ``"test"`` of the data.
        held_out: in words, what the split ``"test"`` is.
        per_class: pictures of each class that generators will draw.
        features: ``"judge"``, or ``"inception"`` where its weights can be had.
        device: where the feature network looks.

    Raises:
        MeasureError: the features cannot be had.
    """

    def __init__(
        self,
        judge: Judge,
        load: Load,
        *,
        held_out: str = "",
        per_class: int = 1_000,
        features: str = "judge",
        device: torch.device | str = "cpu",
    ) -> None:
        self.judge, self.per_class, self.held_out = judge, per_class, held_out
        self.train, self.test = load("train"), load("test")
        self.network = find_features(features, judge, device)
        self.blank = never_inked(self.train)
        chosen = choose(self.train, per_class)
        self.real = self.look(read_by_class(self.train, chosen), len(chosen))
        everything = torch.arange(len(self.test))
        self.new = self.look(read_by_class(self.test, everything), len(everything))

    def look(self, batches: Iterable[Labelled], count: int) -> Seen:
        """See ``count`` pictures, and keep some for a look at their pixels."""
        kept_at = evenly(count, MEMORY_QUERIES)
        return look_through(batches, self.judge, self.network, self.blank, kept_at)

    @cached_property
    def control(self) -> Control | None:
        """What the judge says of the held-out pictures; None where there are none."""
        return Control.of(self.judge, self.new.asked, self.new.named) if len(self.new) else None

    @cached_property
    def moments(self) -> Moments | None:
        """Of the held-out pictures; None where they are too few."""
        return moments_of(self.new.features)

    @cached_property
    def real_moments(self) -> Moments | None:
        """Of the training pictures; None where they are too few."""
        return moments_of(self.real.features)

    @cached_property
    def class_moments(self) -> list[Moments | None]:
        """The same by class."""
        return [moments_of(self.new.of(label)) for label in range(len(self.train.classes))]

    @cached_property
    def fid(self) -> float | None:
        """Of real pictures."""
        return self.fid_of(self.real)

    @cached_property
    def class_fids(self) -> list[float | None]:
        """Intra-class FID of real pictures."""
        labels = range(len(self.train.classes))
        return [self.fid_of(self.real, label) for label in labels]

    @cached_property
    def chance_fids(self) -> list[float | None]:
        """Intra-class FID of real pictures of all classes: what it gets that does not listen."""
        everything = self.real_moments
        return [
            frechet_distance(here, everything) if here and everything else None
            for here in self.class_moments
        ]

    @cached_property
    def kid(self) -> float | None:
        """Of real pictures."""
        return self.kid_of(self.real)

    @cached_property
    def manifold(self) -> Manifold | None:
        """Precision, recall, density and coverage of real pictures."""
        return self.manifold_of(self.real)

    @cached_property
    def diversity(self) -> list[float | None]:
        """Spread of each class of the held-out pictures over that of the training ones."""
        labels = range(len(self.train.classes))
        return [self.diversity_of(self.new, label) for label in labels]

    @cached_property
    def distance(self) -> Tensor:
        """From held-out pictures to their nearest training pictures."""
        return nearest_picture(self.new.kept, self.train).distance

    def matched(self, seen: Seen, label: int | None = None) -> Tensor:
        """Features of as many pictures of each class, or of one, as there are in ``real``."""
        labels = range(len(self.train.classes)) if label is None else [label]
        return torch.cat([seen.of(k)[: len(self.real.of(k))] for k in labels])

    def fid_of(self, seen: Seen, label: int | None = None) -> float | None:
        """FID against the held-out pictures, all or of one class; None where too few."""
        against = self.moments if label is None else self.class_moments[label]
        mine = moments_of(self.matched(seen, label))
        return None if against is None or mine is None else frechet_distance(against, mine)

    def kid_of(self, seen: Seen) -> float | None:
        """KID against the held-out pictures; None where too few."""
        mine, new = some(self.matched(seen)), some(self.new.features)
        return kernel_distance(new, mine) if min(len(mine), len(new)) >= 2 else None

    def manifold_of(self, seen: Seen) -> Manifold | None:
        """Precision, recall, density and coverage against them; None where too few."""
        mine, new = some(self.matched(seen)), some(self.new.features)
        return manifold_scores(new, mine) if min(len(mine), len(new)) > NEIGHBOURS else None

    def diversity_of(self, seen: Seen, label: int) -> float | None:
        """Spread over that of the class's training pictures; None where there is none."""
        real, mine = self.real.of(label), seen.of(label)
        if min(len(real), len(mine)) < 2:
            return None
        ratio = diversity_ratio(real, mine)
        return ratio if isfinite(ratio) else None


def some(features: Tensor) -> Tensor:
    """At most :data:`MOST_PAIRED` of them, evenly apart: all pairs are looked at."""
    return features[evenly(len(features), MOST_PAIRED)]


def moments_of(features: Tensor) -> Moments | None:
    """Mean and covariance; None where there are too few for a covariance of full rank."""
    return moments(features) if len(features) > features.shape[1] else None
