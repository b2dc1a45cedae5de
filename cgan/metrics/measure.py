"""Measure one generator: control first, then quality, diversity, copying, noise, usefulness."""

from __future__ import annotations

from math import isnan

import torch
from einops import rearrange
from torch import Tensor

from cgan.data import Pictures
from cgan.metrics.classifier import train_judge
from cgan.metrics.control import Control, check_judge
from cgan.metrics.distances import NEIGHBOURS, copied_share
from cgan.metrics.gather import Seen, draw_by_class, evenly, nearest_picture
from cgan.metrics.reference import MEMORY_QUERIES, Reference
from cgan.metrics.report import ClassFigures, Figure, Report
from cgan.png import to_pixels
from cgan.sampling import Sampler

GRID_COLUMNS = 10
PAIRS = 20
CAS_PICTURES = 60_000

FAR_BELOW = 0.8
"""Control below this share of what real pictures get is warned of."""
MOST_WARNED = 10
TOO_UNIFORM = 0.5
"""A class less spread than this beside the real one is warned of."""
TOO_CLOSE = 0.2
"""So many pictures nearer to training pictures than 99 % of new real ones are warned of."""
TOO_NOISY = 0.01
"""More ink than this, of 1, where real pictures have none is warned of."""


def measure(sampler: Sampler, reference: Reference, *, cas: bool = False) -> Report:
    """Measure everything about one generator.

    Args:
        sampler: the generator; seeds 0 to ``reference.per_class`` − 1 of each class are drawn.
        reference: the real pictures that it learned to draw.
        cas: also train a classifier on generated pictures alone; takes as long as a judge.

    Raises:
        MeasureError: the judge knows other classes, or the generator draws no numbers. A figure
            that can't be had is left out, and the report says why.
    """
    check_judge(sampler, reference.judge)
    count = len(sampler.classes) * reference.per_class
    drawn = reference.look(draw_by_class(sampler, reference.per_class), count)
    control = Control.of(reference.judge, drawn.asked, drawn.named, sampler.conditional)
    sheet = Sheet(sampler, drawn, reference)
    sheet.control(control)
    sheet.quality()
    sheet.manifold()
    sheet.diversity()
    pairs, distances = sheet.memory()
    sheet.background()
    if cas:
        sheet.usefulness()
    return Report(
        model=str(sampler.path),
        data=sampler.header["data"],
        conditional=sampler.conditional,
        features=reference.network.name,
        pictures=count,
        held_out=say_held_out(reference),
        compared=len(reference.real),
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

    def __init__(self, sampler: Sampler, drawn: Seen, reference: Reference) -> None:
        self.sampler, self.drawn, self.reference = sampler, drawn, reference
        self.classes = sampler.classes
        self.figures: list[Figure] = []
        self.warnings: list[str] = []
        self.left_out: list[str] = []

    def control(self, control: Control) -> None:
        """Whether it draws what it is asked for."""
        real, chance = self.reference.control, control.chance
        self._add(
            "control_accuracy", "control accuracy", control.accuracy,
            real.accuracy if real else None, chance, share=True,
            meaning="share of pictures that show the class asked for; higher is better",
        )  # fmt: skip
        self._add(
            "control_accuracy_worst_class", f"worst class ({control.worst})",
            control.per_class[control.worst], real.per_class[real.worst] if real else None,
            chance, share=True, meaning="the same of the class that is obeyed least",
        )  # fmt: skip
        if not self.sampler.conditional:
            self.warnings.append(
                "a plain GAN is told no class: what a requested class gets from it is chance"
            )
        elif control.deaf:
            self.warnings.append(
                f"it does not listen: control accuracy {control.accuracy:.1%} is about chance "
                f"({chance:.1%}), however good its pictures look"
            )
        else:
            if real and control.interval.high < FAR_BELOW * real.accuracy:
                self.warnings.append(
                    f"it obeys far less often than real pictures show their class: "
                    f"{control.accuracy:.1%} against {real.accuracy:.1%}"
                )
            self._warn_of_classes(control)
        unseen = [k for k in self.classes if real and isnan(real.per_class[k])]
        if unseen:
            self.left_out.append(f"what real {', '.join(unseen[:10])} get: none is held out")

    def _warn_of_classes(self, control: Control) -> None:
        """The classes that are mostly drawn as others, the worst first."""
        low = sorted((share, name) for name, share in control.per_class.items() if share < 0.5)
        for share, name in low[:MOST_WARNED]:
            row = control.confusion[self.classes.index(name)]
            other = self.classes[int(row.argmax())]
            self.warnings.append(
                f"asked for {name} it draws {name} only {share:.0%} of the time, "
                f"and {other} {int(row.max()) / int(row.sum()):.0%}"
            )
        if len(low) > MOST_WARNED:
            self.warnings.append(f"and so for {len(low) - MOST_WARNED} more classes")

    def quality(self) -> None:
        """Distance of the distributions: FID, KID, and FID within each class."""
        drawn, reference = self.drawn, self.reference
        size = reference.network.size
        fid = reference.fid_of(drawn)
        if fid is None:
            few = min(len(reference.matched(drawn)), len(reference.new))
            self.left_out.append(f"FID: {too_few(few, size)}")
        kid = reference.kid_of(drawn)
        if kid is None:
            self.left_out.append("KID: it needs two pictures drawn and two held out")
        self._add("fid", "FID", fid, reference.fid, meaning="distance of the feature sets; lower")
        self._add("kid", "KID", kid, reference.kid, meaning="the same without a Gaussian; lower")

        labels = range(len(self.classes))
        self.fids = [reference.fid_of(drawn, label) for label in labels]
        without = [label for label in labels if self.fids[label] is None]
        if without:
            names = ", ".join(self.classes[label] for label in without[:10])
            few = min(
                min(len(reference.matched(drawn, k)), len(reference.new.of(k))) for k in without
            )
            more = "…" if len(without) > 10 else ""
            self.left_out.append(f"intra-class FID of {names}{more}: {too_few(few, size)}")
        mine, real, chance = map(known, (self.fids, reference.class_fids, reference.chance_fids))
        self._add(
            "intra_fid_mean", "intra-class FID, mean", mean(mine), mean(real), mean(chance),
            meaning="FID within each class; lower",
        )  # fmt: skip
        worst = f" ({self.classes[self.fids.index(max(mine))]})" if mine else ""
        self._add(
            "intra_fid_worst", f"intra-class FID, worst{worst}", max(mine, default=None),
            max(real, default=None), max(chance, default=None),
            meaning="of the class furthest from real; lower",
        )  # fmt: skip

    def manifold(self) -> None:
        """Fidelity and diversity, apart."""
        mine, real = self.reference.manifold_of(self.drawn), self.reference.manifold
        if mine is None:
            few = min(len(self.reference.matched(self.drawn)), len(self.reference.new))
            self.left_out.append(
                f"precision, recall, density, coverage: {few} pictures are too few for "
                f"{NEIGHBOURS} neighbours"
            )
            return
        for key, share, meaning in (
            ("precision", True, "generated pictures that look like real ones; higher"),
            ("recall", True, "real pictures that the generator could draw; higher"),
            ("density", False, "how close generated ones lie to real ones; near real"),
            ("coverage", True, "real pictures with a generated one beside them; higher"),
        ):
            ceiling = getattr(real, key) if real else None
            self._add(key, key, getattr(mine, key), ceiling, share=share, meaning=meaning)

    def diversity(self) -> None:
        """Spread of each class beside the real spread."""
        labels = range(len(self.classes))
        self.spreads = [self.reference.diversity_of(self.drawn, k) for k in labels]
        mine, real = known(self.spreads), known(self.reference.diversity)
        if not mine:
            self.left_out.append("diversity: it needs two pictures of a class, drawn and real")
            return
        least = self.classes[self.spreads.index(min(mine))]
        self._add(
            "diversity_least", f"diversity, least ({least})", min(mine), min(real, default=None),
            meaning="spread of a class over its real spread; near 1",
        )  # fmt: skip
        spreads = zip(self.classes, self.spreads, strict=True)
        uniform = [name for name, ratio in spreads if ratio is not None and ratio < TOO_UNIFORM]
        if uniform:
            self.warnings.append(
                "it draws nearly the same picture, whatever the seed, when asked for "
                f"{', '.join(uniform)}: its spread is {min(mine):.2f} of the real one"
            )

    def memory(self) -> tuple[Tensor, Tensor]:
        """How near to training pictures: the closest pairs (uint8) and their distances."""
        train = self.reference.train
        mine = nearest_picture(self.drawn.kept, train)
        if len(self.reference.new):
            new = self.reference.distance
            share = copied_share(mine.distance, new)
            self._add(
                "nearest_training_picture", "nearest training picture",
                float(mine.distance.median()), float(new.median()),
                meaning="Euclidean, pixels in [0, 1], median; near real",
            )  # fmt: skip
            self._add(
                "copied_share", "closer than 99 % of new ones", share, 0.01, share=True,
                meaning="generated pictures nearer to a training picture; 1 % by definition if new",
            )  # fmt: skip
            if share > TOO_CLOSE:
                self.warnings.append(
                    f"it may be copying: {share:.0%} of its pictures are nearer to a training "
                    "picture than 99 % of new real ones are"
                )
        else:
            self.left_out.append("memorisation: no real pictures are held out to compare with")
        # The closest of each class: of all, they would be ones, which are alike anyway.
        asked = self.drawn.asked[evenly(len(self.drawn), MEMORY_QUERIES)]
        closest = mine.distance.argsort()
        labels = range(len(self.classes))
        each = max(PAIRS // len(self.classes), 1)
        order = torch.cat([closest[asked[closest] == label][:each] for label in labels])[:PAIRS]
        pairs = torch.stack([self.drawn.kept[order], train.take(mine.index[order])], dim=1)
        return pairs, mine.distance[order]

    def background(self) -> None:
        """Ink where real pictures never have any."""
        if not self.reference.blank.any():
            self.left_out.append("background noise: every pixel has ink in some real picture")
            return
        ink, new = float(self.drawn.ink.mean()), self.reference.new.ink
        self._add(
            "background_ink", "background noise", ink, float(new.mean()) if len(new) else None,
            meaning="mean ink, of 1, where training pictures never have any; near 0",
        )  # fmt: skip
        if ink > TOO_NOISY:
            self.warnings.append(f"there is noise where real pictures have no ink: {ink:.3f} of 1")

    def usefulness(self) -> None:
        """CAS: how a classifier of generated pictures names real ones. Ravuri and Vinyals 2019."""
        judge, train, test = self.reference.judge, self.reference.train, self.reference.test
        if not self.sampler.conditional:
            self.left_out.append("CAS: a plain GAN's pictures have no class to learn")
            return
        if not len(test):
            self.left_out.append("CAS: no real pictures are held out to be named")
            return
        per_class = max(min(len(train), CAS_PICTURES) // len(self.classes), 1)
        drawn = draw_by_class(self.sampler, per_class)
        batches = [(to_pixels(images).cpu(), asked) for images, asked in drawn]
        generated = Pictures(
            f"generated pictures ({train.name})",
            torch.cat([images for images, _ in batches]),
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
        real = self.reference.control
        shares = real.per_class.values() if real else [None] * len(self.classes)
        real_control = [None if share is None or isnan(share) else share for share in shares]
        rows = zip(
            self.classes, control.per_class.values(), control.intervals, real_control,
            self.fids, self.reference.class_fids, self.spreads, strict=True,
        )  # fmt: skip
        return [
            ClassFigures(name, share, interval.low, interval.high, seen, fid, real_fid, spread)
            for name, share, interval, seen, fid, real_fid, spread in rows
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


def say_held_out(reference: Reference) -> str:
    """In words, what the reference is."""
    count = len(reference.test)
    return f"{count:,} pictures: {reference.held_out}" if count else "nothing (too few pictures)"


def draw_grid(sampler: Sampler) -> Tensor:
    """uint8 (K, columns, C, H, W): the first seeds of each class, a row each."""
    batches = draw_by_class(sampler, GRID_COLUMNS)
    pixels = torch.cat([to_pixels(images).cpu() for images, _ in batches])
    return rearrange(pixels, "(k n) c h w -> k n c h w", n=GRID_COLUMNS)


def too_few(count: int, size: int) -> str:
    """Why there are no moments."""
    return f"{count:,} pictures are too few for a covariance of {size:,} features"


def mean(values: list[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def known(values: list[float | None]) -> list[float]:
    """Those that are not None."""
    return [value for value in values if value is not None]
