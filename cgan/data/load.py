"""Load one split of a named data set or of a folder."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import ValidationError

from cgan.attributes import sort_for_display
from cgan.config import DATA_NAMES, DataConfig, check_path, is_shard_pattern
from cgan.data.archive import HUB_PREFIX, is_archive
from cgan.data.dataset import ImageDataset
from cgan.data.datasets import DATASETS, DIGITS_TEST_FRACTION
from cgan.data.image_cache import MIN_IMAGES, ImageCache
from cgan.data.image_file import reading_threads
from cgan.data.image_folder import ImageFolder, scan_folder
from cgan.data.layout import NO_LABEL, open_root, split_folders
from cgan.data.splits import (
    FOLDER_TEST_FRACTION,
    SPLITS,
    VALIDATION_FRACTION,
    Split,
    folder_split_indices,
)
from cgan.data.stream import ImageStream, open_stream
from cgan.errors import ConfigError, DataError, UnknownNameError, first_few, quote
from cgan.runtime.cpu import free_memory
from cgan.runtime.device import torch_defaults
from cgan.runtime.process import local_world_size
from cgan.storage.paths import default_data_dir, require_utf8

UNPACK = {
    ".gz": "gunzip -k", ".tgz": "gunzip -k", ".bz2": "bunzip2 -k", ".xz": "unxz -k",
    ".zst": "unzstd",
}  # fmt: skip
"""What unpacks a compressed TAR file. 64 images in random order of one with 5,000 photographs took
300 times as long as without compression, and more of a larger one."""

TEST_SET = "the test set"
"""How the test images of a data set with a test set of its own were chosen."""

logger = logging.getLogger("cgan")


@torch_defaults()
def load_pictures(
    source: str,
    split: Split = "train",
    *,
    data_dir: str | Path | None = None,
    size: int | str | None = None,
    skip_broken: bool = False,
    skip_conflicts: bool = False,
    background: str = "auto",
    fit: str = "crop",
    streaming: bool = False,
    memory_bytes: int | None = None,
) -> ImageDataset | ImageFolder:
    """Load one split of a data set.

    Args:
        source: a name of ``DATASETS``, a folder, ZIP or TAR file of images (see
            ``cgan.data.layout``), or ``hf-datasets:NAME`` (see ``cgan.data.hub``).
        split: ``train``, ``validation`` or ``test`` (see ``cgan.data.splits``).
        data_dir: folder of the data sets; missing ones are downloaded. The default is
            ``$CGAN_DATA``, or the cache.
        size: side in pixels that a folder's images are resized to, or ``"WIDTHxHEIGHT"``; None
            chooses a side.
        skip_broken: skip images of a folder that cannot be read.
        skip_conflicts: leave out images of a folder that are in several classes.
        background: what shows through transparent parts: ``white``, ``black``, ``#rrggbb``, or
            ``auto``, which is white unless most drawings vanish on it.
        fit: ``crop``, ``pad`` or ``stretch``, where the images have other shapes.
        streaming: load a sample of ``hf-datasets:NAME`` or of tar files (see ``cgan.data.stream``);
            a pattern of tar files such as ``{000..099}.tar`` means it.
        memory_bytes: a folder that needs more memory than this is read from disk in batches; None
            means half of the memory available to each process of this machine, if it is known.

    Raises:
        DataError: the images are missing, cannot be downloaded or cannot be read.
        UnknownNameError: neither a data set nor a folder, or no such split.
        ConfigError: ``size`` is no size of images.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    try:
        data = DataConfig(
            size=size, skip_broken=skip_broken, skip_conflicts=skip_conflicts,
            background=background, fit=fit, streaming=streaming,  # type: ignore[arg-type]
        ).model_copy(update={"source": source})  # fmt: skip
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        text = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{'.'.join(map(str, problem['loc']))}: {text}") from error
    if source in DATASETS and not data.is_streamed:
        return DATASETS[source].load(split, Path(data_dir or default_data_dir()))
    return _read_split(_scan(data), source, split, memory_bytes)


