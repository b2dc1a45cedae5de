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


def _load_torchvision(
    kind: str, classes: tuple[str, ...], split: Split, data_dir: Path
) -> ImageDataset:
    try:
        found = _read_idx_files(data_dir / STORED_IN[DATA_OF[kind]], split)
    except Exception as error:
        raise _damaged(kind, data_dir, error) from error
    images, labels = found or _ask_torchvision(kind, split, data_dir)
    if split == "test":
        return ImageDataset(kind, images, labels, classes)
    return _take_split(kind, images, labels, classes, split, test=0)


def _read_idx_files(folder: Path, split: Split) -> tuple[Tensor, Tensor] | None:
    """Images and labels of the MNIST family; None if the files are not there.

    torchvision reads the same files, and its import takes a second.
    """
    part = "t10k" if split == "test" else "train"
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


def _damaged(kind: str, data_dir: Path, error: Exception) -> DataError:
    return DataError(f"{kind} in {data_dir} is damaged ({one_line(error)}): delete it there")


def _ask_torchvision(kind: str, split: Split, data_dir: Path) -> tuple[Tensor, Tensor]:
    """Images and labels; it downloads what is missing."""
    from torchvision import datasets

    # torchvision checks the MD5 of CIFAR-10's files before it unpickles them. MNIST and
    # its variants are not pickled.
    make: Any = getattr(datasets, kind)
    try:
        data = make(root=str(data_dir), train=split != "test", download=False)
    except Exception as error:  # damaged files raise exceptions of any type
        if "not found" not in str(error):
            raise _damaged(kind, data_dir, error) from error
        data = _download(make, kind, data_dir, split)
    array = torch.as_tensor(data.data)
    images = array.unsqueeze(1) if array.dim() == 3 else rearrange(array, "n h w c -> n c h w")
    return images.contiguous(), torch.as_tensor(data.targets, dtype=torch.int64)


def _take_split(
    name: str, images: Tensor, labels: Tensor, classes: tuple[str, ...], split: Split, test: float
) -> ImageDataset:
    chosen = split_indices(image_digests(images), labels, split, test=test)
    return ImageDataset(name, images[chosen], labels[chosen], classes)


STORED_IN = {
    "mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw", "kmnist": "KMNIST/raw",
    "cifar10": "cifar-10-batches-py",
}  # fmt: skip
"""Where torchvision stores its data sets."""
DATA_OF = {
    "MNIST": "mnist", "FashionMNIST": "fashion-mnist", "KMNIST": "kmnist", "CIFAR10": "cifar10",
}  # fmt: skip
"""Their names, by torchvision's."""


def needs_download(name: str, data_dir: Path) -> bool:
    """Whether loading a named data set would use the network."""
    return name in STORED_IN and not (data_dir / STORED_IN[name]).is_dir()


def _download(make: Any, kind: str, data_dir: Path, split: Split) -> Any:
    logger.info("downloading %s to %s", kind, data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return make(root=str(data_dir), train=split != "test", download=True)
    except Exception as error:  # no network, a broken mirror, no permission, a truncated archive
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1].strip()[:120]  # the first one only names the file
        raise DataError(
            f"{kind} is not in {data_dir} and could not be downloaded ({reason}): check the "
            "connection, or give the folder that holds it with --data-dir (--data digits needs no "
            "download)"
        ) from error


DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


class NamedDataset(NamedTuple):
    """How to load a named data set, and its shape and classes without loading it."""

    load: Callable[[Split, Path], ImageDataset]
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]


def _torchvision(kind: str, shape: tuple[int, int, int], classes: tuple[str, ...]) -> NamedDataset:
    return NamedDataset(partial(_load_torchvision, kind, classes), shape, classes)


DATASETS = {
    "digits": NamedDataset(_load_digits, (1, 8, 8), DIGITS),
    "mnist": _torchvision("MNIST", (1, 28, 28), DIGITS),
    "fashion-mnist": _torchvision("FashionMNIST", (1, 28, 28), FASHION),
    "kmnist": _torchvision("KMNIST", (1, 28, 28), KUZUSHIJI),
    "cifar10": _torchvision("CIFAR10", (3, 32, 32), CIFAR10),
}
