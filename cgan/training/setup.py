"""Prepare a run: folder, device, data, and a batch that fits in memory, before it is written."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch
from torch import Tensor

from cgan.augment import PHOTO_AUGMENTATIONS, choose_augmentations
from cgan.config import MIN_UPDATES, RESUMABLE_CHANGES, Config
from cgan.config_io import flatten
from cgan.data import (
    ImageDataset,
    ImageFolder,
    load_training_split,
    warn_about_classes,
)
from cgan.errors import ConfigError, DataError, DeviceError, FileError, RunError
from cgan.runtime.device import device_memory, find_device
from cgan.runtime.distributed import World
from cgan.runtime.process import local_rank
from cgan.storage.atomic import explain_write_error
from cgan.storage.paths import RUNS, STATE_FILES, has_state, require_utf8, runs_by_age
from cgan.storage.safe_reading import MAX_CLASSES
from cgan.training.state import TrainState

PROBE_BATCH = 2
"""Images in the forward pass that is measured."""
PEAK_FACTOR = 3.0
"""Likely peak memory of a step, as a multiple of what one forward pass of G and D saves for
backward. D also sees real images, a penalty keeps its own graph, and gradients are stored too.
(Measured on a CPU: 1.3 to 2.3 without a penalty, up to 3.4 with one.)"""
MIN_FACTOR = 0.25
"""No step needs less than this multiple: bfloat16 halves the lowest measured value, and half of the
rest allows for what torch.compile saves."""

logger = logging.getLogger("cgan")


def new_run(config: Config, out: str | Path | None = None) -> Path:
    """Create the folder of a new run: ``out`` or ``runs/<name>``, with a number if it exists.

    Raises:
        FileError: it cannot be created, or its path is not UTF-8.
    """
    base = Path(out) if out is not None else RUNS / config.name
    require_utf8(base)
    if not base.name:
        base = base.resolve()  # "." has no name that a number could be added to
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        if base.is_dir() and not any(base.iterdir()):
            return base
        number = 1
        while True:
            folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise FileError(explain_write_error(error, base)) from error


def run_to_resume(config: Config, out: str | Path | None = None, *, numbered: bool = False) -> Path:
    """The run to resume: ``out``, or the newest run in ``runs/`` with the config's name.

    With ``numbered``, ``out`` also matches the numbered folders that ``new_run`` creates.

    Raises:
        RunError: there is none.
    """
    if out is not None and not numbered:
        return check_state(Path(out))
    base = RUNS / config.name if out is None else Path(out)
    pattern = re.compile(re.escape(base.name) + r"(-\d+)?")
    runs = [run for run in runs_by_age(STATE_FILES, base.parent) if pattern.fullmatch(run.name)]
    if not runs:
        raise RunError(f"there is no run {base} to resume: leave out --resume")
    return runs[-1]


def check_state(folder: Path) -> Path:
    """The folder; raises ``RunError`` if it holds no run that can be resumed."""
    if not has_state(folder):
        raise RunError(f"{folder} contains no state of a run: leave out --resume to start one")
    return folder


def newest_state() -> Path:
    """The run in ``runs/`` with the newest state.

    Raises:
        RunError: there is none.
    """
    runs = runs_by_age(STATE_FILES)
    if not runs:
        raise RunError("there is no run in runs/ to resume: leave out --resume")
    return runs[-1]


def check_same_config(requested: Config, trained: Config, folder: Path) -> None:
    """Check that a run is resumed with the same config.

    Raises:
        RunError: names every key that differs.
    """
    old = flatten(trained.model_dump(mode="json"))
    differing = [
        f"{key} {old[key]!r}, not {value!r}"
        for key, value in flatten(requested.model_dump(mode="json")).items()
        if key not in RESUMABLE_CHANGES and old[key] != value
    ]
    if differing:
        raise RunError(
            f"{folder} was trained with {'; '.join(differing)}: resume it with the same values, "
            "or leave out --resume to start a new run"
        )


def check_batch_fits(state: TrainState, world_size: int = 1) -> None:
    """Reject a batch size that cannot fit in memory, and warn about one that probably does not.

    Raises:
        RunError: even the smallest estimate is more than the device has; the message says which
            batch size would fit.
    """
    memory = device_memory(state.device)
    if memory is None:
        return
    each, batch = bytes_per_image(state), state.config.batch_size
    share = batch // world_size * each
    fits = int(memory.free / (PEAK_FACTOR * each)) * world_size
    advice = f"lower --batch-size to about {fits:,}"
    if fits < 2 * world_size:
        advice = "use smaller networks (--set model.width=…) or images (--size)"
    if MIN_FACTOR * share > memory.total:
        raise RunError(
            f"a batch of {batch:,} takes at least {_gibibytes(MIN_FACTOR * share)} in training, "
            f"and {state.device} has {_gibibytes(memory.total)}: {advice}"
        )
    if PEAK_FACTOR * share > memory.free:
        logger.warning(
            "a batch of %s probably takes about %s in training, and %s has %s free: if memory runs "
            "out, %s",
            f"{batch:,}",
            _gibibytes(PEAK_FACTOR * share),
            state.device,
            _gibibytes(memory.free),
            advice,
        )


def bytes_per_image(state: TrainState) -> int:
    """Bytes that a forward pass of G and D saves for backward, per image, without the weights."""
    saved: dict[int, int] = {}
    networks = state.generator, state.discriminator
    weights = {weight.data_ptr() for one in networks for weight in one.parameters()}

    def record(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            saved[tensor.data_ptr()] = tensor.nbytes
        # Saving an output itself makes a cycle: the graph would never be freed, and its nodes on
        # this stream would break the capture of a CUDA graph.
        return tensor.detach()

    generator, discriminator = state.generator.eval(), state.discriminator.eval()
    z = torch.zeros(PROBE_BATCH, state.config.model.latent_dim, device=state.device)
    labels = None
    if state.config.model.conditional:
        labels = torch.zeros(PROBE_BATCH, dtype=torch.int64, device=state.device)
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        output = discriminator(generator(z, labels), labels)
    generator.train()
    discriminator.train()
    del output
    return sum(saved.values()) // PROBE_BATCH


def _gibibytes(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"


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
