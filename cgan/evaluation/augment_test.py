"""Do generated images help a classifier of the real ones? ``cgan augment-test``.

The same network is trained on real images, on real and generated ones, and on generated ones alone:
each with as many steps, with batches of equally many images per class, and with several seeds. The
validation images choose the best way to use generated images; the test images measure it.
"""

from __future__ import annotations

import logging
import time
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from cgan.data import ImageDataset, ImageFolder, load_split
from cgan.errors import ConfigError, MeasureError, UnconditionalError
from cgan.evaluation.api import other_split_warnings
from cgan.evaluation.augment_report import AugmentTest, Row, decide
from cgan.evaluation.classifiers import JudgeNetwork, build_classifier
from cgan.evaluation.control import check_fit, confusion_matrix
from cgan.evaluation.data_source import data_config_of
from cgan.evaluation.judge_training import (
    BATCH,
    choose_augment,
    default_architecture,
    default_images,
    train_classifier,
    weight_decay,
)
from cgan.evaluation.training_sets import MAX_SETS, TrainingSet, make_training_sets
from cgan.runtime.device import (
    explain_out_of_memory,
    find_device,
    seeded,
    synchronize,
    to_device,
    torch_defaults,
)
from cgan.runtime.progress import CountProgress
from cgan.sampling.sampler import Sampler, as_sampler

MIN_IMAGES = 5_000
"""Fewest training images that a classifier is shown."""
TIMED_STEPS = 20

logger = logging.getLogger("cgan")


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
        self.augment, self.decay = choose_augment(train), weight_decay(train)

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
