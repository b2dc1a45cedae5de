"""Plan a run: everything it needs, resolved and checked once, before anything is written.

A ``Plan`` holds the config, the device, the data, the generator to steer or to start from, and the
run to resume. The networks, the loop and the run folder are made from it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cgan.attributes import sort_for_display
from cgan.augment import choose_augmentations
from cgan.config import MIN_UPDATES, RESUMABLE_CHANGES, Config
from cgan.config_io import flatten, load_config
from cgan.data import (
    ImageDataset,
    ImageFolder,
    Split,
    load_split,
    load_training_split,
    warn_about_classes,
)
from cgan.data.stream import ImageStream
from cgan.errors import ConfigError, DataError, DeviceError, MeasureError, RunError
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import (
    TEACHER,
    get_or_train_judge,
    is_photographic,
    may_mirror,
    why_no_teacher,
)
from cgan.evaluation.pretrained import backbone
from cgan.runtime.device import find_device, to_device
from cgan.runtime.distributed import SINGLE_PROCESS, World
from cgan.runtime.process import is_restart, local_rank
from cgan.sampling.latents import batch_size, draw_latents
from cgan.sampling.wrap import PlainGenerator, check_images, check_plain, load_plain
from cgan.storage.images import to_unit
from cgan.storage.paths import CONFIG_FILE, RUNS
from cgan.storage.run_files import run_to_resume
from cgan.storage.safe_reading import MAX_CLASSES

DRAWS, DRAWS_PER_CLASS = 5_000, 50
"""Images that a plain generator draws to count the classes: the larger of both."""
RARE = 0.1
"""A class that it draws less often than this fraction of 1 / classes is rare."""

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class Plan:
    """A run that can start.

    Attributes:
        config: all settings.
        dataset: the training images.
        device: where this process trains.
        unlabelled: training images without a class, with the label -1; None if there are none.
        plain: the generator that is steered, or None.
        world: the processes that train together.
        folder: the run to resume; None for a new one.
        base: the folder of a new run, before a number is added to it.
        mirror: whether ``augment: auto`` may mirror: a mirrored image shows the same class.
        stream: where the training images come from if ``dataset`` is a sample of them, or None.
        teacher: the reader that teaches D's classifier, or None.
    """

    config: Config
    dataset: ImageDataset | ImageFolder
    device: torch.device
    unlabelled: ImageDataset | ImageFolder | None = None
    plain: PlainGenerator | None = None
    world: World = SINGLE_PROCESS
    folder: Path | None = None
    base: Path = RUNS
    mirror: bool = True
    stream: ImageStream | None = None
    teacher: Judge | None = None

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The augmentations that the config means for these images."""
        dataset, wanted = self.dataset, self.config.augment
        names = choose_augmentations(
            wanted, dataset.classes, dataset.image_shape, dataset.num_attributes
        )
        return tuple(
            name for name in names if self.mirror or name != "mirror" or "mirror" in wanted
        )

    def load_split(self, split: Split) -> ImageDataset | ImageFolder:
        """The training images (already in memory), or held-out images."""
        return self.dataset if split == "train" else load_split(self.config.data, split)


def make_plan(
    config: Config,
    world: World = SINGLE_PROCESS,
    out: str | Path | None = None,
    resume: bool = False,
    plain: PlainGenerator | None = None,
) -> Plan:
    """Resolve what a config names. What is cheap to check comes first; data is loaded last.

    Args:
        config: all settings.
        world: the processes that train together; rank 0 finds the run to resume.
        out: the run folder; default ``runs/<config name>``.
        resume: continue the run in that folder.
        plain: the generator to steer, in place of the file that the config names.

    Raises:
        CganError: the device, the run, the generator to steer or the data cannot be used.
    """
    device = choose_device(config, world)
    base = RUNS / config.name if out is None else Path(out)
    folder = find_run(config, base, resume, named=out is not None) if world.is_main else None
    if config.steer is not None and plain is None:
        plain = load_plain(config.steer)
    if not world.is_main:
        world.barrier()  # rank 0 loads first, so that only one process downloads
    data = load_training_split(config.data)
    if world.is_main:
        world.barrier()
    dataset = data.labelled
    check_data(config, dataset, data.unlabelled)
    mirror = True
    if "auto" in config.augment:  # rank 0 decides for all
        mirror = bool(world.all_reduce_max(float(world.is_main and may_mirror(dataset)))[0])
    plan = Plan(
        config, dataset, device, data.unlabelled, plain, world, folder, base, mirror, data.stream
    )
    if plain is not None:
        check_plain(plain, config, dataset.image_shape, dataset.name)
        if folder is None and world.is_main:
            check_classes(plan, plain)
    return replace(plan, teacher=find_teacher(plan))


