"""Recipes for a classifier: real images alone, and generated ones beside them.

Every recipe sees the same real images in the same order, equally many of each class. Generated ones
are added to them and take no place of theirs, with a weight of their own, and in the last fifth of
the training there are none. The recipes without generated images are the controls: a training
of equal compute, with and without the same soft labels, strong augmentation, and what people use
today, a linear head on the features of a pretrained network.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import starmap
from math import prod

import torch
from torch import Tensor
from torchvision.transforms import v2

from cgan.data import ImageDataset, ImageFolder, Loader
from cgan.errors import ConfigError
from cgan.evaluation.features import images_per_chunk
from cgan.evaluation.judge import (
    Judge,
    JudgeNetwork,
    Judges,
    PretrainedClassifier,
    build_classifier,
    soften,
)
from cgan.evaluation.judge_training import (
    BATCH,
    Added,
    choose_augment,
    default_architecture,
    default_images,
    may_mirror,
    train_classifier,
    weight_decay,
)
from cgan.evaluation.pretrained import MAX_FITTED, fit_head, fitted_features, raw_features
from cgan.runtime.device import seeded, synchronize, to_device
from cgan.runtime.progress import CountProgress
from cgan.runtime.streams import map_streams
from cgan.sampling.request import Request
from cgan.sampling.sampler import Sampler
from cgan.storage.images import to_pixels

LAST = 0.2
"""Share of the steps, the last ones, that see real images only."""
MOST = 2
"""Generated images per real one, at most."""
LONGEST = 1 + MOST * (1 - LAST)
"""Images that the longest recipe sees, per image that the first one sees."""
MIXUP, SMALLEST_CROP = 0.2, 0.5
"""α of mixup, and the least share of the area of a crop."""
LEAST_DRAWN, MAX_DRAWN, MAX_BYTES = 10_000, 100_000, 2**30
"""Generated images to draw, at least and at most, and the bytes they take in memory, at most."""
MIN_IMAGES = 5_000
"""Fewest real images that a classifier is shown."""
TIMED_STEPS = 20
LOOKS, LOOKED_AT = 10, 500
"""Points of a curve, and validation images that it is measured on."""

logger = logging.getLogger("cgan")
Pictures = ImageDataset | ImageFolder


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        name: its name in the report.
        generated: generated images that are added to each real one.
        weight: what each of them counts; a real one counts 1.
        judged: whether only those that the judges recognise, with soft labels.
        soft: whether the real images have soft labels too.
        strong: mirror images, crops and mixup in place of the usual augmentation.
        head: a linear head on pretrained features in place of a network that is trained.
        length: images that it sees, per image that the first recipe sees.
    """

    name: str
    generated: int = 0
    weight: float = 1.0
    judged: bool = False
    soft: bool = False
    strong: bool = False
    head: bool = False
    length: float = 1.0

    @property
    def cost(self) -> float:
        """The images that it sees in all, per image that the first recipe sees."""
        return 0.0 if self.head else self.length + (1 - LAST) * self.generated


AS_LONG = f"{LONGEST:g}× as long"
RECIPES = (
    Recipe("real"),
    Recipe(f"real, {AS_LONG}", length=LONGEST),
    Recipe(f"real, soft labels, {AS_LONG}", soft=True, length=LONGEST),
    Recipe(f"real, strong augmentation, {AS_LONG}", strong=True, length=LONGEST),
    Recipe("linear head on pretrained features", head=True),
    Recipe("real + 1× generated", generated=1),
    Recipe("real + 1× recognised, weight 0.3", generated=1, weight=0.3, judged=True),
    Recipe("real + 2× recognised", generated=2, judged=True),
    Recipe(
        "real, strong augmentation, + 1× recognised, weight 0.3", 1, 0.3, judged=True, strong=True
    ),
    Recipe("linear head, real + 1× recognised, weight 0.3", 1, 0.3, judged=True, head=True),
)


