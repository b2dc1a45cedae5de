"""``python -m benchmarks readers``: which judge of photographs agrees with eyes, and with how many.

Three tables. The readers on several runs, beside real test photographs: set them beside the scores
of ``python -m benchmarks eyes``. The same with heads that are fitted to photographs that the
generators were not trained on: if a head were kinder to drawn pictures because it knows the same
photographs, it would show here. The readers with few training photographs, judged on CIFAR-10's
10,000 test images.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

import cgan
from benchmarks.photographs import read_all
from cgan.data import ImageDataset, load_split
from cgan.data.dataset import class_indices
from cgan.data.image_folder import scan_folder
from cgan.evaluation.api import data_config_of
from cgan.evaluation.control import Control, measure_control
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import train_judge

READERS = ("pretrained", "pretrained-lite1", "resnet9")
PER_CLASS = 200
FEW = (20, 50, 200)
"""Training photographs of a class."""


def print_tables(runs: list[Path], cifar: Path) -> None:
    """All three tables as Markdown.

    Args:
        runs: generators that were trained on the same photographs, a part of CIFAR-10's.
        cifar: a folder with ``train/`` and ``test/``, one folder per class in each.
    """
    samplers = [cgan.load(run) for run in runs]
    data = data_config_of(samplers[0])
    own, test = load_split(data, "train"), load_split(data, "test")
    assert isinstance(own, ImageDataset)
    assert isinstance(test, ImageDataset)
    other = unseen_photographs(cifar / "train", Path(data.source), len(own))
    for title, photographs in (("the generators' own photographs", own), ("other ones", other)):
        judges = [fit(photographs, test, reader) for reader in READERS]
        print(f"\n| fitted to {title} | {' | '.join(READERS)} |\n|---|{'--:|' * len(READERS)}")
        print(row("real test photographs", [f"{real_accuracy(one):.1%}" for one in judges]))
        for run, sampler in zip(runs, samplers, strict=True):
            found = [measure_control(sampler, judge, PER_CLASS) for judge in judges]
            print(row(run.name, [describe(control) for control in found]))
    print_few(own, read_all(cifar / "test"))


def print_few(photographs: ImageDataset, test: ImageDataset) -> None:
    """The accuracy of each reader that has few photographs of a class."""
    print(f"\n| photographs a class | {' | '.join(READERS)} |\n|--:|{'--:|' * len(READERS)}")
    members = class_indices(photographs.labels, torch.Generator().manual_seed(0)).values()
    for count in (*FEW, max(map(len, members))):
        some = subset(photographs, torch.cat([one[:count] for one in members]))
        judges = [fit(some, test, reader) for reader in READERS]
        print(row(str(count), [f"{real_accuracy(one):.1%}" for one in judges]))


def unseen_photographs(folder: Path, seen: Path, count: int) -> ImageDataset:
    """As many photographs of a folder, evenly of all classes, none of which is in another one."""
    known = set(scan_folder(seen).digests)
    scanned = scan_folder(folder)
    new = [index for index, digest in enumerate(scanned.digests) if digest not in known]
    indices = torch.tensor(new)
    labels = scanned.labels[indices]
    each = count // len(scanned.classes)
    chosen = torch.cat([(labels == label).nonzero().squeeze(1)[:each] for label in labels.unique()])
    part = scanned.subset(indices[chosen])
    images = part.take(torch.arange(len(part)))
    return ImageDataset("other photographs", images, part.labels, part.classes, part.digest())


def subset(dataset: ImageDataset, indices: torch.Tensor) -> ImageDataset:
    """The images at these indices, as a data set of its own."""
    return ImageDataset(
        dataset.name, dataset.images[indices], dataset.labels[indices], dataset.classes
    )


def fit(photographs: ImageDataset, test: ImageDataset, reader: str) -> Judge:
    """A reader of these photographs; mirrored ones show the same class."""
    digest = photographs.digest()
    return train_judge(photographs, test, digest, architecture=reader, mirror=True)


def real_accuracy(judge: Judge) -> float:
    """On the real test photographs."""
    accuracy = judge.header.held_out_accuracy
    assert accuracy is not None
    return accuracy


def describe(control: Control) -> str:
    """Control, and its ratio to real photographs with the interval."""
    interval = control.relative_interval
    assert interval is not None
    return (
        f"{control.accuracy:.1%}: {control.relative:.2f} ({interval.low:.2f}–{interval.high:.2f})"
    )


def row(first: str, cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return f"| {first} | {' | '.join(cells)} |"
