"""Folders with one subfolder of images per class: find the images and classes, read them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cgan.data.image_file import SUFFIXES, ignore_pillow_warnings, read_image
from cgan.data.image_probe import probe_files
from cgan.errors import DataError
from cgan.storage.paths import require_utf8

SIZES = (8, 16, 28, 32)
"""Sides that are chosen automatically. Larger ones need --size: on a CPU, a GAN at 64×64 sees too
few images in the time in which one at 32×32 learns the classes."""

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images on disk, read when needed.

    Attributes:
        name: the folder's name.
        paths: one file per image.
        labels: int64, (N,), indices into ``classes``.
        classes: names of the class folders, sorted.
        image_shape: (C, size, size) that every image is resized to.
        digests: SHA-256 of each file.
    """

    name: str
    paths: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    digests: tuple[bytes, ...]

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
        )

    def read(self, index: int) -> Tensor:
        """Read one image as uint8 (C, size, size), cropped to a square at the centre and resized.

        Raises:
            DataError: the file is missing or broken since the scan.
        """
        try:
            return read_image(self.paths[index], self.image_shape)
        except DataError as error:
            raise DataError(
                f"{error}, although it could be read at the start: restore it, or start again "
                "with --skip-broken"
            ) from error

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, (len(indices), C, size, size); raises like ``read``.

        Call it in the main thread of a process.
        """
        if not len(indices):
            return torch.empty(0, *self.image_shape, dtype=torch.uint8)
        with ignore_pillow_warnings():
            return torch.stack([self.read(index) for index in indices.tolist()])

    def digest(self) -> str:
        """SHA-256 of class names, labels, file contents and image shape, in hexadecimal."""
        hasher = hashlib.sha256("\0".join([*self.classes, str(self.image_shape)]).encode())
        hasher.update(self.labels.numpy().tobytes())
        hasher.update(b"".join(self.digests))
        return hasher.hexdigest()


def scan_folder(root: Path, *, size: int | None = None, skip_broken: bool = False) -> ImageFolder:
    """Find the classes and images of a folder, and log the chosen size and colour mode.

    Every image is decoded once, so that a broken one is found before training starts.

    Raises:
        DataError: no class folders, no images, or a broken image (unless skipped).
        FileError: the folder or a class has a name that is not UTF-8.
    """
    found = _find_classes(root)
    classes = tuple(found)
    candidates = [(label, path) for label, name in enumerate(classes) for path in found[name]]
    probes = probe_files(root, [path for _, path in candidates])
    _report_broken([probe for probe in probes if isinstance(probe, str)], skip_broken)
    good = [
        (label, path, probe)
        for (label, path), probe in zip(candidates, probes, strict=True)
        if not isinstance(probe, str)
    ]
    labels = [label for label, _, _ in good]
    if missing := sorted(set(range(len(classes))) - set(labels)):
        names = _first_few([classes[label] for label in missing])
        raise DataError(f"no image of {names} in {root} can be read")

    if size is None:
        middle = median_low(probe.side for _, _, probe in good)
        size = next((side for side in SIZES if side >= middle), SIZES[-1])
    channels = 1 if all(probe.is_grey for _, _, probe in good) else 3
    logger.info(
        "%s: %d images of %d classes, resized to %d×%d in %s (change it with --size)",
        root.name, len(good), len(classes), size, size, "grey" if channels == 1 else "colour",
    )  # fmt: skip
    return ImageFolder(
        root.resolve().name, tuple(path for _, path, _ in good), torch.tensor(labels), classes,
        (channels, size, size), tuple(probe.digest for _, _, probe in good),
    )  # fmt: skip


def _report_broken(broken: list[str], skip: bool) -> None:
    """Log one warning about all broken images, or raise ``DataError``."""
    if not broken:
        return
    first, others = broken[0], len(broken) - 1
    if not skip and others:
        raise DataError(
            f"{first}; {others:,} more cannot be read either: add --skip-broken to skip them"
        )
    if not skip:
        raise DataError(f"{first}: add --skip-broken to skip it")
    what = f"{len(broken):,} broken images" if others else "the broken image"
    logger.warning("skipped %s: %s", what, _first_few(broken))


def _first_few(items: Sequence[str], few: int = 3) -> str:
    more = [f"{len(items) - few:,} more"] if len(items) > few else []
    return ", ".join([*items[:few], *more])


def _find_classes(root: Path) -> dict[str, list[Path]]:
    """The image files of each class, in order; raises like ``scan_folder``."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
        files = {folder.name: _images_in(folder) for folder in folders}
        found = {name: paths for name, paths in files.items() if paths}
        for folder in (root.resolve(), *(root / name for name in found)):
            require_utf8(folder)
        _check_layout(root, folders, found)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    return found


def _images_in(folder: Path) -> list[Path]:
    """Everything that is named like an image; a link to nowhere is a broken image."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.name[0] != "." and not path.is_dir()
    )


def _check_layout(root: Path, folders: list[Path], found: dict[str, list[Path]]) -> None:
    others = [folder for folder in folders if folder.name not in found]
    holds_nested = [any(map(_has_images, folder.iterdir())) for folder in others]
    nested = [str(folder) for folder, holds in zip(others, holds_nested, strict=True) if holds]
    empty = [str(folder) for folder, holds in zip(others, holds_nested, strict=True) if not holds]
    if not found:
        if nested:
            raise DataError(
                f"the images in {root} are two folders deep: did you mean --data {nested[0]}?"
            )
        if _images_in(root):
            raise DataError(f"put the images in {root} into one folder per class, named after it")
        raise DataError(
            f"no images in {root}: it must contain one folder of images per class "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    if nested:
        logger.warning("ignored, because they hold folders of images: %s", _first_few(nested))
    if empty:
        logger.warning("ignored, because they hold no images: %s", _first_few(empty))


def _has_images(path: Path) -> bool:
    return path.is_dir() and bool(_images_in(path))
