"""Where pictures come from: bundled digits, torchvision's sets, any folder of one folder a class.

Whatever the source, a caller gets uint8 pictures, int64 labels and class names, split into a part
to learn from and a part held out. A source without a test part of its own holds out a fixed share
of each class, chosen by a fixed seed.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from cgan.config import DataConfig
from cgan.data.folder import PictureFolder, scan_folder
from cgan.errors import DataError, UnknownName

Split = Literal["train", "test"]

logger = logging.getLogger("cgan")

HELD_OUT_DIGITS = 0.2
HELD_OUT_FOLDER = 0.1


@dataclass(frozen=True)
class Pictures:
    """A data set in memory.

    Attributes:
        name: what it is called.
        images: uint8, (N, C, H, W).
        labels: int64, (N,), indices into ``classes``.
        classes: the class names.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> Tensor:
        """The pictures of these indices: uint8, (len(indices), C, H, W)."""
        return self.images[indices]

    def digest(self) -> str:
        """A name for exactly these pictures and labels: hexadecimal SHA-256."""
        hasher = hashlib.sha256("\0".join(self.classes).encode())
        hasher.update(self.images.cpu().contiguous().numpy().tobytes())
        hasher.update(self.labels.cpu().numpy().tobytes())
        return hasher.hexdigest()


def cache_folder() -> Path:
    """Where this package keeps what it can make again: ``$CGAN_CACHE`` or ``~/.cache/cgan``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CGAN_CACHE") or Path(base) / "cgan")


def load_pictures(
    source: str,
    split: Split = "train",
    *,
    data_dir: str | Path | None = None,
    size: int | None = None,
    skip_broken: bool = False,
    memory_bytes: int | None = None,
) -> Pictures | PictureFolder:
    """Load one split of a data set.

    Args:
        source: a name of :data:`SOURCES`, or a folder with one folder of pictures a class.
        split: ``train`` to learn from, ``test`` held out.
        data_dir: where data sets lie or are downloaded to; default ``$CGAN_DATA``, then the cache.
        size: side in pixels that a folder's pictures are brought to; None chooses one.
        skip_broken: leave out a folder's pictures that cannot be read.
        memory_bytes: a folder whose pixels take more is read from disk as it is needed; None is
            half of the memory that is free.

    Raises:
        DataError: the pictures are not there, cannot be downloaded or read.
        UnknownName: neither a data set nor a folder.
    """
    if source in SOURCES:
        return SOURCES[source].load(split, Path(data_dir or default_data_dir()))
    folder = _scan(source, size, skip_broken)
    train, test = split_by_class(folder.labels, HELD_OUT_FOLDER)
    chosen = folder.subset(train if split == "train" else test)
    if chosen.nbytes > (free_memory() // 2 if memory_bytes is None else memory_bytes):
        logger.info("%s is too large for memory: reading it from disk as it is needed", source)
        return chosen
    return _read_all(chosen)


def load_split(data: DataConfig, split: Split) -> Pictures | PictureFolder:
    """Load one split as a config describes it; raises as :func:`load_pictures`."""
    return load_pictures(
        data.source,
        split,
        data_dir=data.data_dir,
        size=data.size,
        skip_broken=data.skip_broken,
    )


def look_at(data: DataConfig) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """(C, H, W) and the class names, without reading or downloading the pictures."""
    if data.source in SOURCES:
        return SOURCES[data.source].image_shape, SOURCES[data.source].classes
    folder = _scan(data.source, data.size, data.skip_broken)
    return folder.image_shape, folder.classes


def say_held_out(source: str) -> str:
    """In words, what the split ``test`` of a source is."""
    if source in SOURCES and source != "digits":
        return "the test part of the data"
    share = HELD_OUT_DIGITS if source in SOURCES else HELD_OUT_FOLDER
    return f"{100 * share:.0f} % of each class, held out by a fixed seed (there is no test part)"


def default_data_dir() -> Path:
    """``$CGAN_DATA``, or a folder in the user's cache."""
    return Path(os.environ.get("CGAN_DATA") or cache_folder() / "data")


def split_by_class(labels: Tensor, held_out: float) -> tuple[Tensor, Tensor]:
    """Indices to learn from and indices held out: the same share of each class, rounded down."""
    generator = torch.Generator().manual_seed(0)
    train, test = [], []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        count = int(len(members) * held_out)
        test.append(members[:count])
        train.append(members[count:])
    return torch.cat(train).sort().values, torch.cat(test).sort().values


