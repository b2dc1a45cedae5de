"""Inversion of real test images: class, distance, time; mixes; and the style in other classes.

The style of a drawn digit is measured by its ink, which grows with the width of the stroke, and by
its slant: the covariance of column and row, weighted by ink, divided by the variance of the row.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

import cgan
from cgan.config import DataConfig
from cgan.data import load_split
from cgan.evaluation.invert import invert_batch, train_encoder
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import get_or_train_judge
from cgan.storage.images import make_grid, save_png, to_pixels

MIX_IMAGES = 100
"""Images of each mix."""
STEPS = 5
"""Mixes on the way from one class to another."""


def ink(images: Tensor) -> Tensor:
    """The mean pixel, (N,), of images (N, C, H, W) in [0, 1]."""
    return images.flatten(1).mean(1)


def slant(images: Tensor) -> Tensor:
    """The slope of the stroke, (N,): columns per row, positive if the top leans to the right."""
    weights = images.mean(1)
    weights = weights / weights.sum((1, 2), keepdim=True)
    rows = torch.arange(images.shape[2]).float()[:, None]
    columns = torch.arange(images.shape[3]).float()[None]
    row = rows - (weights * rows).sum((1, 2))[:, None, None]
    column = columns - (weights * columns).sum((1, 2))[:, None, None]
    return -(weights * row * column).sum((1, 2)) / (weights * row.square()).sum((1, 2))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two samples (N,)."""
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def measure(model: str, data: str, count: int, picture: Path | None) -> None:
    """Print all figures."""
    sampler = cgan.load(model)
    config = DataConfig(source=data)
    splits = {split: load_split(config, split) for split in ("train", "test")}
    test, judge = splits["test"], get_or_train_judge(splits.__getitem__)
    begun = time.perf_counter()
    encoder = train_encoder(sampler)
    print(f"- encoder trained in {time.perf_counter() - begun:.0f} s")
    chosen = torch.arange(count) * len(test) // count
    images, labels = test.take(chosen) / 255, test.labels[chosen]
    times, found = [], []
    for image in images[:20]:
        begun = time.perf_counter()
        invert_batch(sampler, encoder, image[None])
        times.append(time.perf_counter() - begun)
    for part in images.split(50):
        found.append(invert_batch(sampler, encoder, part))
    z, classes, distances = (torch.cat(one) for one in zip(*found, strict=True))
    print(f"- {count} test images, class found: {(classes == labels).float().mean():.1%}")
    guessed = torch.cat([encoder.encode(part * 2 - 1)[1].argmax(1) for part in images.split(50)])
    print(f"- by the encoder alone: {(guessed == labels).float().mean():.1%}")
    print(f"- median time of one image: {statistics.median(times):.2f} s")
    ends = distances.quantile(torch.tensor([0.5, 0.99])).tolist()
    print(f"- distance (RMS of pixels in [0, 1]): median {ends[0]:.3f}, 99 % below {ends[1]:.3f}")
    style(sampler, images, z, classes)
    mixes(sampler, judge)
    if picture is not None:
        rows = []
        for k in range(len(sampler.classes)):
            index = int((labels == k).nonzero()[0])
            every = torch.arange(len(sampler.classes))
            rows += [
                images[index : index + 1],
                sampler.generate(z[index : index + 1], classes[index : index + 1]),
            ]
            rows.append(sampler.generate(z[index].repeat(len(every), 1), every))
        save_png(make_grid(to_pixels(torch.cat(rows)), 2 + len(sampler.classes)), picture)


def style(sampler: cgan.Sampler, images: Tensor, z: Tensor, classes: Tensor) -> None:
    """Correlation of ink and slant between test images and their z in each other class.

    Both are compared within a class: the mean of the class of the original is subtracted.
    """
    for name, of in (("ink", ink), ("slant", slant)):
        original, found = of(images), []
        for shift in range(1, len(sampler.classes)):
            other = (classes + shift) % len(sampler.classes)
            drawn = of(sampler.generate(z, other))
            centred = [
                value - torch.stack([value[classes == k].mean() for k in classes])
                for value in (original, drawn)
            ]
            found.append(correlation(*centred))
        print(
            f"- {name} of the original and of its style in another class: correlation "
            f"{statistics.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        )


def mixes(sampler: cgan.Sampler, judge: Judge) -> None:
    """The judge's mean probability of the second class on the way from one class to another."""
    pairs = [(a, b) for a in range(len(sampler.classes)) for b in range(a)]
    curves = torch.zeros(len(pairs), STEPS)
    for index, (a, b) in enumerate(pairs):
        for step in range(STEPS):
            t = step / (STEPS - 1)
            mix = {sampler.classes[a]: 1 - t, sampler.classes[b]: t}
            drawn = sampler.sample(mix=mix, n=MIX_IMAGES)
            with torch.no_grad():
                probabilities = judge.network(drawn * 2 - 1).softmax(1).mean(0)
            curves[index, step] = probabilities[b] / (probabilities[a] + probabilities[b])
    monotone = (curves.diff(dim=1) >= 0).all(1).float().mean()
    print(
        f"- share of the second class in mixes of 0, ¼, ½, ¾ and 1 (mean of {len(pairs)} pairs): "
        + ", ".join(f"{one:.2f}" for one in curves.mean(0).tolist())
    )
    print(f"- pairs whose share only rises: {monotone:.0%}")