@dataclass(frozen=True)
class Material:
    """What the recipes use beside the real images.

    Attributes:
        drawn: generated images.
        recognised: those that the judges recognise; None if there are none of some class.
        soft: soft labels of ``recognised``, (N, classes).
        real_soft: soft labels of the real training images, (N, classes).
        left_out: share of ``drawn`` that the judges assign to another class.
        reader: has the pretrained features; None if there are none.
    """

    drawn: ImageDataset
    recognised: ImageDataset | None
    soft: Tensor
    real_soft: Tensor
    left_out: float
    reader: Judge | None = None


def count_to_draw(sampler: Sampler, real_images: int, used: int) -> int:
    """Generated images: twice as many as real ones, and 10,000 at least, unless fewer are used.

    Args:
        sampler: the generator.
        real_images: training images.
        used: images that the longest recipe sees.
    """
    limit = min(MAX_DRAWN, MAX_BYTES // prod(sampler.image_shape), used)
    return min(max(MOST * real_images, LEAST_DRAWN), limit)


def draw_dataset(sampler: Sampler, count: int, progress: bool = False) -> ImageDataset:
    """``count`` images, rounded up to whole turns of the classes; image i has the seed i."""
    labels = torch.arange(len(sampler.classes)).repeat(-(-count // len(sampler.classes)))
    request = Request(tuple(labels.tolist()), tuple(range(len(labels))))
    images = torch.empty(len(labels), *sampler.image_shape, dtype=torch.uint8)
    start = 0
    with CountProgress(len(labels), progress) as shown:
        for batch, _ in sampler.batches(request):
            images[start : start + len(batch)] = to_pixels(batch).cpu()
            start += len(batch)
            shown.add(len(batch))
    attributes = sampler.num_attributes
    return ImageDataset("generated", images, labels, sampler.classes, num_attributes=attributes)


def read(judges: Judges, dataset: Pictures, progress: bool = False) -> tuple[Tensor, Tensor]:
    """What judges say of all images: soft labels (N, classes), and whether each is recognised."""
    soft, recognised = [], []
    with CountProgress(len(dataset), progress) as shown:
        for some in torch.arange(len(dataset)).split(images_per_chunk(dataset)):
            labels = dataset.labels[some]
            found = judges.probabilities(dataset.take(some) / 255).cpu()
            soft.append(soften(found, labels))
            recognised.append(found.argmax(1) == labels)
            shown.add(len(some))
    return torch.cat(soft), torch.cat(recognised)


def make_material(
    drawn: ImageDataset, train: Pictures, judges: Judges, progress: bool = False
) -> Material:
    """Let the judges read generated and real images."""
    soft, found = read(judges, drawn, progress)
    recognised = None
    if len(drawn.labels[found].unique()) == len(drawn.classes):
        recognised = replace(drawn, images=drawn.images[found], labels=drawn.labels[found])
    real_soft, _ = read(judges, train, progress)
    reader = next((judge for judge in judges.judges if judge.is_pretrained), None)
    share = 1 - float(found.double().mean())
    return Material(drawn, recognised, soft[found], real_soft, share, reader)


def can_be_tried(recipe: Recipe, material: Material) -> bool:
    """Whether there is what a recipe needs."""
    has_images = material.recognised is not None or not recipe.judged
    return has_images and (material.reader is not None or not recipe.head)


class ClassifierTrainer:
    """Trains classifiers of a data set, all with the same settings.

    Args:
        train: the real training images.
        validation: images for the curves.
        device: the device to train on.
    """

    def __init__(self, train: Pictures, validation: Pictures, device: torch.device) -> None:
        self.dataset, self.device = train, device
        self.mirror = may_mirror(train)
        self.augment = choose_augment(train, self.mirror)
        self.decay = weight_decay(train)
        some = torch.randperm(len(validation), generator=_generator(0))[:LOOKED_AT]
        self.looked_at = ImageDataset(
            validation.name, validation.take(some), validation.labels[some], validation.classes
        )
        self._real_features: tuple[Tensor, Tensor] | None = None

    def steps_for(self, minutes: float, cost: float) -> int:
        """Steps of the first recipe: as a judge has, or fewer if the time does not suffice.

        Args:
            minutes: the time of all trainings together.
            cost: the ``Recipe.cost`` of all trainings together.

        Raises:
            ConfigError: it is too short for ``MIN_IMAGES``.
        """
        self._time(1)  # the first step is slower
        # A longer training minus a shorter one: reading processes have to start in both.
        seconds = (self._time(1 + TIMED_STEPS) - self._time(1)) / TIMED_STEPS
        speed = 60 * BATCH / max(seconds, 1e-6) / cost
        enough = default_images(self.dataset)
        images = min(minutes * speed, enough)
        if images < MIN_IMAGES:
            raise ConfigError(
                f"{minutes:g} minutes are too few: each classifier needs {MIN_IMAGES:,} real "
                f"images, together about {format_minutes(MIN_IMAGES / speed)}: raise --minutes"
            )
        logger.info(
            "each classifier sees %s real images, which takes about %s in all, beside drawing and "
            "judging",
            f"{images:,.0f}",
            format_minutes(images / speed),
        )
        if enough > images:
            logger.warning(
                "a judge of this data sees %s images: with --minutes %.0f the classifiers do too, "
                "and the verdict may differ",
                f"{enough:,}",
                1 + enough / speed,
            )
        return int(images) // BATCH

    def _time(self, steps: int) -> float:
        synchronize(self.device)
        begun = time.monotonic()
        self.train(RECIPES[0], steps, 0)
        synchronize(self.device)
        return time.monotonic() - begun

    def train(
        self,
        recipe: Recipe,
        steps: int,
        seed: int,
        material: Material | None = None,
        shown: CountProgress | None = None,
    ) -> tuple[JudgeNetwork, list[tuple[int, float]]]:
        """A classifier, and its curve: images seen, and accuracy on validation images.

        Args:
            recipe: how to train it.
            steps: those of the first recipe.
            seed: of weights, batches and augmentation.
            material: what the recipe uses beside the real images.
            shown: the progress to add to.
        """
        if recipe.head:
            assert material is not None
            return self._fit_head(recipe, seed, material), []
        shape, classes = self.dataset.image_shape, len(self.dataset.classes)
        steps = max(round(recipe.length * steps), 1)
        curve: list[tuple[int, float]] = []
        with seeded(seed, self.device):
            network = build_classifier(default_architecture(self.dataset), shape, classes)
            to_device(network, self.device)
            batches = self._real_batches(recipe, seed, material)
            if shown is not None:
                batches = self._watch(network, batches, recipe, steps, curve, shown)
            train_classifier(
                network,
                batches,
                steps,
                _unchanged if recipe.strong else self.augment,
                self.decay,
                added=self._added(recipe, steps, seed, material),
            )
        if shown is not None:
            total = round(BATCH * steps * recipe.cost / recipe.length)
            curve.append((total, self._look(network)))
        return network.eval(), curve

    def _real_batches(
        self, recipe: Recipe, seed: int, material: Material | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless batches of real images, the same for every recipe before augmentation."""
        targets = None
        if recipe.soft:
            assert material is not None
            targets = material.real_soft
        batches = Loader(
            self.dataset, BATCH, self.device, seed=seed, balanced=True, targets=targets
        ).batches()
        if not recipe.strong:
            return batches
        return starmap(self._strong(), batches)

    def _strong(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Images (B, C, H, W) and labels (B,) to other images and soft labels (B, classes)."""
        height, width = self.dataset.image_shape[1:]
        ratio = (0.75 * width / height, width / height / 0.75)
        crop = v2.RandomResizedCrop((height, width), scale=(SMALLEST_CROP, 1.0), ratio=ratio)
        steps: list[torch.nn.Module] = [crop]
        steps += [v2.RandomHorizontalFlip()] if self.mirror else []
        each, mix = v2.Compose(steps), v2.MixUp(alpha=MIXUP, num_classes=len(self.dataset.classes))

        def transform(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            mixed: tuple[Tensor, Tensor] = mix(torch.stack([each(one) for one in images]), labels)
            return mixed

        return transform

    def _added(
        self, recipe: Recipe, steps: int, seed: int, material: Material | None
    ) -> Added | None:
        if not recipe.generated:
            return None
        assert material is not None
        dataset, targets = material.drawn, None
        if recipe.judged:
            assert material.recognised is not None
            dataset, targets = material.recognised, material.soft
        size = recipe.generated * BATCH
        loader = Loader(dataset, size, self.device, seed=seed, balanced=True, targets=targets)
        batches: Iterator[tuple[Tensor, Tensor]] = loader.batches()
        if recipe.strong:
            batches = starmap(self._strong(), batches)
        return Added(batches, recipe.weight * recipe.generated, round((1 - LAST) * steps))

    def _watch(
        self,
        network: JudgeNetwork,
        batches: Iterator[tuple[Tensor, Tensor]],
        recipe: Recipe,
        steps: int,
        curve: list[tuple[int, float]],
        shown: CountProgress,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches. Between them it counts the images, and looks at the validation images."""
        looks = {round(index * steps / LOOKS) for index in range(1, LOOKS)}
        seen = 0
        for step, batch in enumerate(batches):
            if step in looks:
                curve.append((seen, self._look(network)))
            images = BATCH * (1 + recipe.generated * (step < round((1 - LAST) * steps)))
            seen += images
            shown.add(images)
            yield batch

    def _look(self, network: JudgeNetwork) -> float:
        right = is_right(network, self.looked_at)
        network.train()
        return by_class(right, self.looked_at.labels)

    def _fit_head(self, recipe: Recipe, seed: int, material: Material) -> JudgeNetwork:
        """The reader, or the reader with a head that is fitted to generated images too."""
        reader = material.reader
        assert reader is not None
        assert isinstance(reader.network, PretrainedClassifier)
        if not recipe.generated:
            return reader.network
        assert material.recognised is not None
        features, added = reader.network.pretrained, material.recognised
        if self._real_features is None:
            self._real_features = fitted_features(features, self.dataset, self.mirror)
        real, labels = self._real_features
        order = torch.randperm(len(added), generator=_generator(seed))
        order = order[: recipe.generated * min(len(self.dataset), MAX_FITTED)]
        found = torch.cat([real, raw_features(features, added, order, flip=False)])
        others = added.labels[order]
        weights = torch.cat([evenly(labels), recipe.weight * evenly(others)])
        network = PretrainedClassifier(self.dataset.image_shape, len(self.dataset.classes))
        network.load_state_dict(reader.network.state_dict())
        found = network.pretrained.standardise(found)
        fit_head(network.head, found, torch.cat([labels, others]), weights)
        to_device(network, self.device)
        return network.eval()


def evenly(labels: Tensor) -> Tensor:
    """Weights (N,) of images with these labels (N,): each class has the same sum, together 1."""
    counts = labels.bincount()
    return 1.0 / counts[labels] / int((counts > 0).sum())


@torch.no_grad()
def is_right(network: JudgeNetwork, dataset: Pictures) -> Tensor:
    """Whether the network predicts the class of each image: bool (N,)."""
    network.eval()
    device = next(network.parameters()).device

    def predict(some: Tensor) -> Tensor:
        images = dataset.take(some).to(device) / 127.5 - 1
        predicted: Tensor = network(images).argmax(1).cpu()
        return predicted

    chunks = torch.arange(len(dataset)).split(min(images_per_chunk(dataset), 250))
    return torch.cat(list(map_streams(predict, chunks, device))) == dataset.labels


def by_class(right: Tensor, labels: Tensor) -> float:
    """The mean over the classes of the share of right answers, from (N,) each."""
    present = labels.unique().tolist()
    return sum(float(right[labels == one].double().mean()) for one in present) / len(present)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _unchanged(images: Tensor) -> Tensor:
    return images


def format_minutes(minutes: float) -> str:
    """``0.35`` as ``0.35 minutes``, ``123.4`` as ``123 minutes``."""
    return f"{minutes:.0f} minutes" if minutes >= 10 else f"{minutes:.2g} minutes"
