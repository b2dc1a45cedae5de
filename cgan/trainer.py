"""Training: start or go on, loop, save, and ask the judge at the end."""

from __future__ import annotations

import logging
import math
import shutil
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cgan.checkpoint import GENERATOR, GENERATOR_VERSION, read_header
from cgan.config import FEWEST_UPDATES, Config, load_config, to_yaml
from cgan.data import Loader, PictureFolder, Pictures, Split, check_classes, load_split
from cgan.device import find_device, set_arithmetic
from cgan.distributed import World, is_restart, join, local_rank
from cgan.errors import CganError, ConfigError, DataError, DeviceError, Diverged, RunError
from cgan.files import write_atomically
from cgan.interrupts import signals
from cgan.learner import Counters, Learner
from cgan.loggers import Figures, Loggers
from cgan.memory import check_batch_fits
from cgan.metrics.control import Control
from cgan.places import BEST_FILE, CONFIG_FILE, GENERATOR_FILE
from cgan.png import make_grid, save_png, to_pixels
from cgan.runs import check_same_run, lock, new_run, run_to_resume
from cgan.updates import Losses
from cgan.watch import Watch

GRID_COLUMNS = 10
GRID_CLASSES = 32

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
        trainer = Trainer(learner, pictures, folder, loggers)
        try:
            stopped_by = trainer.run()
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"a batch of {config.batch_size} does not fit the memory of {device} "
                f"({str(error).partition('. See')[0]}): lower --batch-size; "
                f"the last state is kept in {folder}"
            ) from error
        control = None
        if stopped_by is None and config.control_per_class and len(pictures.classes) > 1:
            control = trainer.measure()
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


