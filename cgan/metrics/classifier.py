"""The judge: a small classifier of the real pictures, which no generator ever learns from.

It is trained once for each data set, in a minute or two on a CPU, on the part that the generator
learns from too, and is reported with its own accuracy on the part that neither has seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from cgan.checkpoint import load_weights, read_header, read_tensors, save_tensors
from cgan.data.folder import PictureFolder
from cgan.data.loader import Loader
from cgan.data.sources import Pictures, Split, cache_folder
from cgan.errors import DataError, FileError
from cgan.places import JUDGE_FILE, PACKAGED

FORMAT = "cgan-judge"
FORMAT_VERSION = 1
BATCH = 128
PEAK_LR = 4e-3

FEATURES = 128
"""Length of the feature vector that the judge sees a picture as."""

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class JudgeHeader:
    """What a judge's file says of it."""

    data: str
    digest: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    held_out_accuracy: float | None
    """Share of held-out real pictures it names rightly; None where none were held out."""
    held_out_pictures: int


class Classifier(nn.Module):
    """Three convolutions, one hidden layer: (B, C, H, W) in [-1, 1] to logits (B, classes)."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for out in (32, 64, 64):
            layers += [
                nn.Conv2d(channels, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
            ]
            channels = out
            if min(height, width) >= 6:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        self.features = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(channels * height * width, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each class."""
        logits: Tensor = self.head(self.features(images))
        return logits


class Look(NamedTuple):
    """What a judge sees in pictures."""

    named: Tensor
    """The class of each, int64 (B,)."""
    features: Tensor
    """Its last hidden layer, float32 (B, FEATURES)."""


class Judge:
    """A trained classifier, asked which class a picture shows."""

    def __init__(self, network: Classifier, header: JudgeHeader) -> None:
        # Channels-last as it was trained: another layout rounds otherwise.
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.header = header

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of its answers."""
        return self.header.classes

    def to(self, device: torch.device | str) -> Judge:
        """Itself, moved."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def look(self, images: Tensor) -> Look:
        """Names and features of pictures (B, C, H, W) in [0, 1]; on the judge's device."""
        device = next(self.network.parameters()).device
        features = self.network.features(images.to(device) * 2 - 1)
        return Look(self.network.head(features).argmax(1), features)

    def classify(self, images: Tensor) -> Tensor:
        """The class of each picture: (B, C, H, W) in [0, 1] to int64 (B,)."""
        return self.look(images).named

    def save(self, path: Path) -> None:
        """Write it as one safetensors file."""
        header = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self.header)}
        save_tensors(path, dict(self.network.state_dict()), header)

    @classmethod
    def load(cls, path: Path) -> Judge:
        """Read it back; raises :class:`cgan.errors.FileError` where it is not a judge."""
        header = read_header(path, FORMAT, FORMAT_VERSION)
        try:
            channels, height, width = map(int, header["image_shape"])
            described = JudgeHeader(
                data=header["data"],
                digest=header["digest"],
                classes=tuple(header["classes"]),
                image_shape=(channels, height, width),
                held_out_accuracy=header["held_out_accuracy"],
                held_out_pictures=header["held_out_pictures"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path} has a header that cannot be understood: {error}") from error
        with torch.random.fork_rng([]):  # the weights drawn here are thrown away
            network = Classifier(described.image_shape, len(described.classes))
        load_weights(network, read_tensors(path), path)
        return cls(network, described)


def find_judge(
    load: Callable[[Split], Pictures | PictureFolder],
    device: torch.device | str = "cpu",
    beside: Path | None = None,
) -> Judge:
    """The judge of a data set: from the cache, at hand, in the package, or trained now and kept.

    Args:
        load: gives the split ``"train"`` or ``"test"`` of the data.
        device: where to train it and where it answers.
        beside: a folder, like a run's, that may hold a judge of the same data.

    Raises:
        DataError: there is only one class, so there is nothing to judge.
    """
    pictures = load("train")
    if len(pictures.classes) < 2:
        raise DataError(f"{pictures.name} has one class only: there is nothing to judge")
    digest = pictures.digest()
    path = cache_folder() / "judges" / f"{pictures.name}-{digest[:16]}.safetensors"
    at_hand = [] if beside is None else [beside / JUDGE_FILE]
    for place in (path, *at_hand, *PACKAGED.glob(f"*/{JUDGE_FILE}")):
        if place.exists():
            try:
                judge = Judge.load(place)
            except FileError as error:
                logger.warning("%s; leaving it aside", error)
            else:
                if judge.header.digest == digest:
                    return judge.to(device)
    judge = train_judge(pictures, load("test"), digest, device)
    try:
        judge.save(path)
    except FileError as error:
        logger.warning("the judge is not kept: %s", error)
    return judge


def train_judge(
    pictures: Pictures | PictureFolder,
    held_out: Pictures | PictureFolder,
    digest: str,
    device: torch.device | str = "cpu",
    images: int | None = None,
) -> Judge:
    """Train a classifier of real pictures: shifted by a few pixels, never mirrored.

    Args:
        pictures: what it learns from.
        held_out: what its accuracy is measured on.
        digest: the name of the data, kept in its header.
        device: where to train.
        images: pictures to show it; None is 80,000: more for a large set, less for a tiny one.
    """
    if images is None:
        enough = min(max(100 * len(pictures), 20_000), 80_000)
        images = min(max(4 * len(pictures), enough), 240_000)
    steps = max(images // BATCH, 1)
    logger.info("training a judge of %s (%d pictures, once)", pictures.name, steps * BATCH)
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    side = min(pictures.image_shape[1:])
    reach = max(1, side // 14)
    with torch.random.fork_rng(cuda), torch.enable_grad():
        torch.manual_seed(0)
        network = Classifier(pictures.image_shape, len(pictures.classes))
        network.to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), PEAK_LR, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps + 1)
        batches = Loader(pictures, BATCH, device, balanced=True).batches()
        for _, (real, labels) in zip(range(steps), batches, strict=False):
            loss = cross_entropy(network(shift(real, reach)), labels, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    judge = Judge(
        network,
        JudgeHeader(
            pictures.name, digest, pictures.classes, pictures.image_shape, None, len(held_out)
        ),
    )
    if len(held_out):
        accuracy = measure_accuracy(judge, held_out)
        judge.header = JudgeHeader(**{**asdict(judge.header), "held_out_accuracy": accuracy})
        logger.info("the judge names %.2f %% of held-out real pictures rightly", 100 * accuracy)
    return judge


def measure_accuracy(judge: Judge, pictures: Pictures | PictureFolder) -> float:
    """Share of real pictures that the judge names rightly."""
    right = 0
    for indices in torch.arange(len(pictures)).split(500):
        named = judge.classify(pictures.take(indices) / 255).cpu()
        right += int((named == pictures.labels[indices]).sum())
    return right / len(pictures)


def shift(images: Tensor, reach: int) -> Tensor:
    """The batch moved by up to ``reach`` pixels each way, −1 (black) moving in at the edges."""
    height, width = images.shape[2:]
    down, right = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    framed = pad(images, (reach, reach, reach, reach), value=-1.0)
    moved = framed[:, :, down : down + height, right : right + width]
    return moved.contiguous(memory_format=torch.channels_last)
