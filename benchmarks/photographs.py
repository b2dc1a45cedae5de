"""Recipes for photographs: one table for a small folder, with a judge of many more images.

A judge that has seen only the folder is too weak to tell recipes apart. This one is trained on all
of CIFAR-10, and the folder is a part of that. Real images are the 10,000 test images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import cgan
from benchmarks.table import train_run
from cgan.data import ImageDataset
from cgan.data.image_folder import scan_folder
from cgan.data.load import load_split
from cgan.evaluation.api import data_config_of
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import train_judge
from cgan.evaluation.reference import Reference

BEFORE: dict[str, object] = {
    "loss": "nonsaturating",
    "update": "alternating",
    "augment": "none",
    "aux_weight": 1.0,
    "model.backbone": "dcgan",
    "model.generator_label": "concat",
    "model.discriminator_label": "projection",
    "model.last_layer": "transposed",
    "penalty.r1": 0.3,
    "penalty.r2": 0.0,
    "penalty.final_fraction": 1.0,
    "batch_size": 64,
    "lr": 2e-3,
    "ema_half_life_images": "30k",
    "teacher.weight": 0.0,
}
"""folder-dcgan of version 0.3."""
AUGMENTED: dict[str, object] = {
    "update": "simultaneous",
    "augment": "mirror,translation,cutout",
    "aux_weight": 0.1,
    "model.discriminator_label": "projection+auxiliary",
}
CBN = {"model.generator_label": "cbn"}


def relativistic(gamma: float, final_fraction: float = 1.0) -> dict[str, object]:
    """The relativistic loss with R1 and R2."""
    return {
        "loss": "relativistic",
        "penalty.r1": gamma,
        "penalty.r2": gamma,
        "penalty.final_fraction": final_fraction,
    }


B16 = {**AUGMENTED, "batch_size": 16}
NO_CUTOUT = {"augment": "mirror,translation"}
AUX02 = {**B16, **NO_CUTOUT, "aux_weight": 0.2, "ema_half_life_images": "20k"}
HUE = {"augment": "mirror,hue,translation"}
RESIZE = {"model.last_layer": "resize"}
RECIPES: dict[str, dict[str, object]] = {
    "before": {},
    "augmented": AUGMENTED,
    "augmented-g005": {**AUGMENTED, "penalty.r1": 0.05},
    "cbn": {**AUGMENTED, **CBN},
    "b32": {**AUGMENTED, "batch_size": 32},
    "b16-g005": {**B16, "penalty.r1": 0.05},
    "b32-rel-g01": {**AUGMENTED, **relativistic(0.1), "batch_size": 32},
    "b32-rel-g005-nocut": {**AUGMENTED, **relativistic(0.05), **NO_CUTOUT, "batch_size": 32},
    "b16-rel-g002": {**B16, **relativistic(0.02)},
    "b16-rel-g002-nocut": {**B16, **relativistic(0.02), **NO_CUTOUT},
    "b16-rel-g002-aux03": {**B16, **relativistic(0.02), "aux_weight": 0.3},
    "b16-rel-g002-aux02-nocut": {**AUX02, **relativistic(0.02)},
    "aux02-g005": {**AUX02, **relativistic(0.05)},
    "aux02-g01-final01": {**AUX02, **relativistic(0.1, 0.1)},
    "aux02-g002-resize": {**AUX02, **relativistic(0.02), **RESIZE},
    "aux02-g005-resize": {**AUX02, **relativistic(0.05), **RESIZE},
    "aux02-g01-final03-resize": {**AUX02, **relativistic(0.1, 0.3), **RESIZE},
    "aux02-g01-final03-resize-hue": {**AUX02, **relativistic(0.1, 0.3), **RESIZE, **HUE},
    "aux02-ns-g01-final03-resize": {
        **AUX02, **RESIZE, "penalty.r1": 0.1, "penalty.final_fraction": 0.3,
    },
    "b16-rel-g002-lr4": {**B16, **relativistic(0.02), "lr": 4e-3},
    "b16-rel-g005-cbn": {**B16, **relativistic(0.05), **CBN},
    "b16-rel-g005-cbn-lr1": {**B16, **relativistic(0.05), **CBN, "lr": 1e-3},
}  # fmt: skip
"""Changes to ``BEFORE``."""


def read_all(folder: Path) -> ImageDataset:
    """All images of a folder, without splits."""
    scanned = scan_folder(folder)
    images = scanned.take(torch.arange(len(scanned)))
    return ImageDataset(folder.name, images, scanned.labels, scanned.classes, scanned.digest())


def load_cifar_judge(cifar: Path, path: Path) -> tuple[Judge, ImageDataset]:
    """The judge of ``cifar/train``, trained unless the file exists, and ``cifar/test``."""
    test = read_all(cifar / "test")
    if not path.exists():
        train = read_all(cifar / "train")
        train_judge(train, test, train.digest()).save(path)
    return Judge.load(path), test


def write_part(count: int, root: Path, out: Path) -> None:
    """The part of CIFAR-10 that data-efficient-gans trains on, with all test images, as folders.

    Its ``datasets.py`` (commit 33c3fe1) takes ``numpy.random.seed(0)`` and ``choice`` without
    replacement of the 50,000 training images in the order of their files. The validation images
    are the first 1,000 of the others.
    """
    from torchvision.datasets import CIFAR10

    out.mkdir()  # two parts in one folder would be a third one
    train, test = (CIFAR10(str(root), train=of_train, download=True) for of_train in (True, False))
    np.random.seed(0)
    chosen = np.random.choice(len(train.data), count, replace=False)
    others = np.setdiff1d(np.arange(len(train.data)), chosen)[:1_000]
    rows = {"train": chosen, "val": others, "test": np.arange(len(test.data))}
    for split, indices in rows.items():
        data = test if split == "test" else train
        for row in indices.tolist():
            folder = out / split / data.classes[data.targets[row]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.data[row]).save(folder / f"{row:05}.png")


def train(data: Path, images: str, changes: dict[str, object], folder: Path) -> None:
    """Train one run on the CPU without evaluations, or resume it. A finished run stays as it is."""
    settings = {
        **BEFORE, "eval_every_images": 0, "control_per_class": 0, "device": "cpu", **changes,
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    train_run(["folder-dcgan", "--data", str(data), "--images", images, *words], folder)


def measure(folder: Path, judge: Judge, test: ImageDataset) -> dict[str, Any]:
    """The figures of one generator, with 1,000 images per class."""
    sampler = cgan.load(folder)
    reference = Reference(judge, load_split(data_config_of(sampler), "train"), test)
    drawn = reference.draw(sampler)
    control = reference.control_of(drawn)
    spreads = [reference.diversity_of(drawn, label) or 0.0 for label in reference.labels]
    intra = [reference.fid_of(drawn, label) or 0.0 for label in reference.labels]
    return {
        "images": sampler.header["images_seen"],
        "seconds": sampler.header["seconds"],
        "control": control.accuracy,
        "worst": control.per_class[control.worst],
        "fid": reference.fid_of(drawn),
        "intra_fid": sum(intra) / len(intra),
        "least_spread": min(spreads),
        "copied": reference.copied_share(drawn.images),
        "real_control": judge.header.held_out_accuracy,
        "real_fid": reference.fid,
    }


def run(
    names: list[str], data: Path, cifar: Path, images: str, judge_path: Path, out: Path
) -> None:
    """Train and measure recipes, one after another, and print a row of each."""
    judge, test = load_cifar_judge(cifar, judge_path)
    print("| recipe | images | s | control | worst | FID | intra-FID | least spread | copied |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in names:
        folder = out / f"{name}-{images}"
        train(data, images, RECIPES[name], folder)
        row = measure(folder, judge, test)
        (folder / "measured.json").write_text(json.dumps(row, indent=1))
        print(
            f"| {name} | {row['images']:,} | {row['seconds']:.0f} | {row['control']:.1%} | "
            f"{row['worst']:.1%} | {row['fid']:.2f} | {row['intra_fid']:.2f} | "
            f"{row['least_spread']:.2f} | {row['copied']:.1%} |",
            flush=True,
        )
    print(f"\nreal images: {row['real_control']:.1%}, FID {row['real_fid']:.2f}")
