"""From a data set's name or a folder to shuffled batches on the training device."""

import importlib
from typing import Any

from cgan.data.dataset import ImageDataset, warn_about_classes
from cgan.data.datasets import DATASETS
from cgan.data.image_folder import ImageFolder
from cgan.data.load import (
    TEST_SET,
    dataset_info,
    describe_split,
    load_pictures,
    load_split,
    load_splits,
    load_training_split,
)
from cgan.data.loader import Joined, Loader, epoch_order
from cgan.data.splits import SPLITS, Split

__all__ = [
    "DATASETS",
    "SPLITS",
    "TEST_SET",
    "ImageDataset",
    "ImageFolder",
    "Joined",
    "Loader",
    "Split",
    "dataset_info",
    "describe_split",
    "epoch_order",
    "load_pictures",
    "load_split",
    "load_splits",
    "load_training_split",
    "warn_about_classes",
]


def __getattr__(name: str) -> Any:
    if name == "GeneratedDataset":  # it needs a sampler, which is on a higher level
        return importlib.import_module("cgan.sampling.generated_dataset").GeneratedDataset
    raise AttributeError(f"module 'cgan.data' has no attribute {name!r}")
