"""The named data sets: scikit-learn's bundled digits, and torchvision's.

To add one: write a function that returns an ``ImageDataset``, add one line to ``DATASETS``
and add its name to ``cgan.config.DATA_NAMES``.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from cgan.data.class_names import (
    BALANCED,
    CIFAR10,
    CIFAR100,
    CIFAR100_FROM_FINE,
    DIGITS,
    FASHION,
    KUZUSHIJI,
    LETTERS,
)
from cgan.data.dataset import ImageDataset
from cgan.data.splits import Split, image_digests, split_indices
from cgan.errors import DataError, one_line

DIGITS_TEST_FRACTION = 0.2
"""Expected fraction of the bundled digits in ``test``, because they have no test set."""

logger = logging.getLogger("cgan")


def _load_digits(split: Split, data_dir: Path) -> ImageDataset:
    rows = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=","))  # 64 pixels and the label
    images = rows[:, :64].mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    labels = rows[:, 64].to(torch.int64)
    return _take_split("digits", images, labels, DIGITS, split, test=DIGITS_TEST_FRACTION)


def _digits_file() -> Path:
    """The file that ``sklearn.datasets.load_digits`` reads. The import of scikit-learn takes almost
    a second, and looking for it does not import it."""
    found = importlib.util.find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


class Stored(NamedTuple):
    """How torchvision names and stores a data set.

    Attributes:
        kind: its class in ``torchvision.datasets``.
        path: a file or folder of the test images, below the data folder.
        part: of EMNIST, which is several data sets in one.
    """

    kind: str
    path: str
    part: str | None = None

    @property
    def title(self) -> str:
        """Its name in messages and reports."""
        return self.kind if self.part is None else f"{self.kind} {self.part}"

    def open(self, split: Split, data_dir: Path, download: bool) -> Any:
        """The object of torchvision with the official training or test images."""
        from torchvision import datasets

        official = "test" if split == "test" else "train"
        make: Any = getattr(datasets, self.kind)
        options: dict[str, Any] = {"train": official == "train"}
        if self.kind == "SVHN":
            options = {"split": official}
        elif self.part is not None:
            options["split"] = self.part
        return make(root=str(data_dir), download=download, **options)


STORED = {
    "mnist": Stored("MNIST", "MNIST/raw"),
    "fashion-mnist": Stored("FashionMNIST", "FashionMNIST/raw"),
    "kmnist": Stored("KMNIST", "KMNIST/raw"),
    "cifar10": Stored("CIFAR10", "cifar-10-batches-py"),
    "emnist-letters": Stored(
        "EMNIST", "EMNIST/raw/emnist-letters-test-images-idx3-ubyte", "letters"
    ),
    "emnist-balanced": Stored(
        "EMNIST", "EMNIST/raw/emnist-balanced-test-images-idx3-ubyte", "balanced"
    ),
    "svhn": Stored("SVHN", "test_32x32.mat"),
    "cifar100": Stored("CIFAR100", "cifar-100-python"),
}
"""The data sets of torchvision. It stores all of them in the same data folder."""


def needs_download(name: str, data_dir: Path) -> bool:
    """Whether loading the test images of a named data set would use the network."""
    return name in STORED and not (data_dir / STORED[name].path).exists()


def _load_torchvision(
    name: str, classes: tuple[str, ...], num_attributes: int, split: Split, data_dir: Path
) -> ImageDataset:
    stored = STORED[name]
    try:
        found = _read_idx_files(stored, split, data_dir)
    except Exception as error:
        raise _damaged(stored, data_dir, error) from error
    images, labels = found or _ask_torchvision(stored, split, data_dir)
    if stored.kind == "EMNIST":  # its files hold each image column by column
        images = images.transpose(2, 3).contiguous()
    if stored.part == "letters":  # the letter a has the label 1
        labels = labels - 1
    if not ((labels >= 0) & (labels < len(classes))).all():
        raise _damaged(stored, data_dir, ValueError("a label is out of range"))
    if stored.kind == "CIFAR100":
        labels = torch.tensor(CIFAR100_FROM_FINE)[labels]
    if split == "test":
        return ImageDataset(stored.title, images, labels, classes, num_attributes=num_attributes)
    return _take_split(stored.title, images, labels, classes, split, 0, num_attributes)


def _read_idx_files(stored: Stored, split: Split, data_dir: Path) -> tuple[Tensor, Tensor] | None:
    """Images (N, 1, H, W) and labels of the MNIST family, as the files hold them; None if the
    files are not there.

    torchvision reads the same files, and its import takes a second.
    """
    part = "t10k" if split == "test" else "train"
    if stored.part is not None:
        part = f"emnist-{stored.part}-{'test' if split == 'test' else 'train'}"
    folder = data_dir / stored.kind / "raw"
    paths = [folder / f"{part}-{name}-ubyte" for name in ("images-idx3", "labels-idx1")]
    if not all(path.is_file() for path in paths):
        return None
    images, labels = map(_read_idx, paths)
    if images.dim() != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"{len(labels)} labels for images of shape {tuple(images.shape)}")
    return images.unsqueeze(1), labels.to(torch.int64)


def _read_idx(path: Path) -> Tensor:
    """An IDX file of bytes: two zeros, the type, the number of sides, the sides, the values."""
    content = path.read_bytes()
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path.name} is not an IDX file of bytes")
    sides = np.frombuffer(content, ">u4", content[3], 4).tolist()
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    return torch.from_numpy(values.copy()).view(sides)


def _damaged(stored: Stored, data_dir: Path, error: Exception) -> DataError:
    return DataError(
        f"{stored.title} in {data_dir} is damaged ({one_line(error)}): delete it there"
    )


def _ask_torchvision(stored: Stored, split: Split, data_dir: Path) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels as torchvision has them; it downloads what is missing."""
    # torchvision checks the MD5 of the files of CIFAR before it unpickles them, and that of SVHN's
    # before scipy reads them. MNIST and its variants are not pickled.
    try:
        data = stored.open(split, data_dir, download=False)
    except Exception as error:  # damaged files raise exceptions of any type
        if "not found" not in str(error):
            raise _damaged(stored, data_dir, error) from error
        data = _download(stored, split, data_dir)
    if stored.kind == "SVHN":
        images, targets = torch.as_tensor(data.data), data.labels  # the digit 0 has the label 0
    else:
        array, targets = torch.as_tensor(data.data), data.targets
        images = array.unsqueeze(1) if array.dim() == 3 else rearrange(array, "n h w c -> n c h w")
    return images.contiguous(), torch.as_tensor(targets, dtype=torch.int64)


