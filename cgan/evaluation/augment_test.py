"""Do generated images help a classifier of the real ones? ``cgan augment-test``.

The same network is trained on real images, on real and generated ones, and on generated ones alone:
each with as many steps, with batches of equally many images per class, and with several seeds. The
validation images choose the best way to use generated images; the test images measure it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgan.data import ImageDataset, ImageFolder, Loader, load_split
from cgan.errors import ConfigError, MeasureError, UnconditionalError
from cgan.evaluation.api import data_config_of, find_judge_of, other_split_warnings
from cgan.evaluation.control import check_fit, confusion_matrix
from cgan.evaluation.judge import JudgeNetwork, build_classifier
from cgan.evaluation.judge_training import (
    BATCH,
    choose_augment,
    default_architecture,
    default_images,
    may_mirror,
    train_classifier,
    weight_decay,
)
from cgan.runtime.device import (
    explain_out_of_memory,
    find_device,
    seeded,
    synchronize,
    to_device,
    torch_defaults,
)
from cgan.runtime.progress import CountProgress
from cgan.sampling.request import Request
from cgan.sampling.sampler import RejectionSampler, Sampler, as_sampler
from cgan.storage.images import to_pixels

WORDS = {
    "yes": "they help",
    "no": "do not use them",
    "no difference": "they make no difference that these seeds can show",
}
"""Verdicts in words."""
FACTORS = (1, 5)
"""Generated images per real image."""
MAX_DRAWN, MAX_BYTES = 100_000, 2**30
"""Generated images of one kind, and the bytes they take in memory, at most."""
MAX_SETS = 3 + 2 * len(FACTORS)
"""Training sets that ``make_training_sets`` makes, at most."""
MIN_IMAGES = 5_000
"""Fewest training images that a classifier is shown."""
TIMED_STEPS = 20

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class Row:
    """The accuracies of the classifiers of one training set, one per seed, each in [0, 1].

    Attributes:
        name: the name of the training set.
        generated: whether it has generated images.
        validation: mean accuracy of the classes on validation images.
        test: the same on test images.
        rarest: accuracy of the rarest class on test images; None if all classes are equally rare.
    """

    name: str
    generated: bool
    validation: tuple[float, ...]
    test: tuple[float, ...]
    rarest: tuple[float, ...] | None


@dataclass(frozen=True)
class AugmentTest:
    """The result of ``augment_test``.

    Attributes:
        model: the generator.
        train_images, test_images: numbers of real images.
        shown_images: training images that each classifier was shown.
        rarest_class: the class with the fewest training images; None if all are equally rare.
        rows: one per training set.
        verdict: ``yes``, ``no`` or ``no difference``.
        reason: the verdict in one sentence.
        left_out: training sets that could not be made, and why.
        warnings: reasons why the figures may be wrong.
        seconds: how long it took.
    """

    model: str
    train_images: int
    test_images: int
    shown_images: int
    rarest_class: str | None
    rows: list[Row]
    verdict: str
    reason: str
    left_out: list[str]
    warnings: list[str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON."""
        return asdict(self)


def decide(rows: list[Row]) -> tuple[str, str]:
    """The verdict and its reason.

    The best training set with generated images, and the best without, are chosen by their mean
    accuracy on validation images. Then every seed of one must be better on test images than every
    seed of the other. The reason also compares the accuracies of the rarest class.
    """
    with_them, without = (
        max(
            (row for row in rows if row.generated == generated),
            key=lambda row: _mean(row.validation),
        )
        for generated in (True, False)
    )
    verdict = compare(with_them.test, without.test)
    reason = (
        f"{WORDS[verdict]} ({with_them.name}: {_describe(with_them.test)} of test images are "
        f"right; {without.name}: {_describe(without.test)})"
    )
    if with_them.rarest and without.rarest:
        rarest = compare(with_them.rarest, without.rarest)
        reason += (
            f"; in the rarest class {WORDS[rarest]} ({_describe(with_them.rarest)} against "
            f"{_describe(without.rarest)})"
        )
    return verdict, reason


def compare(with_them: tuple[float, ...], without: tuple[float, ...]) -> str:
    """``yes`` if every accuracy with generated images is higher, ``no`` if every one is lower.

    If they made no difference, n seeds would give either verdict by chance once in ½ · C(2n, n)
    times: once in 10 for three seeds. The choice of the test images is not considered.
    """
    if min(with_them) > max(without):
        return "yes"
    return "no" if max(with_them) < min(without) else "no difference"


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _describe(values: tuple[float, ...]) -> str:
    return f"{100 * _mean(values):.1f} % ({100 * min(values):.1f} to {100 * max(values):.1f})"