def check_classes(pictures: Pictures | PictureFolder, balanced: bool = False) -> None:
    """Warn about classes that a GAN will hardly learn."""
    counts = torch.bincount(pictures.labels, minlength=len(pictures.classes))
    if len(pictures.classes) == 1:
        logger.warning("%s has one class only: there is nothing to choose from", pictures.name)
        return
    few = [name for name, n in zip(pictures.classes, counts.tolist(), strict=True) if n < 10]
    if few:
        logger.warning("fewer than 10 pictures in: %s", ", ".join(few))
    most, least = int(counts.max()), max(int(counts.min()), 1)
    if most > 10 * least and not balanced:
        logger.warning(
            "the largest class has %d pictures and the smallest %d: "
            "--set data.balanced=true draws them evenly",
            most,
            least,
        )


def _scan(source: str, size: int | None, skip_broken: bool) -> PictureFolder:
    if Path(source).is_dir():
        return scan_folder(Path(source), size=size, skip_broken=skip_broken)
    if os.sep in source or source.startswith("."):
        raise DataError(f"there is no folder {source}")
    raise UnknownName("data set or folder", source, SOURCES)


def _digits(split: Split, data_dir: Path) -> Pictures:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(data.target).to(torch.int64)
    train, test = split_by_class(labels, HELD_OUT_DIGITS)
    chosen = train if split == "train" else test
    return Pictures("digits", images[chosen], labels[chosen], DIGITS)


def _from_torchvision(
    kind: str, classes: tuple[str, ...], split: Split, data_dir: Path
) -> Pictures:
    from torchvision import datasets

    # torchvision checks the MD5 of CIFAR-10's files before it unpickles them; the MNIST family is
    # plain bytes.
    make: Any = getattr(datasets, kind)
    try:
        data = make(root=str(data_dir), train=split == "train", download=False)
    except Exception as error:  # files that are not what they should be raise what they please
        if "not found" not in str(error):
            raise DataError(
                f"{kind} in {data_dir} is damaged ({_first_line(error)}): delete it there, or give "
                "another --data-dir"
            ) from error
        data = _download(make, kind, data_dir, split)
    array = torch.as_tensor(data.data)
    images = array.unsqueeze(1) if array.dim() == 3 else rearrange(array, "n h w c -> n c h w")
    labels = torch.as_tensor(data.targets, dtype=torch.int64)
    return Pictures(kind, images.contiguous(), labels, classes)


def _download(make: Any, kind: str, data_dir: Path, split: Split) -> Any:
    logger.info("downloading %s to %s", kind, data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return make(root=str(data_dir), train=split == "train", download=True)
    except Exception as error:  # no network, a broken mirror, no permission, a torn archive
        raise DataError(
            f"{kind} is not in {data_dir} and could not be downloaded ({_first_line(error)}); "
            "--data digits needs no download, and --data-dir names a folder that holds it"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]


def _read_all(folder: PictureFolder) -> Pictures:
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(folder.read, range(len(folder))))
    stacked = torch.stack(images) if images else torch.empty(0, *folder.image_shape).byte()
    return Pictures(folder.name, stacked, folder.labels, folder.classes)


def free_memory() -> int:
    """Bytes that can be had without swapping; where the system doesn't tell, 4 GiB."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (kibibytes,) = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
        return 1024 * int(kibibytes)
    except (OSError, ValueError):
        return 4 << 30


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


class Source(NamedTuple):
    """A data set that has a name."""

    load: Callable[[Split, Path], Pictures]
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]


def _torchvision(kind: str, shape: tuple[int, int, int], classes: tuple[str, ...]) -> Source:
    return Source(partial(_from_torchvision, kind, classes), shape, classes)


SOURCES = {
    "digits": Source(_digits, (1, 8, 8), DIGITS),
    "mnist": _torchvision("MNIST", (1, 28, 28), DIGITS),
    "fashion-mnist": _torchvision("FashionMNIST", (1, 28, 28), FASHION),
    "kmnist": _torchvision("KMNIST", (1, 28, 28), KUZUSHIJI),
    "cifar10": _torchvision("CIFAR10", (3, 32, 32), CIFAR10),
}