def _take_split(
    name: str,
    images: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    split: Split,
    test: float,
    num_attributes: int = 1,
) -> ImageDataset:
    chosen = split_indices(image_digests(images), labels, split, test=test)
    return ImageDataset(
        name, images[chosen], labels[chosen], classes, num_attributes=num_attributes
    )


def _download(stored: Stored, split: Split, data_dir: Path) -> Any:
    size = (
        " (all parts of EMNIST, some hundred megabytes, and several times as much unpacked)"
        if stored.kind == "EMNIST"
        else ""
    )
    logger.info("downloading %s to %s%s", stored.kind, data_dir, size)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return stored.open(split, data_dir, download=True)
    except Exception as error:  # no network, a broken mirror, no permission, a truncated archive
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1].strip()[:120]  # the first one only names the file
        raise DataError(
            f"{stored.title} is not in {data_dir} and could not be downloaded ({reason}): check "
            "the connection, or give the folder that holds it with --data-dir (--data digits needs "
            "no download)"
        ) from error


class NamedDataset(NamedTuple):
    """How to load a named data set, and its shape and classes without loading it."""

    load: Callable[[Split, Path], ImageDataset]
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]


def _torchvision(
    name: str, shape: tuple[int, int, int], classes: tuple[str, ...], num_attributes: int = 1
) -> NamedDataset:
    return NamedDataset(partial(_load_torchvision, name, classes, num_attributes), shape, classes)


DATASETS = {
    "digits": NamedDataset(_load_digits, (1, 8, 8), DIGITS),
    "mnist": _torchvision("mnist", (1, 28, 28), DIGITS),
    "fashion-mnist": _torchvision("fashion-mnist", (1, 28, 28), FASHION),
    "kmnist": _torchvision("kmnist", (1, 28, 28), KUZUSHIJI),
    "emnist-letters": _torchvision("emnist-letters", (1, 28, 28), LETTERS),
    "emnist-balanced": _torchvision("emnist-balanced", (1, 28, 28), BALANCED),
    "cifar10": _torchvision("cifar10", (3, 32, 32), CIFAR10),
    "cifar100": _torchvision("cifar100", (3, 32, 32), CIFAR100, num_attributes=2),
    "svhn": _torchvision("svhn", (3, 32, 32), DIGITS),
}