def load_split(data: DataConfig, split: Split) -> ImageDataset | ImageFolder:
    """Load one split as a config describes it.

    Raises:
        DataError: the images are missing or cannot be read.
    """
    return load_pictures(
        data.source,
        split,
        data_dir=data.data_dir,
        size=data.size,
        skip_broken=data.skip_broken,
        skip_conflicts=data.skip_conflicts,
        background=data.background,
        fit=data.fit,
        streaming=data.streaming,
    )


class TrainingSplit(NamedTuple):
    """The images to train on.

    Attributes:
        labelled: the images with a class; of a stream, those of its sample.
        unlabelled: the images without, with the label -1; None if there are none.
        stream: where the batches come from instead; None if the images are here.
    """

    labelled: ImageDataset | ImageFolder
    unlabelled: ImageDataset | ImageFolder | None = None
    stream: ImageStream | None = None


@torch_defaults()
def load_training_split(data: DataConfig) -> TrainingSplit:
    """The training images: those with a class, those without, and the stream of all, if it is one.

    About a fifth of the images without a class is left out: those that would be held out if they
    had one. So a copy of a held-out image is never among them.

    Raises:
        DataError: the images are missing or cannot be read, or a class has none.
    """
    if data.source in DATASETS:
        return TrainingSplit(load_split(data, "train"))
    if data.is_streamed:
        return TrainingSplit(load_split(data, "train"), stream=open_stream(data)[1])
    folder = _scan(data)
    return TrainingSplit(
        _read_split(folder, data.source, "train"), _read_unlabelled(folder, data.source)
    )


class AllSplits(NamedTuple):
    """The labelled images of each split, and the training images without a class, or None."""

    labelled: dict[Split, ImageDataset | ImageFolder]
    unlabelled: ImageDataset | ImageFolder | None = None


@torch_defaults()
def load_splits(data: DataConfig) -> AllSplits:
    """All images, with one look at a folder: that hashes every file.

    Raises:
        DataError: the images are missing or cannot be read, or a class has none to train on.
    """
    if data.source in DATASETS or data.is_streamed:
        return AllSplits({split: load_split(data, split) for split in SPLITS})
    folder = _scan(data)
    labelled = {split: _read_split(folder, data.source, split) for split in SPLITS}
    return AllSplits(labelled, _read_unlabelled(folder, data.source))


def _read_split(
    folder: ImageFolder, source: str, split: Split, memory_bytes: int | None = None
) -> ImageDataset | ImageFolder:
    indices = _split_indices(folder, split)
    indices = indices[folder.labels[indices] != NO_LABEL]
    if split == "train":
        _check_every_class(folder, indices)
    return _read(folder, indices, source, split, memory_bytes)


def _read_unlabelled(folder: ImageFolder, source: str) -> ImageDataset | ImageFolder | None:
    indices = _split_indices(folder, "train")
    indices = indices[folder.labels[indices] == NO_LABEL]
    return _read(folder, indices, source, "unlabelled") if len(indices) else None


def _split_indices(folder: ImageFolder, split: Split) -> torch.Tensor:
    return folder_split_indices(
        folder.digests, folder.labels, folder.splits, split, test=FOLDER_TEST_FRACTION,
        groups=folder.groups,
    )  # fmt: skip


def _read(
    folder: ImageFolder,
    indices: torch.Tensor,
    source: str,
    name: str,
    memory_bytes: int | None = None,
) -> ImageDataset | ImageFolder:
    """These images in memory, or on disk if they do not fit; ``name`` is that of their cache."""
    chosen = folder.subset(indices)
    if memory_bytes is None and (free := free_memory()) is not None:
        memory_bytes = free // (2 * local_world_size())
    if memory_bytes is not None and chosen.nbytes > memory_bytes:
        logger.info("%s is too large for memory: reading batches from disk", source)
        return chosen
    return _read_all(chosen, Path(source), name, cached=len(folder) >= MIN_IMAGES)


def dataset_info(data: DataConfig) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """(C, H, W) and the class names; a named data set is not loaded or downloaded for this."""
    if data.source in DATASETS:
        return DATASETS[data.source].image_shape, DATASETS[data.source].classes
    folder = _scan(data)
    return folder.image_shape, folder.classes


