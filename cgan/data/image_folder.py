"""Folders and archives of images: scan and read them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cgan.attributes import sort_for_display
from cgan.config import height_and_width
from cgan.data.archive import AnyPath, is_archive
from cgan.data.facts import collect, inform
from cgan.data.image_cache import probe_files
from cgan.data.image_file import USUAL, Conversion, ignore_pillow_warnings, read_image
from cgan.data.layout import NO_LABEL, find_images, open_root
from cgan.data.scan_facts import (
    choose_conversion,
    count_by_class,
    report_broken,
    say_how_images_look,
    shows_colour,
    warn_of_similar_names,
    without_conflicts,
)
from cgan.data.splits import Split
from cgan.errors import DataError, first_few
from cgan.storage.paths import require_utf8

SIZES = (8, 16, 28, 32)
"""Sides that are chosen automatically. Larger ones need --size: on a CPU, a GAN at 64×64 sees too
few images in the time in which one at 32×32 learns the classes."""


@dataclass(frozen=True)
class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images on disk, read when needed.

    Attributes:
        name: the folder's name.
        paths: one file per image.
        labels: int64, (N,), indices into ``classes``, or -1 for an unlabelled image.
        classes: the class names, sorted.
        image_shape: (C, H, W) that every image is resized to.
        digests: SHA-256 of each file.
        splits: the split of each image; None if a hash of its content decides.
        num_attributes: how many attributes a class combines (``cgan.attributes``).
        conversion: how the files become images.
        groups: the group of each image, whose images stay in one split; None if it has none.
        facts: how the folder was understood, one sentence each, with paths from its own name on.
    """

    name: str
    paths: tuple[AnyPath, ...]
    labels: Tensor
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    digests: tuple[bytes, ...]
    splits: tuple[Split | None, ...]
    num_attributes: int = 1
    conversion: Conversion = USUAL
    groups: tuple[str | None, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes that all images take in memory."""
        return len(self) * int(np.prod(self.image_shape))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.read(index), int(self.labels[index])

    def subset(self, indices: Tensor) -> ImageFolder:
        """The images at these indices."""
        chosen = indices.tolist()
        return replace(
            self,
            paths=tuple(self.paths[index] for index in chosen),
            labels=self.labels[indices],
            digests=tuple(self.digests[index] for index in chosen),
            splits=tuple(self.splits[index] for index in chosen),
            groups=tuple(self.groups[index] for index in chosen),
        )

    def read(self, index: int) -> Tensor:
        """Read one image as uint8 (C, H, W).

        Raises:
            DataError: the file is missing or broken since the scan.
        """
        try:
            return read_image(self.paths[index], self.image_shape, self.conversion)
        except DataError as error:
            raise DataError(
                f"{error}, although it could be read at the start: restore it, or start again "
                "with --skip-broken"
            ) from error

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, (len(indices), C, H, W).

        Call it in the main thread of a process.
        """
        if not len(indices):
            return torch.empty(0, *self.image_shape, dtype=torch.uint8)
        with ignore_pillow_warnings():
            return torch.stack([self.read(index) for index in indices.tolist()])

    def digest(self) -> str:
        """SHA-256 of class names, labels, file contents, image shape and an unusual conversion."""
        unusual = [str(tuple(self.conversion))] if self.conversion != USUAL else []
        texts = [*self.classes, str(self.image_shape), *unusual]
        hasher = hashlib.sha256("\0".join(texts).encode())
        hasher.update(self.labels.numpy().tobytes())
        hasher.update(b"".join(self.digests))
        return hasher.hexdigest()


def scan_folder(
    root: Path,
    *,
    tree: AnyPath | None = None,
    size: int | str | None = None,
    skip_broken: bool = False,
    skip_conflicts: bool = False,
    background: str = "auto",
    fit: str = "crop",
) -> ImageFolder:
    """Find the classes and images of a folder or archive, and log what was understood.

    Every image is decoded once, so that a broken one is found before training starts. The options
    are those of ``cgan.config.DataConfig``. With ``tree``, its files are read in place of ``root``.

    Raises:
        DataError: no images, an unknown layout, or a broken image (unless skipped).
        FileError: the folder or a class has a name that is not UTF-8.
    """
    require_utf8(root.resolve())
    with collect() as facts:
        folder = _scan(root, tree, size, skip_broken, skip_conflicts, background, fit)
    above = f"{root.parent}{os.sep}"
    return replace(folder, facts=tuple(fact.replace(above, "") for fact in facts))


def _scan(
    root: Path,
    tree: AnyPath | None,
    size: int | str | None,
    skip_broken: bool,
    skip_conflicts: bool,
    background: str,
    fit: str,
) -> ImageFolder:
    layout = find_images(tree or open_root(root))
    probes = probe_files(root, layout.paths)
    report_broken([probe for probe in probes if isinstance(probe, str)], skip_broken)
    kept = [index for index, probe in enumerate(probes) if not isinstance(probe, str)]
    good = [probe for probe in probes if not isinstance(probe, str)]
    labels = [layout.labels[index] for index in kept]
    kept, good, labels = without_conflicts(layout, kept, good, labels, skip_conflicts)
    if missing := sorted(set(range(len(layout.classes))) - set(labels)):
        without = sort_for_display([layout.classes[label] for label in missing])
        why = "is in no other class" if skip_conflicts else "can be read"
        raise DataError(f"no image of {first_few(without)} in {root} {why}")

    if size is None:
        middle = median_low(probe.side for probe in good)
        size = next((side for side in SIZES if side >= middle), SIZES[-1])
    height, width = height_and_width(size)
    conversion = choose_conversion(good, background, fit)
    is_grey = all(probe.is_grey for probe in good) and not shows_colour(good, conversion)
    channels = 1 if is_grey else 3
    name = root.stem if is_archive(root) else root.resolve().name
    unlabelled = labels.count(NO_LABEL)
    inform(
        "%s: %d images of %d classes%s, resized to %d×%d in %s (change it with --size)",
        name, len(good) - unlabelled, len(layout.classes),
        f" and {unlabelled} unlabelled ones" if unlabelled else "",
        width, height, "grey" if channels == 1 else "colour",
    )  # fmt: skip
    inform("classes: %s", count_by_class(layout.classes, labels))
    warn_of_similar_names(layout.classes)
    say_how_images_look(good, conversion, width / height)
    return ImageFolder(
        name, tuple(layout.paths[index] for index in kept), torch.tensor(labels), layout.classes,
        (channels, height, width), tuple(probe.digest for probe in good),
        tuple(layout.splits[index] for index in kept), layout.num_attributes, conversion,
        tuple(layout.groups[index] for index in kept),
    )  # fmt: skip
