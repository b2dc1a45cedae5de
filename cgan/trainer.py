"""Training: what must be right before the loop begins, and where a run starts or goes on."""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from cgan.config import FEWEST_UPDATES, Config, load_config, to_yaml
from cgan.data import PictureFolder, Pictures, check_classes, load_split
from cgan.device import find_device, set_arithmetic
from cgan.distributed import World, is_restart, join, local_rank
from cgan.errors import CganError, ConfigError, DataError, DeviceError, RunError
from cgan.files import write_atomically
from cgan.learner import Learner
from cgan.loggers import Loggers
from cgan.loop import Loop
from cgan.memory import check_batch_fits
from cgan.metrics.control import Control
from cgan.places import CONFIG_FILE, GENERATOR_FILE
from cgan.runs import check_same_run, lock, new_run, run_to_resume

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class Run:
    """What training left behind.

    Attributes:
        folder: where it lies.
        config: what it was made from.
        images_seen: real pictures shown to the discriminator.
        seconds: spent on training, all sittings together.
        control: what the judge said; None where it was not asked.
        stopped_by: the number of the signal that stopped it before its budget was spent, or None.
        written_here: False in all but the first of several processes.
    """

    folder: Path
    config: Config
    images_seen: int
    seconds: float
    control: Control | None = None
    stopped_by: int | None = None
    written_here: bool = True

    @property
    def generator(self) -> Path:
        """The generator file, for :func:`cgan.load`."""
        return self.folder / GENERATOR_FILE


def train(
    config: Config | str | Path,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    progress: bool = False,
) -> Run:
    """Train a GAN as its config says.

    Args:
        config: a config, or what :func:`cgan.load_config` reads.
        out: the run's folder; default ``runs/<config's name>``. A folder that holds something is
            never written over: a number is added.
        resume: go on with that folder's run (without ``out``, the newest of that name). On a CPU,
            with a budget in images, it ends with the same weights, bit for bit, as a run that was
            never stopped.
        progress: show the progress on the terminal.

    Returns:
        The run; ``stopped_by`` is set where Ctrl-C or SIGTERM stopped it, with its state saved.

    Raises:
        CganError: the config, data, device or folder cannot be used; nothing was written.
        Diverged: a loss stopped being a number; the last good state is kept.

    One of several processes that ``torchrun`` started trains together with the others.
    """
    config = config if isinstance(config, Config) else load_config(config)
    with join() as world:
        return train_in(world, config, out, resume, progress)


def train_in(
    world: World, config: Config, out: str | Path | None, resume: bool, progress: bool
) -> Run:
    """:func:`train`, as one of several processes or alone. The first of them alone writes."""
    check_parts(config, world)
    device = find_device(config.device, local_rank())
    if config.bf16 and device.type == "cpu":
        raise DeviceError("bf16 needs a CUDA device, and this is a cpu: leave it off")
    set_arithmetic(device)
    if world.size > 1 and device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL asks for it
    folder = None
    if world.leads:
        folder = run_to_resume(config, out) if resume else run_of_restart(config, out)
        if folder is not None:
            check_same_run(config, load_config(folder / CONFIG_FILE), folder)
    else:
        world.wait()  # until the first process has downloaded what must be downloaded
    pictures = load_split(config.data, "train")
    check_trainable(config, pictures)

    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        torch.manual_seed(config.seed)
        learner = Learner(config, pictures, device, world)
        check_batch_fits(learner)
        loggers: Loggers | None = None
        if world.leads:
            resumed = folder is not None
            folder = folder or new_run(config, out)
            stack.enter_context(lock(folder))
            if resumed:
                for problem in learner.restore(folder):
                    logger.warning("%s; going on from the state before it", problem)
                logger.info("going on after %s images", f"{learner.counters.images_seen:,}")
                if learner.counters.share(config) >= 1:
                    logger.info("its budget is spent: a larger --images or --minutes goes on")
            write_atomically(folder / CONFIG_FILE, to_yaml(config).encode())
            logger.info(
                "%s GAN (%s) on %s: %d pictures of %d classes, on %s%s, in %s",
                "conditional" if config.model.conditional else "plain",
                config.model.backbone,
                pictures.name,
                len(pictures),
                len(pictures.classes),
                device,
                f" in {world.size} processes" if world.size > 1 else "",
                folder,
            )
            try:
                loggers = Loggers(config, folder, learner.counters.images_seen, progress)
            except CganError:
                if not resumed:  # the folder was made a moment ago, for a run that cannot start
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            stack.enter_context(closing(loggers))
            world.wait()
        learner.agree()
        folder = Path(world.share_text(str(folder)))
        loop = Loop(learner, pictures, folder, loggers)
        try:
            stopped_by = loop.run()
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"a batch of {config.batch_size} does not fit the memory of {device} "
                f"({str(error).partition('. See')[0]}): lower --batch-size; "
                f"the last state is kept in {folder}"
            ) from error
        control = None
        if stopped_by is None and config.control_per_class and len(pictures.classes) > 1:
            control = loop.measure()
    return Run(
        folder,
        config,
        learner.counters.images_seen,
        learner.counters.seconds,
        control=control,
        stopped_by=stopped_by,
        written_here=world.leads,
    )


def check_parts(config: Config, world: World) -> None:
    """Refuse a batch that can't be split evenly.

    Raises:
        ConfigError: naming batches that can.
    """
    batch, size = config.batch_size, world.size
    if batch % size or batch // size < 2:
        below, above = batch // size * size, -(-batch // size) * size
        near = " or ".join(str(b) for b in sorted({below, above}) if b >= 2 * size) or 2 * size
        raise ConfigError(
            f"a batch of {batch} can't be split evenly over {size} processes, two pictures or "
            f"more for each: choose --batch-size {near}, or another number of processes"
        )


def run_of_restart(config: Config, out: str | Path | None) -> Path | None:
    """What torchrun has started again goes on where it was, if it had come so far."""
    if is_restart():
        with suppress(RunError):
            return run_to_resume(config, out, numbered=True)
    return None


def check_trainable(config: Config, pictures: Pictures | PictureFolder) -> None:
    """Refuse data that a GAN can't learn from, and warn of a budget that is none.

    Raises:
        DataError: no pictures, or one class for a GAN that shall be told classes.
    """
    if not len(pictures):
        raise DataError(f"there are no pictures in {config.data.source}")
    if config.model.conditional and len(pictures.classes) == 1:
        raise DataError(
            f"{config.data.source} has one class only ({pictures.classes[0]}), so there is nothing "
            "to choose: add a folder for each further class, or train with --plain"
        )
    check_classes(pictures, config.data.balanced)
    if config.images is not None and config.images < FEWEST_UPDATES * config.batch_size:
        logger.warning(
            "a budget of %s images in batches of %s is %d updates: that teaches little; "
            "lower --batch-size or raise --images",
            f"{config.images:,}",
            f"{config.batch_size:,}",
            -(-config.images // config.batch_size),
        )