@dataclass(frozen=True)
class TrainingSet:
    """Real and generated images, and how they are shown to a classifier.

    Attributes:
        name: its name in the report.
        real_share: share of real images in each batch.
        drawn: the generated images; None if there are none.
        augmented: whether images are shifted and, if they are photographs, mirrored.
    """

    name: str
    real_share: float
    drawn: ImageDataset | None = None
    augmented: bool = True

    def batches(
        self, real: ImageDataset | ImageFolder, batch: int, device: torch.device, seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless batches: images in [-1, 1], (batch, C, H, W), and labels.

        Every class occurs equally often, among the real and among the generated images.
        """
        count = round(batch * self.real_share)
        loaders = [
            Loader(dataset, size, device, seed=seed, balanced=True).batches()
            for dataset, size in ((real, count), (self.drawn, batch - count))
            if dataset is not None and size
        ]
        while True:
            images, labels = zip(*(next(loader) for loader in loaders), strict=True)
            yield torch.cat(images), torch.cat(labels)


def make_training_sets(
    sampler: Sampler,
    train: ImageDataset | ImageFolder,
    data: str | None = None,
    data_dir: str | Path | None = None,
) -> tuple[list[TrainingSet], list[str]]:
    """The training sets, and the reasons for those that cannot be made."""
    plain = draw_dataset(sampler, len(train))
    sets = [TrainingSet("real, not augmented", 1.0, augmented=False), TrainingSet("real", 1.0)]
    sets += _mixed(train, plain, "generated")
    left_out = []
    try:
        verify = RejectionSampler(find_judge_of(sampler, data, data_dir))
        verified = draw_dataset(sampler, len(train), verify)
    except MeasureError as error:
        left_out.append(f"verified images: {error}")
    else:
        sets += _mixed(train, verified, "verified")
    alone = f"{len(plain) / len(train):.2g}× generated alone"
    return [*sets, TrainingSet(alone, 0.0, plain)], left_out


def _mixed(train: ImageDataset | ImageFolder, drawn: ImageDataset, what: str) -> list[TrainingSet]:
    """Real images with ``FACTORS`` times as many generated ones, or with all of them."""
    sets = []
    for count in sorted({min(factor * len(train), len(drawn)) for factor in FACTORS}):
        chosen = replace(drawn, images=drawn.images[:count], labels=drawn.labels[:count])
        name = f"real + {count / len(train):.2g}× {what}"
        sets.append(TrainingSet(name, len(train) / (len(train) + count), chosen))
    return sets


def draw_dataset(
    sampler: Sampler, real_images: int, verify: RejectionSampler | None = None
) -> ImageDataset:
    """As many images of each class, in all ``FACTORS[-1]`` times as many as there are real ones.

    There are at most ``MAX_DRAWN``, and at most ``MAX_BYTES``.

    They are in the order of their seeds, class by class in turn, so that the first ones have all
    classes.
    """
    classes = len(sampler.classes)
    limit = min(MAX_DRAWN, MAX_BYTES // prod(sampler.image_shape))
    total = min(FACTORS[-1] * real_images, limit)
    labels = torch.arange(classes).repeat(-(-total // classes))
    request = Request(tuple(labels.tolist()), tuple(range(len(labels))))
    drawn = [to_pixels(images).cpu() for images, _ in sampler.batches(request, verify)]
    attributes = sampler.num_attributes
    images = torch.cat(drawn)
    return ImageDataset("generated", images, labels, sampler.classes, num_attributes=attributes)


@torch_defaults()
def augment_test(
    model: str | Path | Sampler,
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    minutes: float = 30.0,
    seeds: int = 3,
    device: str = "auto",
    progress: bool = False,
) -> AugmentTest:
    """Measure whether generated images help a classifier of the generator's training data.

    Args:
        model: a run folder, a generator file, ``"mnist"``, or a sampler.
        data: a data set or a folder to use instead of the data in the run's config.
        data_dir: where data sets are stored.
        minutes: about the longest training time of all classifiers together.
        seeds: classifiers per training set, at least 2.
        device: the device to use.
        progress: show progress on the terminal.

    Raises:
        UnconditionalError: the generator has no classes.
        MeasureError: there are no validation or no test images.
        ConfigError: ``minutes`` or ``seeds`` are too few.
    """
    if not isfinite(minutes) or minutes < 0 or seeds < 2:
        raise ConfigError("augment_test needs a number of minutes, and at least two seeds")
    begun, torch_device = time.monotonic(), find_device(device)
    sampler = as_sampler(model).to(torch_device)
    if not sampler.conditional:
        raise UnconditionalError("a plain GAN draws no labelled images, so it cannot help")
    source = data_config_of(sampler, data, data_dir)
    train, validation, test = (load_split(source, s) for s in ("train", "validation", "test"))
    check_fit(sampler, f"{train.name} has", train.classes, train.image_shape)
    for name, held_out in (("validation", validation), ("test", test)):
        if not len(held_out):
            raise MeasureError(f"{train.name} has no {name} images: add more images")
    trainer = ClassifierTrainer(train, torch_device)
    steps = trainer.steps_for(minutes, seeds * MAX_SETS)
    with explain_out_of_memory("generating images", "use a generator of smaller images"):
        sets, left_out = make_training_sets(sampler, train, data, data_dir)
    rarest = rarest_class(train.labels, test.labels)
    rows = []
    with CountProgress(seeds * len(sets) * steps * BATCH, progress) as shown:
        for one in sets:
            found = []
            for seed in range(seeds):
                network = trainer.train(one, steps, seed)
                found.append([accuracy_by_class(network, part) for part in (validation, test)])
                shown.add(steps * BATCH)
            rows.append(_result(one, found, rarest))
    verdict, reason = decide(rows)
    return AugmentTest(
        sampler.name, len(train), len(test), steps * BATCH,
        None if rarest is None else train.classes[rarest],
        rows, verdict, reason, left_out,
        other_split_warnings(sampler, source, train), time.monotonic() - begun,
    )  # fmt: skip


class ClassifierTrainer:
    """Trains classifiers of a data set, all with the same settings.

    Args:
        train: the real training images.
        device: the device to train on.
    """

    def __init__(self, train: ImageDataset | ImageFolder, device: torch.device) -> None:
        self.dataset, self.device = train, device
        self.augment = choose_augment(train, may_mirror(train))
        self.decay = weight_decay(train)

    def steps_for(self, minutes: float, classifiers: int) -> int:
        """Steps of each classifier: as a judge has, or fewer if the time does not suffice.

        Raises:
            ConfigError: it is too short for ``MIN_IMAGES``.
        """
        real = TrainingSet("real", 1.0)
        self.train(real, 1, 0)  # the first step is slower
        synchronize(self.device)
        begun = time.monotonic()
        self.train(real, TIMED_STEPS, 0)
        synchronize(self.device)
        speed = TIMED_STEPS * BATCH / (time.monotonic() - begun)
        images = min(60 * minutes * speed / classifiers, default_images(self.dataset))
        if images < MIN_IMAGES:
            needed = classifiers * MIN_IMAGES / speed / 60
            raise ConfigError(
                f"{minutes:g} minutes are too few for {classifiers} classifiers: each needs "
                f"{MIN_IMAGES:,} images, together about {needed:.2g} minutes: raise --minutes"
            )
        logger.info(
            "training %d classifiers on %s images each, about %.2g minutes",
            classifiers,
            f"{images:,.0f}",
            classifiers * images / speed / 60,
        )
        if (enough := default_images(self.dataset)) > images:
            logger.warning(
                "a judge of this data sees %s images: with --minutes %.0f the classifiers do too, "
                "and the verdict may differ",
                f"{enough:,}",
                1 + classifiers * enough / speed / 60,
            )
        return int(images) // BATCH

    def train(self, chosen: TrainingSet, steps: int, seed: int) -> JudgeNetwork:
        """A classifier trained on one training set."""
        shape, classes = self.dataset.image_shape, len(self.dataset.classes)
        augment = self.augment if chosen.augmented else _unchanged
        with seeded(seed, self.device):
            network = build_classifier(default_architecture(self.dataset), shape, classes)
            to_device(network, self.device)
            train_classifier(
                network,
                chosen.batches(self.dataset, BATCH, self.device, seed),
                steps,
                augment,
                self.decay,
            )
        return network.eval()


@torch.inference_mode()
def accuracy_by_class(network: JudgeNetwork, dataset: ImageDataset | ImageFolder) -> Tensor:
    """The accuracy of each class, (classes,); NaN for a class without images."""
    device = next(network.parameters()).device
    predicted = [
        network(dataset.take(indices).to(device) / 127.5 - 1).argmax(1).cpu()
        for indices in torch.arange(len(dataset)).split(500)
    ]
    cells = confusion_matrix(dataset.labels, torch.cat(predicted), len(dataset.classes))
    return cells.diagonal().double() / cells.sum(1)


def rarest_class(train: Tensor, test: Tensor) -> int | None:
    """The class with the fewest training images, from the labels (N,) of both splits.

    None if no class has less than half as many as the largest one, or it has no test images.
    """
    counts = torch.bincount(train)
    rarest = int(counts.argmin())
    is_rare = 2 * counts.min() < counts.max() and bool((test == rarest).any())
    return rarest if is_rare else None


def _result(chosen: TrainingSet, found: list[list[Tensor]], rarest: int | None) -> Row:
    validation, test = zip(*found, strict=True)
    return Row(
        chosen.name,
        chosen.drawn is not None,
        tuple(one.nanmean().item() for one in validation),
        tuple(one.nanmean().item() for one in test),
        None if rarest is None else tuple(one[rarest].item() for one in test),
    )


def _unchanged(images: Tensor) -> Tensor:
    return images
