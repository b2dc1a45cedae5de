"""What an entry needs: a clock, and files of drawn images. It imports nothing of cgan.

An entry is a program that is started as `python FILE --seed 0 --seconds 75 --out FOLDER --data-dir
DATA`. It trains a generator of MNIST digits, and while it trains it stores drawn images: a file
SECONDS.npy with 10,000 uint8 images (10000, 28, 28), of which image i shows the digit i mod 10.
SECONDS is the time since its process started, without the time for drawing and storing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 10_000
BATCH = 500


def process_start() -> float:
    """When this process started, in seconds since the epoch (Linux)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    lines = Path("/proc/stat").read_text().splitlines()
    boot = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


class Snapshots:
    """Stores drawn images every few seconds of training.

    Args:
        draw: labels int64 (B,) to uint8 images (B, 28, 28).
    """

    def __init__(self, options: argparse.Namespace, draw: Callable[[Any], Any]) -> None:
        self.options, self.draw = options, draw
        self.started, self.paused, self.next = process_start(), 0.0, options.every

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
        begun, at = time.time(), self.seconds()
        labels = np.arange(COUNT) % 10
        parts = [self.draw(labels[i : i + BATCH]) for i in range(0, COUNT, BATCH)]
        np.save(self.options.out / f"{at:08.3f}.npy", np.concatenate(parts).astype(np.uint8))
        self.next = at + self.options.every
        self.paused += time.time() - begun


def parse() -> argparse.Namespace:
    """The options that every entry takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def to_digits(images: Any) -> Any:
    """Images (B, C, H, W) in [-1, 1], a torch tensor, as uint8 (B, 28, 28); 32×32 are cropped."""
    border = (images.shape[-1] - 28) // 2
    grey = images.float().mean(1)[:, border : border + 28, border : border + 28]
    return (127.5 * (grey + 1)).round().clamp(0, 255).byte().cpu().numpy()


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
