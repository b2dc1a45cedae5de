"""Folders with one subfolder of images per class: scan, read, crop and resize the images."""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from cgan.errors import DataError
from cgan.storage.paths import require_utf8

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
SIZES = (8, 16, 28, 32, 64)
"""Sides that are chosen automatically. Larger ones need --size: they take hours on a CPU."""
GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I"})

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
            DataError: the file is broken.
        """
        return read_image(self.paths[index], self.image_shape)

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, (len(indices), C, size, size)."""
        if not len(indices):
            return torch.empty(0, *self.image_shape, dtype=torch.uint8)
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
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
        found = {folder.name: _images_in(folder) for folder in folders}
        classes = tuple(name for name, files in found.items() if files)
        for folder in (root.resolve(), *(root / name for name in classes)):
            require_utf8(folder)
        _check_layout(root, folders, classes)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    candidates = [(label, path) for label, name in enumerate(classes) for path in found[name]]
    with ThreadPoolExecutor() as pool:
        probes = list(pool.map(_probe, [path for _, path in candidates]))
    paths, labels, modes, sides, digests = [], [], set(), [], []
    for (label, path), probe in zip(candidates, probes, strict=True):
        if probe is None:
            if not skip_broken:
                raise _broken(path)
            logger.warning("skipped the broken image %s", path)
            continue
        modes.add(probe.mode)
        sides.append(probe.side)
        digests.append(probe.digest)
        paths.append(path)
        labels.append(label)
    missing = [name for label, name in enumerate(classes) if label not in set(labels)]
    if missing:
        raise DataError(f"no image of {', '.join(missing)} in {root} can be read")

    if size is None:
        middle = median_low(sides)
        size = next((side for side in SIZES if side >= middle), SIZES[-1])
    channels = 1 if modes <= GREY_MODES else 3
    logger.info(
        "%s: %d images of %d classes, resized to %d×%d in %s (change it with --size)",
        root.name, len(paths), len(classes), size, size, "grey" if channels == 1 else "colour",
    )  # fmt: skip
    return ImageFolder(
        root.resolve().name, tuple(paths), torch.tensor(labels), classes, (channels, size, size),
        tuple(digests),
    )  # fmt: skip


def read_image(path: Path, image_shape: tuple[int, int, int]) -> Tensor:
    """Read one file as uint8 of the given (C, H, W); transparent pixels become white.

    Raises:
        DataError: the file is broken.
    """
    channels, height, width = image_shape
    try:
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits: PIL's own conversion clips instead of scaling
                image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("L" if channels == 1 else "RGB")
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    except Exception as error:  # PIL's readers raise exceptions of any type
        raise _broken(path) from error
    return torch.from_numpy(np.array(image)).view(height, width, channels).permute(2, 0, 1)


class _Probe(NamedTuple):
    """What a scan reads of each image."""

    mode: str
    side: int
    digest: bytes


def _probe(path: Path) -> _Probe | None:
    """Mode, shorter side and SHA-256 of an image file; None if it is broken."""
    try:
        with path.open("rb") as file, Image.open(file) as image:
            image.load()
            file.seek(0)
            return _Probe(image.mode, min(image.size), hashlib.file_digest(file, "sha256").digest())
    except Exception:  # PIL's readers raise exceptions of any type
        return None


def _images_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()
    )


def _check_layout(root: Path, folders: list[Path], classes: tuple[str, ...]) -> None:
    nested = [f for f in folders if f.name not in classes and any(map(_has_images, f.iterdir()))]
    if not classes:
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
    for folder in nested:
        logger.warning("%s holds folders of images, not images: it is ignored", folder)
    for folder in folders:
        if folder not in nested and folder.name not in classes:
            logger.warning("%s holds no images: it is ignored", folder)


def _has_images(path: Path) -> bool:
    return path.is_dir() and bool(_images_in(path))


def _broken(path: Path) -> DataError:
    return DataError(f"{path} cannot be read as an image; --skip-broken skips it")