class Trainer:
    """The loop of one run, between its learner, its folder and its loggers."""

    def __init__(
        self,
        learner: Learner,
        pictures: Pictures | PictureFolder,
        folder: Path,
        loggers: Loggers | None,
    ) -> None:
        self.learner, self.pictures, self.folder, self.loggers = learner, pictures, folder, loggers
        self.config, self.device, self.world = learner.config, learner.device, learner.world
        self.stop = 0
        self.watch: Watch | None = None
        self.looked_at = -1
        self.forget()

    def run(self) -> int | None:
        """Learn until the budget is spent (None) or a signal comes (its number)."""
        config, counters = self.config, self.learner.counters
        batch = config.batch_size
        seed, balanced = config.seed, config.data.balanced
        loader = Loader(self.pictures, batch, self.device, seed, balanced, world=self.world)
        leads = self.world.leads
        if leads and counters.steps == 0:
            self.learner.save(self.folder)
        saved = time.monotonic()
        reached = config.images is None or config.images >= config.eval_every_images
        looks = leads and config.eval_every_images and reached and len(self.pictures.classes) > 1
        if looks and self.watch is None:  # now, while a missing test part or Ctrl-C costs nothing
            self.watch = Watch(self.split, self.device, self.folder)

        def due(every_images: int) -> bool:
            seen = counters.images_seen
            return seen // every_images > (seen - batch) // every_images

        batches = loader.batches(counters.images_seen)
        with signals() as caught, closing(batches):
            clock = time.perf_counter()
            while not self.ended(caught):
                real, labels = next(batches)
                self.remember(self.learner.step(real, labels))
                counters.seconds += time.perf_counter() - clock
                clock = time.perf_counter()
                if due(config.log_every_images):
                    self.report()
                if leads and due(config.sample_every_images):
                    self.draw_grid()
                if looks and due(config.eval_every_images):
                    self.look()
                    clock = time.perf_counter()
                if leads and time.monotonic() - saved > config.save_every_seconds:
                    self.save()
                    saved = time.monotonic()
            self.report()
            if leads:
                self.save()
        if leads:
            self.draw_grid()
        return self.stop if counters.share(config) < 1 else None

    def ended(self, caught: list[int]) -> bool:
        """Whether the budget is spent or a signal has come; all processes agree on both."""
        counters = self.learner.counters
        counters.seconds, stop = self.world.most(counters.seconds, caught[0] if caught else 0)
        self.stop = int(stop)
        return counters.share(self.config) >= 1 or bool(self.stop)

    def remember(self, losses: Losses) -> None:
        """Add up losses where they are: reading them would make a GPU wait."""
        for name, value in losses.items():
            self.totals[name] = self.totals.get(name, 0) + value

    def forget(self) -> None:
        """Begin new means."""
        counters = self.learner.counters
        self.totals: dict[str, Tensor] = {}
        self.since = Counters(counters.images_seen, counters.steps, counters.seconds)

    def means(self) -> dict[str, float]:
        """Mean losses since the last report.

        Raises:
            Diverged: one is not a number.
        """
        counters, since = self.learner.counters, self.since
        steps = max(counters.steps - since.steps, 1)
        means = {name: float(total) / steps for name, total in self.totals.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise Diverged(
                    f"{name} became {mean} between {since.images_seen:,} and "
                    f"{counters.images_seen:,} images; the last good state is kept in "
                    f"{self.folder}: try a lower --lr or a stronger --set penalty.r1=…"
                )
        return means

    def report(self) -> None:
        """Log the means since the last report; raises as :meth:`means`."""
        counters, since = self.learner.counters, self.since
        if counters.steps == since.steps:
            return
        self.world.mean_(list(self.totals.values()))
        share, means = counters.share(self.config), self.means()
        images, seconds = counters.images_seen - since.images_seen, counters.seconds - since.seconds
        self.log(
            {
                "images_seen": counters.images_seen,
                "steps": counters.steps,
                "seconds": round(counters.seconds, 3),
                "seconds_left": round(counters.seconds * (1 / share - 1), 3),
                "share": share,
                "images_per_second": images / seconds,
                "lr": self.learner.learning_rate,
                **means,
            }
        )
        self.forget()

    def log(self, figures: Figures) -> None:
        """Tell the loggers, where there are any: the first process has them."""
        if self.loggers is not None:
            self.loggers.log(figures)

    def save(self) -> None:
        """Write state and generator, after a look at the losses that led to them."""
        self.means()
        self.learner.save(self.folder)

    def draw_grid(self) -> None:
        """One row a class (a plain GAN: ten rows), the same seeds each time."""
        sampler = self.learner.sampler(self.folder)
        if sampler.conditional:
            shown = sampler.sample(list(sampler.classes[:GRID_CLASSES]), GRID_COLUMNS)
        else:
            shown = sampler.sample(None, GRID_COLUMNS**2)
        images_seen = self.learner.counters.images_seen
        path = self.folder / "samples" / f"{images_seen:09d}.png"
        save_png(make_grid(to_pixels(shown), GRID_COLUMNS), path)
        if self.loggers is not None:
            self.loggers.picture(path, images_seen)

    def split(self, split: Split) -> Pictures | PictureFolder:
        """The pictures that are learned from, which are there, or those held out."""
        return self.pictures if split == "train" else load_split(self.config.data, split)

    def look(self) -> None:
        """Let the judge look: figures to the loggers, alarms, and the best generator kept."""
        self.means()  # a run that has diverged is not worth a look
        assert self.watch is not None
        self.looked_at = images_seen = self.learner.counters.images_seen
        verdict = self.watch.look(self.learner.sampler(self.folder))
        self.log({"images_seen": images_seen, **verdict.figures()})
        if self.watch.is_best(verdict):
            self.learner.save_generator(self.folder / BEST_FILE, self.watch.best)
        self.watch.warn(verdict, self.folder, self.learner.counters.share(self.config))

    def measure(self) -> Control | None:
        """Ask the judge at length, and write its answer into the generator's file."""
        if self.loggers is None:  # the first process does
            return None
        self.loggers.leave_terminal()
        images_seen = self.learner.counters.images_seen
        if self.watch is None:
            self.watch = Watch(self.split, self.device, self.folder)
        elif self.looked_at != images_seen:
            self.look()
        per_class = self.config.control_per_class
        verdict = self.watch.look(self.learner.sampler(self.folder), per_class)
        self.learner.save_generator(self.folder / GENERATOR_FILE, verdict.to_dict())
        # Not its FID, which would be no point of that curve: FID falls with the number of pictures.
        control = verdict.control
        self.log(
            {
                "images_seen": images_seen,
                "control_accuracy": control.accuracy,
                "control_accuracy_worst_class": control.per_class[control.worst],
            }
        )
        best = self.folder / BEST_FILE
        if best.exists():
            best_at = read_header(best, GENERATOR, GENERATOR_VERSION)["images_seen"]
            if best_at != images_seen:
                logger.info(
                    "the generator after %s images was the best, by control accuracy and FID "
                    "together: it is kept in %s",
                    f"{best_at:,}",
                    best,
                )
        return control
