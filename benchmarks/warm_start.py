"""Warm start: figures of generators of other classes and other sizes than their source.

The judge has seen all ten classes of CIFAR-10 at 32×32. It judges any generator of some of these
classes; larger images are resized to 32×32 first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import cgan
from cgan.data import ImageDataset
from cgan.evaluation.distances import diversity_ratio, frechet_distance, moments
from cgan.evaluation.features import draw_by_class
from cgan.evaluation.judge import Judge, Prediction


def predict(judge: Judge, images: Tensor) -> Prediction:
    """The judge's predictions for images of any size."""
    side = judge.header.image_shape[1]
    if images.shape[2] != side:
        images = interpolate(images, (side, side), mode="bilinear", antialias=True)
    return judge.predict(images)


def measure(run: Path, judge: Judge, test: ImageDataset, per_class: int = 1_000) -> dict[str, Any]:
    """Control, worst class, FID and least spread against the test images of the run's classes."""
    sampler = cgan.load(run)
    index = torch.tensor([judge.classes.index(name) for name in sampler.classes])
    right, features, target = [], [], []
    for images, labels in draw_by_class(sampler, per_class):
        found = predict(judge, images)
        right.append(found.labels == index[labels])
        features.append(found.features)
        target.append(labels)
    drawn, label = torch.cat(features), torch.cat(target)
    control = [torch.cat(right)[label == k].float().mean().item() for k in range(len(index))]
    chosen = torch.isin(test.labels, index).nonzero().squeeze(1)
    real = torch.cat([predict(judge, test.take(part) / 255).features for part in chosen.split(500)])
    spreads = [
        diversity_ratio(real[test.labels[chosen] == one], drawn[label == k])
        for k, one in enumerate(index)
    ]
    return {
        "images": sampler.header["images_seen"],
        "seconds": sampler.header["seconds"],
        "control": sum(control) / len(control),
        "worst": min(control),
        "fid": frechet_distance(moments(real), moments(drawn)),
        "least_spread": min(spreads),
    }


def print_table(runs: list[Path], judge: Judge, test: ImageDataset) -> None:
    """One row per run folder."""
    print("| run | images | s | control | worst | FID | least spread |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for run in runs:
        row = measure(run, judge, test)
        print(
            f"| {run.name} | {row['images']:,} | {row['seconds']:.0f} | {row['control']:.1%} | "
            f"{row['worst']:.1%} | {row['fid']:.2f} | {row['least_spread']:.2f} |",
            flush=True,
        )
