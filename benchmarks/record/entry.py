"""What an entry needs: a clock, and files of drawn images. It imports nothing of cgan.

An entry is a program that is started as `python FILE --seed 0 --seconds 75 --out FOLDER --data-dir
DATA`. It trains a generator of MNIST digits, and while it trains it stores drawn images: a file
SECONDS.npy with 10,000 uint8 images (10000, 28, 28), of which image i shows the digit i mod 10.
SECONDS is the time since its process started, without the time for drawing and storing.

With `--pictures FOLDER` it trains on the colour pictures of 32×32 in a folder per class, and image
i, (3, 32, 32), shows class i mod K. Beside the images it stores drawing.json: the seconds that
drawing 1,000 images takes, and the bytes of the weights that draw.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 500


def process_start() -> float:
    """When this process started, in seconds since the epoch (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    lines = Path("/proc/stat").read_text().splitlines()
    boot = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


class Snapshots:
    """Stores drawn images every few seconds of training, or at given ones.

    Args:
        draw: labels int64 (B,) to uint8 images, (B, 28, 28) or (B, 3, 32, 32).
        network: the one whose weights a user keeps to draw.
    """

    def __init__(
        self, options: argparse.Namespace, draw: Callable[[Any], Any], network: Any = None
    ) -> None:
        self.options, self.draw, self.network = options, draw, network
        self.started, self.paused = process_start(), 0.0
        self.times = iter(options.at or itertools.count(options.every, options.every))
        self.next = next(self.times)

    def seconds(self) -> float:
        """Training time so far."""
        return time.time() - self.started - self.paused

    def wrap(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches of an epoch. Between them it stores images; at the end of time it exits."""
        for batch in batches:
            ended = self.seconds() >= self.options.seconds
            if ended or self.seconds() >= self.next:
                self.store()
            if ended:
                sys.stdout.flush()
                os._exit(0)  # a library's loop cannot be left in another way
            yield batch

    def watch(self, loader: Any) -> Any:
        """A DataLoader whose epochs pass through ``wrap``; it stays an instance of its class."""

        class Watched(type(loader)):
            def __iter__(loader) -> Iterator[Any]:
                return self.wrap(super().__iter__())

        loader.__class__ = Watched
        return loader

    def store(self) -> None:
        """Draw and store images now."""
        begun, at, count = time.time(), self.seconds(), self.options.count
        labels = np.arange(count) % self.options.classes
        parts = [self.draw(labels[i : i + BATCH]) for i in range(0, count, BATCH)]
        drawn = time.time() - begun
        np.save(self.options.out / f"{at:08.3f}.npy", np.concatenate(parts).astype(np.uint8))
        if self.network is not None:
            weights = self.network.state_dict().values()
            size = sum(one.numel() * one.element_size() for one in weights)
            row = {"seconds_per_1000": 1_000 * drawn / count, "bytes": size}
            (self.options.out / "drawing.json").write_text(json.dumps(row))
        self.next = next((one for one in self.times if one > at), float("inf"))
        self.paused += time.time() - begun


def parse() -> argparse.Namespace:
    """The options that every entry takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--at", type=float, nargs="*", help="seconds, in place of --every")
    parser.add_argument("--count", type=int, default=10_000, help="images to draw")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, help="a folder of pictures in place of MNIST")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.classes = len(list(options.pictures.iterdir())) if options.pictures else 10
    options.channels = 3 if options.pictures else 1
    return options


def to_images(options: argparse.Namespace, images: Any) -> Any:
    """Images (B, C, 32, 32) in [-1, 1], a torch tensor, as an entry stores them."""
    return to_pixels(images) if options.pictures else to_digits(images)


def to_digits(images: Any) -> Any:
    """Images (B, C, H, W) in [-1, 1], a torch tensor, as uint8 (B, 28, 28); 32×32 are cropped."""
    border = (images.shape[-1] - 28) // 2
    return to_pixels(images.float().mean(1)[:, border : border + 28, border : border + 28])


def to_pixels(images: Any) -> Any:
    """Images in [-1, 1], a torch tensor, as uint8."""
    return (127.5 * (images.float() + 1)).round().clamp(0, 255).byte().cpu().numpy()


def image_loader(options: argparse.Namespace, batch_size: int, low: float = -1) -> Any:
    """A DataLoader as in tutorials: pictures, also mirrored, or digits with a border."""
    if options.pictures is None:
        return mnist_loader(options, batch_size, channels=1, low=low)
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    if low < 0:
        steps.append(transforms.Normalize([0.5] * 3, [0.5] * 3))
    data = datasets.ImageFolder(str(options.pictures), transform=transforms.Compose(steps))
    return DataLoader(data, batch_size, shuffle=True, drop_last=True)


def mnist_loader(options: argparse.Namespace, batch_size: int, channels: int, low: float) -> Any:
    """A DataLoader as in tutorials, of 32×32 images in [low, 1] with a border of two pixels."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    steps = [transforms.Pad(2), transforms.ToTensor()]
    if channels == 3:
        steps.append(transforms.Lambda(lambda image: image.expand(3, -1, -1)))
    if low < 0:
        steps.append(transforms.Normalize([0.5] * channels, [0.5] * channels))
    data = datasets.MNIST(str(options.data_dir), transform=transforms.Compose(steps))
    return DataLoader(data, batch_size, shuffle=True, drop_last=True)
