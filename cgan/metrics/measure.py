"""Measure one generator against held-out real pictures: class by class and as a whole.

Three sets go through judge and feature network: what the generator draws, the real pictures held
out (the reference), and as many real pictures of the training part (what "real" gets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite

import torch
from einops import rearrange
from torch import Tensor

from cgan.data import PictureFolder, Pictures, Split
from cgan.errors import MeasureError
from cgan.images import to_pixels
from cgan.metrics.classifier import Judge, train_judge
from cgan.metrics.control import Control, check_judge
from cgan.metrics.distances import (
    NEIGHBOURS,
    Moments,
    copied_share,
    diversity_ratio,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    moments,
)
from cgan.metrics.features import FeatureNetwork, find_features
from cgan.metrics.gather import (
    Labelled,
    Seen,
    choose,
    draw_by_class,
    evenly,
    look_through,
    nearest_picture,
    never_inked,
    read_by_class,
)
from cgan.metrics.report import ClassFigures, Figure, Report
from cgan.sampling import Sampler

MEMORY_QUERIES = 2_000
"""Pictures whose nearest training picture is looked for."""

GRID_COLUMNS = 10
PAIRS = 20
CAS_PICTURES = 60_000

TOO_UNIFORM = 0.5
"""A class less spread than this beside the real one is warned of."""
TOO_CLOSE = 0.2
"""So many pictures nearer to training pictures than 99 % of new real ones are warned of."""
TOO_NOISY = 0.01
"""More ink than this, of 1, where real pictures have none is warned of."""

Load = Callable[[Split], Pictures | PictureFolder]


def measure(
    sampler: Sampler,
    judge: Judge,
    load: Load,
    *,
    held_out: str,
    per_class: int = 1_000,
    features: str = "judge",
    cas: bool = False,
) -> Report:
    """Measure everything about one generator.

    Args:
        sampler: the generator; seeds 0 to ``per_class`` − 1 of each class are drawn.
        judge: a classifier of the same data.
        load: gives the split ``"train"`` or ``"test"`` of the data.
        held_out: in words, what the split ``"test"`` is.
        per_class: pictures to draw of each class.
        features: ``"judge"``, or ``"inception"`` where its weights can be had.
        cas: also train a classifier on generated pictures alone; takes as long as a judge.

    Raises:
        MeasureError: the judge knows other classes, the generator draws no numbers, or the features
            cannot be had. A figure that can't be had is left out, and the report says why.
    """
    check_judge(sampler, judge)
    train, test = load("train"), load("test")
    network = find_features(features, judge, sampler.device)
    blank = never_inked(train)
    classes = len(sampler.classes)

    def look(batches: Iterable[Labelled], count: int) -> Seen:
        return look_through(batches, judge, network, blank, evenly(count, MEMORY_QUERIES))

    count = classes * per_class
    drawn = look(draw_by_class(sampler, per_class), count)
    if not drawn.features.isfinite().all():
        raise MeasureError(
            f"{sampler.path} draws pictures that are not numbers (NaN): its training diverged; "
            "train it again with a lower --lr"
        )
    chosen = choose(train, per_class)
    real = look(read_by_class(train, chosen), len(chosen))
    new = look(read_by_class(test, torch.arange(len(test))), len(test))

    control = Control.of(sampler, judge, drawn.asked, drawn.named)
    sheet = Sheet(drawn, real, new, network, sampler, train)
    sheet.control(control, judge)
    sheet.quality()
    sheet.manifold()
    sheet.diversity()
    pairs, distances = sheet.memory()
    sheet.background()
    if cas:
        sheet.usefulness(judge, test)
    return Report(
        model=str(sampler.path),
        data=sampler.header["data"],
        conditional=sampler.conditional,
        features=network.name,
        pictures=count,
        held_out=f"{len(test):,} pictures: {held_out}",
        images_seen=sampler.header["images_seen"],
        seconds=sampler.header["seconds"],
        control=control,
        figures=sheet.figures,
        classes=sheet.by_class(control),
        warnings=sheet.warnings,
        left_out=sheet.left_out,
        grid=draw_grid(sampler),
        pairs=pairs,
        pair_distances=distances,
    )


class Sheet:
    """The figures of one generator, as they are filled in."""

    def __init__(
        self,
        drawn: Seen,
        real: Seen,
        new: Seen,
        network: FeatureNetwork,
        sampler: Sampler,
        train: Pictures | PictureFolder,
    ) -> None:
        self.drawn, self.real, self.new, self.network = drawn, real, new, network
        self.sampler, self.train, self.classes = sampler, train, sampler.classes
        self.figures: list[Figure] = []
        self.warnings: list[str] = []
        self.left_out: list[str] = []
        none: list[float | None] = [None] * len(self.classes)
        self.fids, self.real_fids, self.spreads = [*none], [*none], [*none]

    def control(self, control: Control, judge: Judge) -> None:
        """Whether it draws what it is asked for."""
        real = Control.of(self.sampler, judge, self.new.asked, self.new.named)
        known, chance = len(self.new) > 0, control.chance
        self.real_control = list(real.per_class.values()) if known else [None] * len(self.classes)
        self._add(
            "control_accuracy", "control accuracy", control.accuracy,
            real.accuracy if known else None, chance, share=True,
            meaning="share of pictures that show the class asked for; higher is better",
        )  # fmt: skip
        self._add(
            "control_accuracy_worst_class", f"worst class ({control.worst})",
            control.per_class[control.worst],
            real.per_class[real.worst] if known else None, chance, share=True,
            meaning="the same of the class that is obeyed least",
        )  # fmt: skip
        if not self.sampler.conditional:
            self.warnings.append(
                "a plain GAN is told no class: what a requested class gets from it is chance"
            )
        elif control.interval.high < 2 * chance and len(self.classes) > 2:
            self.warnings.append(
                f"it does not listen: control accuracy {control.accuracy:.1%} is about chance "
                f"({chance:.1%}), however good its pictures look"
            )
        else:
            for name, share in control.per_class.items():
                row = control.confusion[self.classes.index(name)]
                other = self.classes[int(row.argmax())]
                if share < 0.5:
                    self.warnings.append(
                        f"asked for {name} it draws {name} only {share:.0%} of the time, "
                        f"and {other} {int(row.max()) / int(row.sum()):.0%}"
                    )

    def quality(self) -> None:
        """Distance of the distributions: FID, KID, and FID within each class."""
        drawn, real, new = (moments_of(seen.features) for seen in (self.drawn, self.real, self.new))
        fid = real_fid = kid = real_kid = None
        if drawn is None or new is None:
            few = min(len(self.drawn), len(self.new))
            self.left_out.append(f"FID: {too_few(few, self.network.size)}")
        else:
            fid = frechet_distance(new, drawn)
            real_fid = frechet_distance(new, real) if real is not None else None
        if min(map(len, (self.drawn, self.real, self.new))) >= 2:
            kid = kernel_distance(self.new.features, self.drawn.features)
            real_kid = kernel_distance(self.new.features, self.real.features)
        self._add("fid", "FID", fid, real_fid, meaning="distance of the feature sets; lower")
        self._add("kid", "KID", kid, real_kid, meaning="the same without a Gaussian; lower")

        chances = []
        skipped: dict[str, int] = {}
        for label, name in enumerate(self.classes):
            here = [moments_of(seen.of(label)) for seen in (self.drawn, self.real, self.new)]
            mine, theirs, reference = here
            if mine is None or reference is None:
                skipped[name] = min(len(self.drawn.of(label)), len(self.new.of(label)))
                continue
            self.fids[label] = frechet_distance(reference, mine)
            if theirs is not None:
                self.real_fids[label] = frechet_distance(reference, theirs)
            if real is not None:
                chances.append(frechet_distance(reference, real))
        if skipped:
            names = ", ".join(list(skipped)[:10]) + ("…" if len(skipped) > 10 else "")
            few = too_few(min(skipped.values()), self.network.size)
            self.left_out.append(f"intra-class FID of {names}: {few}")
        known = [(fid, name) for fid, name in zip(self.fids, self.classes, strict=True) if fid]
        real_known = [fid for fid in self.real_fids if fid is not None]
        worst = f" ({max(known)[1]})" if known else ""
        self._add(
            "intra_fid_mean", "intra-class FID, mean", mean([fid for fid, _ in known]),
            mean(real_known), mean(chances), meaning="FID within each class; lower",
        )  # fmt: skip
        self._add(
            "intra_fid_worst", f"intra-class FID, worst{worst}",
            max(known)[0] if known else None, max(real_known, default=None),
            max(chances, default=None), meaning="of the class furthest from real; lower",
        )  # fmt: skip

    def manifold(self) -> None:
        """Fidelity and diversity, apart."""
        sizes = [len(self.drawn), len(self.real), len(self.new)]
        if min(sizes) <= NEIGHBOURS:
            self.left_out.append(
                f"precision, recall, density, coverage: {min(sizes)} pictures are too few for "
                f"{NEIGHBOURS} neighbours"
            )
            return
        mine = manifold_scores(self.new.features, self.drawn.features)
        real = manifold_scores(self.new.features, self.real.features)
        for key, share, meaning in (
            ("precision", True, "generated pictures that look like real ones; higher"),
            ("recall", True, "real pictures that the generator could draw; higher"),
            ("density", False, "how close generated ones lie to real ones; near real"),
            ("coverage", True, "real pictures with a generated one beside them; higher"),
        ):
            value, ceiling = getattr(mine, key), getattr(real, key)
            self._add(key, key, value, ceiling, share=share, meaning=meaning)

    def diversity(self) -> None:
        """Spread of each class beside the real spread."""
        real_spreads = []
        for label in range(len(self.classes)):
            mine, theirs, new = (s.of(label) for s in (self.drawn, self.real, self.new))
            if min(len(mine), len(theirs)) >= 2 and isfinite(r := diversity_ratio(theirs, mine)):
                self.spreads[label] = r
                if len(new) >= 2:
                    real_spreads.append(diversity_ratio(theirs, new))
        known = [(r, n) for r, n in zip(self.spreads, self.classes, strict=True) if r is not None]
        if not known:
            self.left_out.append("diversity: no class has two real pictures that differ")
            return
        self._add(
            "diversity_least", f"diversity, least ({min(known)[1]})", min(known)[0],
            min(real_spreads, default=None),
            meaning="spread of a class over its real spread; near 1",
        )  # fmt: skip
        uniform = [name for ratio, name in known if ratio < TOO_UNIFORM]
        if uniform:
            self.warnings.append(
                "it draws nearly the same picture, whatever the seed, when asked for "
                f"{', '.join(uniform)}: its spread is {min(known)[0]:.2f} of the real one"
            )

    def memory(self) -> tuple[Tensor, Tensor]:
        """How near to training pictures: the closest pairs (uint8) and their distances."""
        mine = nearest_picture(self.drawn.kept, self.train)
        drawn = mine.distance
        if len(self.new):
            new = nearest_picture(self.new.kept, self.train).distance
            share = copied_share(drawn, new)
            self._add(
                "nearest_training_picture", "nearest training picture", float(drawn.median()),
                float(new.median()), meaning="Euclidean, pixels in [0, 1], median; near real",
            )  # fmt: skip
            self._add(
                "copied_share", "closer than 99 % of new ones", share, 0.01, share=True,
                meaning="generated pictures nearer to a training picture than that; near 1 %",
            )  # fmt: skip
            if share > TOO_CLOSE:
                self.warnings.append(
                    f"it may be copying: {share:.0%} of its pictures are nearer to a training "
                    "picture than 99 % of new real ones are"
                )
        else:
            self.left_out.append("memorisation: no real pictures are held out to compare with")
        order = drawn.argsort()[:PAIRS]
        pairs = torch.stack([self.drawn.kept[order], self.train.take(mine.index[order])], dim=1)
        return pairs, drawn[order]

    def background(self) -> None:
        """Ink where real pictures never have any."""
        if self.drawn.ink.isnan().any():
            self.left_out.append("background noise: every pixel has ink in some real picture")
            return
        ink = float(self.drawn.ink.mean())
        self._add(
            "background_ink", "background noise", ink,
            float(self.new.ink.mean()) if len(self.new) else None,
            meaning="mean ink, of 1, where training pictures never have any; near 0",
        )  # fmt: skip
        if ink > TOO_NOISY:
            self.warnings.append(f"there is noise where real pictures have no ink: {ink:.3f} of 1")

    def usefulness(self, judge: Judge, test: Pictures | PictureFolder) -> None:
        """CAS: how a classifier of generated pictures names real ones. Ravuri and Vinyals 2019."""
        if not self.sampler.conditional:
            self.left_out.append("CAS: a plain GAN's pictures have no class to learn")
            return
        if not len(test):
            self.left_out.append("CAS: no real pictures are held out to be named")
            return
        per_class = max(min(len(self.train), CAS_PICTURES) // len(self.classes), 1)
        batches = list(draw_by_class(self.sampler, per_class))
        generated = Pictures(
            f"generated pictures ({self.train.name})",
            torch.cat([to_pixels(images).cpu() for images, _ in batches]),
            torch.cat([asked for _, asked in batches]),
            self.classes,
        )
        student = train_judge(generated, test, "generated", self.sampler.device)
        self._add(
            "cas", "CAS", student.header.held_out_accuracy, judge.header.held_out_accuracy,
            1 / len(self.classes), share=True,
            meaning="real pictures named rightly by a classifier of generated ones; higher",
        )  # fmt: skip

    def by_class(self, control: Control) -> list[ClassFigures]:
        """The same, class by class."""
        rows = zip(
            self.classes, control.per_class.values(), control.intervals, self.real_control,
            self.fids, self.real_fids, self.spreads, strict=True,
        )  # fmt: skip
        return [
            ClassFigures(name, share, interval.low, interval.high, real, fid, real_fid, spread)
            for name, share, interval, real, fid, real_fid, spread in rows
        ]

    def _add(
        self,
        key: str,
        title: str,
        value: float | None,
        real: float | None = None,
        chance: float | None = None,
        *,
        share: bool = False,
        meaning: str = "",
    ) -> None:
        self.figures.append(Figure(key, title, value, real, chance, share, meaning))


def draw_grid(sampler: Sampler) -> Tensor:
    """uint8 (K, columns, C, H, W): the first seeds of each class, a row each."""
    batches = draw_by_class(sampler, GRID_COLUMNS)
    pixels = torch.cat([to_pixels(images).cpu() for images, _ in batches])
    return rearrange(pixels, "(k n) c h w -> k n c h w", n=GRID_COLUMNS)


def moments_of(features: Tensor) -> Moments | None:
    """Mean and covariance; None where there are too few for a covariance of full rank."""
    return moments(features) if len(features) > features.shape[1] else None


def too_few(count: int, size: int) -> str:
    """Why there are no moments."""
    return f"{count:,} pictures are too few for a covariance of {size:,} features"


def mean(values: list[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None