def find_teacher(plan: Plan) -> Judge | None:
    """The reader that teaches D's classifier, fitted to the training images (``TeacherConfig``).

    A log line says why a conditional GAN has none, if the config wants one.
    """
    model, world = plan.config.model, plan.world
    if not plan.config.teacher.weight or not model.conditional:
        return None
    if "auxiliary" not in model.discriminator_label:
        why_none = "the discriminator has no classifier: model.discriminator_label adds one"
    else:
        why_none = why_no_teacher(plan.dataset)
    if world.all_reduce_max(float(bool(why_none)))[0]:  # a package may be missing on one machine
        if world.is_main:
            log = logger.warning if is_photographic(plan.dataset) else logger.info
            log("no teacher: %s", why_none or "another machine has no EfficientNet-Lite1")
        return None
    if not world.is_main:
        world.barrier()  # rank 0 fits it, and the others find it in the cache
    teacher = get_or_train_judge(plan.load_split, plan.device, architecture=TEACHER)
    if world.is_main:
        world.barrier()
    backbone(teacher.device, 1)  # before two threads ask for it
    return teacher


def choose_device(config: Config, world: World) -> torch.device:
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
            "use --device cpu"
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
            f"least two images each: choose --batch-size {near}"
        )


def find_run(config: Config, base: Path, resume: bool, named: bool) -> Path | None:
    """The folder of the run to resume, or that torchrun restarted; None for a new run.

    Args:
        config: that of this session.
        base: the run folder, or its name without the number.
        resume: whether there must be a run.
        named: whether ``base`` is exactly the run to resume.

    Raises:
        RunError: there is no run to resume, or its config differs.
    """
    folder = None
    if resume:
        folder = run_to_resume(base, named)
        check_same_config(config, load_config(folder / CONFIG_FILE, strict=False), folder)
    elif is_restart():  # with the words of the first start, or else it is another run
        with suppress(RunError):
            found = run_to_resume(base)
            begun = load_config(found / CONFIG_FILE, strict=False)
            check_same_config(config, begun, found)
            if (begun.images, begun.minutes) == (config.images, config.minutes):
                folder = found
    return folder


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
            f"{folder} was trained with {'; '.join(differing)}: leave out --resume to "
            "start a new run"
        )


def check_data(
    config: Config,
    dataset: ImageDataset | ImageFolder,
    unlabelled: ImageDataset | ImageFolder | None,
) -> None:
    """Check that the config can train on the images.

    Raises:
        ConfigError: there are unlabelled images, but D cannot judge them.
        DataError: there are no images, or a conditional GAN has a single class.
    """
    model, source = config.model, config.data.source
    if unlabelled is not None and model.conditional and model.discriminator_label == "concat":
        raise ConfigError(
            "the discriminator `concat` cannot judge unlabelled images: use --set "
            "model.discriminator_label=projection+auxiliary, or remove the folder _unlabelled"
        )
    if not len(dataset):
        raise DataError(f"there are no images in {source}")
    if len(dataset.classes) > MAX_CLASSES:
        raise DataError(
            f"{source} has {len(dataset.classes):,} classes: the limit is {MAX_CLASSES:,}"
        )
    if model.conditional and len(dataset.classes) == 1:
        raise DataError(
            f"{source} has one class only ({dataset.classes[0]}), so there is nothing "
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


@torch.no_grad()
def check_classes(plan: Plan, plain: PlainGenerator) -> None:
    """Check that the generator to steer draws every class, and warn about rare ones.

    Raises:
        MeasureError: it never draws a class, or draws images that are not finite, or all equal.
    """
    judge = get_or_train_judge(plan.load_split, plan.device)
    network = to_device(plain.network, plan.device)

    def draw(seeds: Tensor) -> Tensor:
        z = torch.from_numpy(draw_latents(seeds.tolist(), plain.latent_dim))
        images: Tensor = network(z.to(plan.device))
        return images

    check_images(draw(torch.arange(2)))
    draws = max(DRAWS, DRAWS_PER_CLASS * len(judge.classes))
    counts = torch.zeros(len(judge.classes), dtype=torch.int64)
    for seeds in torch.arange(draws).split(batch_size(plain.image_shape, plan.device.type)):
        labels = judge.classify(to_unit(draw(seeds))).cpu()
        counts += labels.bincount(minlength=len(counts))
    shares = dict(zip(judge.classes, (counts / draws).tolist(), strict=True))
    missing = [name for name, share in shares.items() if share == 0]
    if missing:
        which = "these classes" if missing[1:] else "this class"
        names = ", ".join(sort_for_display(missing)[:10])
        raise MeasureError(
            f"the generator drew {names} 0 times in {draws:,} images, so it has "
            f"no latent vectors to choose from: leave the images of {which} out of the data"
        )
    rarest = min(shares, key=lambda name: shares[name])
    report = logger.warning if shares[rarest] < RARE / len(shares) else logger.info
    report(
        "without steering, the generator draws %s most rarely: %.1f %% of %s images",
        rarest,
        100 * shares[rarest],
        f"{draws:,}",
    )
