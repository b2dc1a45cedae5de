"""Class control over a plain generator: steering beside rejection sampling and a new training.

The judge that measures has taught nothing. Rejection and verification use a second judge with
another architecture.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

import cgan
from cgan.data import load_split
from cgan.evaluation.api import data_config_of
from cgan.evaluation.features import FeatureSet, draw_by_class, extract_features
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import get_or_train_judge
from cgan.evaluation.reference import Reference
from cgan.sampling.request import Request
from cgan.sampling.sampler import RejectionSampler
from cgan.storage.images import make_grid, save_png, to_pixels

PER_CLASS = 1_000
COLUMNS = 10
HEADINGS = (
    "control", "worst class", "FID", "intra-class FID", "least diversity", "recall", "coverage",
    "draws per image", "images/s",
)  # fmt: skip


def reject(sampler: cgan.Sampler, judge: Judge, per_class: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw from a plain generator until the judge has found ``per_class`` images of each class."""
    missing, seed = [per_class] * len(sampler.classes), 0
    while any(missing):
        request = Request(None, tuple(range(seed, seed + 64)))
        for images, _ in sampler.batches(request):
            labels = judge.classify(images)
            kept = []
            for row, label in enumerate(labels.tolist()):
                if missing[label]:
                    missing[label] -= 1
                    kept.append(row)
            yield images[kept], labels[kept]
        seed += 64


def speed(sampler: cgan.Sampler) -> float:
    """Images per second, the best of five."""
    labels = tuple([0] * 4_096) if sampler.conditional else None
    best = 0.0
    for _ in range(5):
        begun = time.perf_counter()
        for _batch in sampler.batches(Request(labels, tuple(range(4_096)))):
            pass
        best = max(best, 4_096 / (time.perf_counter() - begun))
    return best


def row(name: str, found: FeatureSet, reference: Reference, draws: str, rate: str) -> str:
    """One line of the table."""
    control = reference.control_of(found)
    fids = [reference.fid_of(found, label) or 0.0 for label in reference.labels]
    spreads = [reference.diversity_of(found, label) or 0.0 for label in reference.labels]
    manifold, fid = reference.manifold_of(found), reference.fid_of(found)
    assert manifold is not None
    worst = min(control.per_class.values())
    cells = (
        f"{control.accuracy:.2%}", f"{worst:.1%}", f"{fid:.2f}", f"{sum(fids) / len(fids):.2f}",
        f"{min(spreads):.2f}", f"{manifold.recall:.1%}", f"{manifold.coverage:.1%}", draws, rate,
    )  # fmt: skip
    return f"| {name} | " + " | ".join(cells) + " |"


def print_table(plain: Path, steered: Path, scratch: Path | None, picture: Path | None) -> None:
    """The table, and the picture of the same classes from all of them."""
    samplers = {"plain": cgan.load(plain), "steered": cgan.load(steered)}
    config = data_config_of(samplers["steered"])
    splits = {split: load_split(config, split) for split in ("train", "test")}
    judge = get_or_train_judge(splits.__getitem__)
    second = get_or_train_judge(splits.__getitem__, architecture="residual")
    reference = Reference(judge, splits["train"], splits["test"], per_class=PER_CLASS)

    def features(batches: Iterable[tuple[Tensor, Tensor]]) -> FeatureSet:
        return extract_features(batches, judge, reference.network, reference.background)

    print("| | " + " | ".join(HEADINGS) + " |\n|" + "---|" * (1 + len(HEADINGS)))
    rate = {name: f"{speed(one):,.0f}" for name, one in samplers.items()}
    plain_features = features(draw_by_class(samplers["plain"], PER_CLASS))
    print(row("plain", plain_features, reference, "1", rate["plain"]), flush=True)
    labels = torch.cat([second.classify(x) for x, _ in draw_by_class(samplers["plain"], PER_CLASS)])
    shares = labels.bincount(minlength=len(judge.classes)) / len(labels)
    per_image = f"{float((1 / shares).mean()):.1f}"  # if one class is requested
    found = features(reject(samplers["plain"], second, PER_CLASS))
    begun = time.perf_counter()
    count = sum(len(images) for images, _ in reject(samplers["plain"], second, PER_CLASS // 10))
    rejected = f"{count / (time.perf_counter() - begun):,.0f}"
    print(row("plain, rejection", found, reference, per_image, rejected), flush=True)
    found = features(draw_by_class(samplers["steered"], PER_CLASS))
    print(row("steered", found, reference, "1", rate["steered"]), flush=True)
    rejection = RejectionSampler(second)
    batches = samplers["steered"].batches(samplers["steered"].request(None, PER_CLASS), rejection)
    found = features((images, labels) for images, labels in batches if labels is not None)
    request = samplers["steered"].request(None, PER_CLASS // 10)
    begun = time.perf_counter()
    count = sum(len(images) for images, _ in samplers["steered"].batches(request, second))
    checked = f"{count / (time.perf_counter() - begun):,.0f}"
    draws = f"{rejection.drawn / rejection.accepted:.3f}"
    print(row("steered, verified", found, reference, draws, checked), flush=True)
    if scratch is not None:
        samplers["conditional"] = cgan.load(scratch)
        found = features(draw_by_class(samplers["conditional"], PER_CLASS))
        print(
            row("trained from scratch", found, reference, "1", f"{speed(cgan.load(scratch)):,.0f}")
        )
    print(row("real images", reference.real, reference, "", ""))
    if picture is not None:
        save_comparison(samplers, second, picture)


def save_comparison(samplers: dict[str, cgan.Sampler], judge: Judge, path: Path) -> None:
    """Ten rows, one per class: plain, rejection and steered, side by side."""
    plain, steered = samplers["plain"], samplers["steered"]
    count = COLUMNS * len(plain.classes)
    found = list(reject(plain, judge, COLUMNS))
    order = torch.cat([labels for _, labels in found]).argsort(stable=True)
    parts = (
        plain.sample(n=count),
        torch.cat([images for images, _ in found])[order],
        steered.sample(n=COLUMNS),
    )
    for name, images in zip(("plain", "rejection", "steered"), parts, strict=True):
        target = path.with_name(f"{path.stem}-{name}{path.suffix}")
        save_png(make_grid(to_pixels(images), COLUMNS), target)