def describe_split(data: DataConfig, split: Literal["validation", "test"]) -> str:
    """How the images of a split were chosen, as text for reports."""
    source = data.source
    if data.is_streamed and split in open_stream(data)[0].splits:
        return f"a sample of the split {split}"
    has_test_set = source in DATASETS and source != "digits"
    if has_test_set and split == "test":
        return TEST_SET
    folders = {}
    if source not in DATASETS and not data.is_streamed:
        folders = split_folders(open_root(Path(source)))
    if split in folders:
        return f"the folder {folders[split].name}"
    test = DIGITS_TEST_FRACTION if source in DATASETS else FOLDER_TEST_FRACTION
    percent = 100 * (test if split == "test" else VALIDATION_FRACTION)
    of = "the training set" if has_test_set or folders else "all images"
    of = "a sample of the shards" if data.is_streamed else of
    return f"about {percent:.0f} % of {of}, chosen by a hash of the content"


def _scan(data: DataConfig) -> ImageFolder:
    source = data.source
    if data.is_streamed:
        return open_stream(data)[0]
    try:
        is_folder = Path(source).is_dir() or is_archive(source)
    except OSError as error:  # a folder above it is not readable, or the name is too long
        raise DataError(f"{quote(source)} cannot be read: {error.strerror}") from error
    if is_folder:
        return scan_folder(
            Path(source), size=data.size, skip_broken=data.skip_broken,
            skip_conflicts=data.skip_conflicts, background=data.background, fit=data.fit,
        )  # fmt: skip
    if os.path.isfile(source):
        if command := UNPACK.get(Path(source).suffix.lower()):
            raise DataError(
                f"{source} is compressed as a whole, so no image in it can be read alone: run "
                f"{command} {shlex.quote(source)}, and give the .tar file"
            )
        raise DataError(
            f"{source} is neither a folder nor a ZIP file (.zip) or a TAR file without compression "
            "(.tar): unpack it"
        )
    if os.sep in source or source.startswith("."):
        raise DataError(f"there is no folder {source}")
    raise UnknownNameError("data set or folder", source, DATASETS)


def _check_every_class(folder: ImageFolder, indices: torch.Tensor) -> None:
    """Raise ``DataError`` if a class has no training images."""
    counts = torch.bincount(folder.labels[indices], minlength=len(folder.classes))
    if without := [folder.classes[label] for label in (counts == 0).nonzero().flatten().tolist()]:
        names = first_few(sort_for_display(without))
        raise DataError(
            f"{folder.name} has no training image of {names} that can be read and is not also "
            "in a held-out split: add some"
        )


def _read_all(folder: ImageFolder, root: Path, name: str, cached: bool) -> ImageDataset:
    """Read all images into memory, or take them from the cache."""
    shape, digest = (len(folder), *folder.image_shape), folder.digest()
    cache = ImageCache(root)
    pixels = cache.read_pixels(name, digest, shape) if cached else None
    if pixels is not None:
        images = torch.from_numpy(pixels)
    else:
        images = torch.empty(shape, dtype=torch.uint8)

        def read(index: int) -> None:
            images[index] = folder.read(index)

        with reading_threads() as pool:
            list(pool.map(read, range(len(folder))))
        if cached:
            cache.write_pixels(name, digest, images.numpy())
    return ImageDataset(
        folder.name, images, folder.labels, folder.classes, digest, folder.num_attributes,
        folder.conversion, folder.facts,
    )  # fmt: skip


def resolve_source(data: str) -> str:
    """The name of a data set, also of the Hub, unchanged; a folder or archive as an absolute path.

    Raises:
        ConfigError: the text cannot be a path.
    """
    try:
        check_path(data)
    except ValueError as error:
        raise ConfigError(f"{error}, not {quote(data)}") from error
    if data.startswith(HUB_PREFIX):
        name = data.removeprefix(HUB_PREFIX)
        return HUB_PREFIX + str(Path(name).resolve()) if os.path.isdir(name) else data
    if data in DATA_NAMES:
        return data
    # Not Path.is_dir: it raises OSError for a name that is too long.
    if not (os.path.isdir(data) or is_archive(data) or is_shard_pattern(data)):
        return data
    path = Path(data)
    # The target of a link to a file may lack its suffix: a cache often names files by digests.
    path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    require_utf8(path)
    return str(path)
