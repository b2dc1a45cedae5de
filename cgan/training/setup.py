"""Prepare a run: device, training data, and what is logged at the start."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from cgan.augment import PHOTO_AUGMENTATIONS, choose_augmentations
from cgan.config import MIN_UPDATES, Config
from cgan.data import (
    ImageDataset,
    ImageFolder,
    load_training_split,
    warn_about_classes,
)
from cgan.errors import ConfigError, DataError, DeviceError
from cgan.runtime.device import find_device
from cgan.runtime.distributed import World
from cgan.runtime.rank import local_rank
from cgan.storage.limits import MAX_CLASSES
from cgan.training.state import TrainState

logger = logging.getLogger("cgan")


def resolve_device(config: Config, world: World) -> torch.device:
    """The device of this process.

    Raises:
        ConfigError: the batch cannot be split evenly over the processes.
        DeviceError: the device is not available, or cannot do what the config or ``world`` needs.
    """
    check_batch_splits(config, world)
    device = find_device(config.device, local_rank())
    if config.bf16 and device.type != "cuda":
        raise DeviceError(f"bf16 needs a CUDA device, but the device is {device}: turn it off")
    if world.size > 1 and device.type not in ("cpu", "cuda"):
        raise DeviceError(
            f"several processes train on CPUs or on CUDA devices only, not on {device}: "
            "use --device cpu, or start a single process"
        )
    return device


def check_batch_splits(config: Config, world: World) -> None:
    """Check that the batch can be split evenly over the processes.

    Raises:
        ConfigError: the message suggests batch sizes.
    """
    batch, size = config.batch_size, world.size
    if batch % size or batch // size < 2:
        below, above = batch // size * size, -(-batch // size) * size
        near = " or ".join(str(b) for b in sorted({below, above}) if b >= 2 * size) or 2 * size
        raise ConfigError(
            f"a batch of {batch} cannot be split evenly over {size} processes with at "
            f"least two images each: choose --batch-size {near}, or another number of processes"
        )


def load_training_data(
    config: Config, world: World
) -> tuple[ImageDataset | ImageFolder, ImageDataset | ImageFolder | None]:
    """The training images, and the unlabelled ones. Rank 0 loads first, so that only one process
    downloads.

    Raises:
        ConfigError: there are unlabelled images, but D cannot judge them.
        DataError: there are no images, or a conditional GAN has a single class.
    """
    if not world.is_main:
        world.barrier()
    dataset, unlabelled = load_training_split(config.data)
    if world.is_main:
        world.barrier()
    if (
        unlabelled is not None
        and config.model.conditional
        and config.model.discriminator_label == "concat"
    ):
        raise ConfigError(
            "the discriminator `concat` cannot judge unlabelled images: use --set "
            "model.discriminator_label=projection+auxiliary, or remove the folder _unlabelled"
        )
    if not len(dataset):
        raise DataError(f"there are no images in {config.data.source}")
    if len(dataset.classes) > MAX_CLASSES:
        raise DataError(
            f"{config.data.source} has {len(dataset.classes):,} classes: the limit is "
            f"{MAX_CLASSES:,}"
        )
    if config.model.conditional and len(dataset.classes) == 1:
        raise DataError(
            f"{config.data.source} has one class only ({dataset.classes[0]}), so there is nothing "
            "to choose: add a folder for each further class, or train with --plain"
        )
    warn_about_classes(dataset, config.data.balanced)
    if config.images is not None and config.images < MIN_UPDATES * config.batch_size:
        logger.warning(
            "a budget of %s images in batches of %s is only %d updates: "
            "lower --batch-size or raise --images",
            f"{config.images:,}",
            f"{config.batch_size:,}",
            -(-config.images // config.batch_size),
        )
    return dataset, unlabelled


def log_start(state: TrainState, world: World, folder: Path) -> None:
    """Log the GAN, its data, the device and the folder."""
    kind = "conditional" if state.config.model.conditional else "plain"
    logger.info(
        "%s GAN (%s) on %s: %d images of %d classes, on %s%s, in %s",
        kind if state.plain is None else "steered",
        state.config.model.backbone,
        state.data_name,
        state.dataset_size,
        len(state.classes),
        state.device,
        f" in {world.size} processes" if world.size > 1 else "",
        folder,
    )
    config = state.config
    names = choose_augmentations(config.augment, state.classes, state.image_shape)
    if config.augment:
        logger.info("augmentation: %s", ", ".join(names) or _why_none(state))


def _why_none(state: TrainState) -> str:
    """Why ``augment: auto`` is nothing for these images."""
    if state.image_shape[0] == 1:
        return "none, because the images are grey"
    return (
        "none, because the classes are named like characters "
        f'(--set "augment=[{", ".join(PHOTO_AUGMENTATIONS)}]" for photographs)'
    )
