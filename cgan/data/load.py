"""Load one split of a named data set or of a folder."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from cgan.config import DataConfig
from cgan.data.dataset import ImageDataset, Split, stratified_split
from cgan.data.datasets import DATASETS, HELD_OUT_DIGITS
from cgan.data.image_folder import ImageFolder, scan_folder
from cgan.errors import DataError, UnknownNameError
from cgan.runtime.cpu import free_memory
from cgan.runtime.device import torch_defaults
from cgan.storage.paths import default_data_dir

HELD_OUT_FOLDER = 0.1
"""Fraction of each class of a folder that is held out."""

logger = logging.getLogger("cgan")


@torch_defaults()
def load_pictures(
    source: str,
    split: Split = "train",
    *,
    data_dir: str | Path | None = None,
    size: int | None = None,
    skip_broken: bool = False,
    memory_bytes: int | None = None,
) -> ImageDataset | ImageFolder:
    """Load one split of a data set.

    Args:
        source: a name of ``DATASETS``, or a folder with one subfolder of images per class.
        split: ``train``, or ``test`` for the held-out part.
        data_dir: folder of the data sets; missing ones are downloaded. The default is
            ``$CGAN_DATA``, or the cache.
        size: side in pixels that a folder's images are resized to; None chooses one.
        skip_broken: skip images of a folder that cannot be read.
        memory_bytes: a folder that needs more memory than this is read from disk in batches; None
            means half of the available memory.

    Raises:
        DataError: the images are missing, cannot be downloaded or cannot be read.
        UnknownNameError: neither a data set nor a folder.
    """
    if source in DATASETS:
        return DATASETS[source].load(split, Path(data_dir or default_data_dir()))
    folder = _scan(source, size, skip_broken)
    train, test = stratified_split(folder.labels, HELD_OUT_FOLDER)
    chosen = folder.subset(train if split == "train" else test)
    if chosen.nbytes > (free_memory() // 2 if memory_bytes is None else memory_bytes):
        logger.info("%s is too large for memory: reading batches from disk", source)
        return chosen
    return _read_all(chosen)


def load_split(data: DataConfig, split: Split) -> ImageDataset | ImageFolder:
    """Load one split as a config describes it; raises like ``load_pictures``."""
    return load_pictures(
        data.source,
        split,
        data_dir=data.data_dir,
        size=data.size,
        skip_broken=data.skip_broken,
    )


def dataset_info(data: DataConfig) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """(C, H, W) and the class names; a named data set is not loaded or downloaded for this."""
    if data.source in DATASETS:
        return DATASETS[data.source].image_shape, DATASETS[data.source].classes
    folder = _scan(data.source, data.size, data.skip_broken)
    return folder.image_shape, folder.classes


def describe_test_split(source: str) -> str:
    """What the ``test`` split of a source is, as text for the report."""
    if source in DATASETS and source != "digits":
        return "the test set"
    fraction = HELD_OUT_DIGITS if source in DATASETS else HELD_OUT_FOLDER
    return f"{100 * fraction:.0f} % of each class, held out with a fixed seed (it has no test set)"


def _scan(source: str, size: int | None, skip_broken: bool) -> ImageFolder:
    if Path(source).is_dir():
        return scan_folder(Path(source), size=size, skip_broken=skip_broken)
    if os.sep in source or source.startswith("."):
        raise DataError(f"there is no folder {source}")
    raise UnknownNameError("data set or folder", source, DATASETS)


def _read_all(folder: ImageFolder) -> ImageDataset:
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(folder.read, range(len(folder))))
    stacked = torch.stack(images) if images else torch.empty(0, *folder.image_shape).byte()
    return ImageDataset(folder.name, stacked, folder.labels, folder.classes)
