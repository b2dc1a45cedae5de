"""The training loop: step, log, sample, evaluate and save, until the budget is spent.

It also tells what a budget buys on this machine, and when training becomes slower on the way.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cgan.attributes import sort_for_display
from cgan.config import DATA_NAMES, Config
from cgan.data import Loader
from cgan.errors import DivergedError
from cgan.evaluation.control import Control
from cgan.evaluation.judge_training import reader_architecture
from cgan.evaluation.reference import images_per_class
from cgan.runtime.process import catch_signals
from cgan.storage.checkpoint import GENERATOR, read_header
from cgan.storage.images import make_grid, save_png, to_pixels
from cgan.storage.paths import BEST_FILE, GENERATOR_FILE, SAMPLES_FOLDER
from cgan.training.loggers import Loggers, Metrics
from cgan.training.monitor import Monitor
from cgan.training.plan import Plan
from cgan.training.state import Counters, TrainState
from cgan.training.step import TrainStep, learning_rate
from cgan.updates import StepLosses

logger = logging.getLogger("cgan")

TIMED_STEPS = 16
"""Steps that are timed: two rounds of a penalty every eighth step."""
FEW_IMAGES = 60_000
"""A budget that shows D fewer images than this gets a hint, if the images are larger than
``SMALL_SIDE``: at 64×64, 21,632 images leave the classes of a folder unrecognisable."""
SMALL_SIDE = 32


SLOW = 0.5
"""Speed below this fraction of that of the first steps is worth a line,"""
WINDOW_SECONDS = 5.0
"""over this time, because a single step may wait for anything."""
OWN_SHARE = 0.75
"""Other programs are the reason if this one gets less than this fraction of its first CPU time."""
GRID_COLUMNS = 10
GRID_CLASSES = 32


@dataclass(frozen=True)
class Moment:
    """Clocks after a step: images, seconds of training, of the wall clock, and of CPU time."""

    images: int
    seconds: float
    wall: float
    cpu: float

    @classmethod
    def of(cls, counters: Counters) -> Moment:
        """Read the clocks."""
        clocks = time.perf_counter(), time.process_time()
        return cls(counters.images_seen, counters.seconds, *clocks)

    def since(self, before: Moment) -> tuple[float, float]:
        """Images per second, and CPU seconds per second."""
        seconds = max(self.seconds - before.seconds, 1e-9)
        return (self.images - before.images) / seconds, (self.cpu - before.cpu) / seconds


class BudgetTimer:
    """Times the steps of a session on a CPU. It logs once what the budget buys, after the first
    steps, and once if the speed falls to less than half of theirs.

    Args:
        state: the state of the run.
    """

    def __init__(self, state: TrainState) -> None:
        self.config, self.side = state.config, max(state.image_shape[1:])
        self.left = 1 - state.counters.progress(state.config)
        self.off = state.device.type != "cpu"  # elsewhere a step returns before it is done
        self.first_step = state.counters.steps + 1  # it is slower than the others
        self.start: Moment | None = None
        self.first: tuple[float, float] | None = None

    def step(self, counters: Counters) -> None:
        """Call it after every step."""
        if self.off:
            return
        if self.start is None:
            self.start = Moment.of(counters)
        elif self.first is None:
            if counters.steps - self.first_step == TIMED_STEPS:
                now = Moment.of(counters)
                self.first, self.start = now.since(self.start), now
                sentence = describe_budget(self.config, self.side, self.first[0], self.left)
                logger.info("%s", sentence)
        elif counters.seconds - self.start.seconds > WINDOW_SECONDS:
            now, before = Moment.of(counters), self.start
            self.start = now
            if now.wall - before.wall < 1.2 * (now.seconds - before.seconds):  # only training
                self.look(now.since(before))

    def look(self, measured: tuple[float, float]) -> None:
        """Log a line if training has become slow."""
        assert self.first is not None
        (speed, share), (first_speed, first_share) = measured, self.first
        if speed < SLOW * first_speed:
            self.off = True
            others = share < OWN_SHARE * first_share
            reason = (
                "other programs use the processor"
                if others
                else "the processor is slower, perhaps because it is hot or saves power"
            )
            logger.info("%.0f images/s now, %.0f at first: %s", speed, first_speed, reason)


def describe_budget(config: Config, side: int, images_per_second: float, left: float = 1.0) -> str:
    """One sentence, such as "430 images/s: 5 minutes are about 130,000 images".

    Args:
        config: the config of the run.
        side: side of the images in pixels.
        images_per_second: the measured speed.
        left: the part of the budget that this session has, in [0, 1].
    """
    if config.minutes is None:
        images = float(config.images or 0)
        minutes = left * images / images_per_second / 60
        amount = f"{left * images:,.0f} images take about {_minutes(minutes)}"
    else:
        images = 60 * config.minutes * images_per_second
        minutes = left * config.minutes
        amount = f"{_minutes(minutes)} are about {_two_digits(left * images)} images"
    sentence = f"{images_per_second:,.0f} images/s: {amount}"
    if side > SMALL_SIDE and images < FEW_IMAGES:
        sentence += f", too few for {side}×{side}; --size {SMALL_SIDE} is faster"
    return sentence


def _minutes(minutes: float) -> str:
    if minutes >= 90:
        return f"{minutes / 60:.1f} hours"
    if minutes < 1.5:
        return f"{60 * minutes:.0f} seconds"
    return f"{minutes:.0f} minutes" if minutes >= 10 else f"{minutes:.2g} minutes"


def _two_digits(count: float) -> str:
    return f"{float(f'{count:.2g}'):,.0f}"


class TrainLoop:
    """Repeats a training step on the batches of a data set.

    Only rank 0 has loggers; it alone logs, samples, evaluates and writes.
    """

    def __init__(self, plan: Plan, step: TrainStep, folder: Path, loggers: Loggers | None) -> None:
        self.plan, self.config, self.world = plan, plan.config, plan.world
        self.step, self.state, self.counters = step, step.state, step.state.counters
        self.folder, self.loggers = folder, loggers
        self.signal = 0
        self.monitor: Monitor | None = None
        self.last_evaluation = -1
        self.reset_losses()

    def run(self) -> int | None:
        """Train until the budget is spent (returns None) or a signal arrives (its number)."""
        config, counters = self.config, self.counters
        is_main = self.world.is_main
        if is_main and counters.steps == 0:
            self.state.save(self.folder)
        saved = time.monotonic()
        evaluates = self.prepare_evaluation()
        loader = Loader(
            self.plan.dataset, config.batch_size, self.state.device, config.seed,
            config.data.balanced, world=self.world, unlabelled=self.plan.unlabelled,
            stream=self.plan.stream,
        )  # fmt: skip
        batches = loader.batches(counters.images_seen)
        timer = BudgetTimer(self.state)
        with catch_signals() as caught, closing(batches):
            clock = time.perf_counter()
            while not self.should_stop(caught):
                real, labels = next(batches)
                self.accumulate_losses(self.step(real, labels))
                if is_main:  # the others also wait for its evaluations, which do not count
                    counters.seconds += time.perf_counter() - clock
                    timer.step(counters)
                clock = time.perf_counter()
                if self.is_due(config.log_every_images):
                    self.log_metrics()
                if is_main and self.is_due(config.sample_every_images):
                    self.save_samples()
                if evaluates and self.is_due(config.eval_every_images):
                    self.evaluate()
                    clock = time.perf_counter()  # evaluations do not count as training time
                if is_main and time.monotonic() - saved > config.save_every_seconds:
                    self.save()
                    saved = time.monotonic()
            self.log_metrics()
            if is_main:
                self.save()
        if is_main:
            self.save_samples()
        return self.signal if counters.progress(config) < 1 else None

    def prepare_evaluation(self) -> bool:
        """Whether to evaluate during training; if so, create the monitor.

        It is created before the first step, so that a missing test set or Ctrl-C loses no training.
        """
        config = self.config
        reached = config.images is None or config.images >= config.eval_every_images
        several = len(self.plan.dataset.classes) > 1
        evaluates = bool(self.world.is_main and config.eval_every_images and reached and several)
        if evaluates:
            self.monitor = Monitor(
                self.plan.load_split, self.state.device, self.folder,
                unlabelled=self.plan.unlabelled,
            )  # fmt: skip
            _ = self.monitor.validation  # loads the images
        named = config.data.source in DATA_NAMES
        if self.world.is_main and several and config.control_per_class and named:
            self.plan.load_split("test")  # of a folder, all splits are in the same place
        return evaluates

    def is_due(self, every_images: int) -> bool:
        """Whether the last step passed a multiple of this many images."""
        seen = self.counters.images_seen
        return seen // every_images > (seen - self.config.batch_size) // every_images

    def should_stop(self, caught: list[int]) -> bool:
        """Whether the budget is spent or a signal arrived; all processes agree on both."""
        counters, number = self.counters, caught[0] if caught else 0
        counters.seconds, number_everywhere = self.world.all_reduce_max(counters.seconds, number)
        self.signal = int(number_everywhere)
        return self.counters.progress(self.config) >= 1 or bool(self.signal)

    def accumulate_losses(self, losses: StepLosses) -> None:
        """Add up losses on the device: reading them here would stall a GPU."""
        for name, value in losses.items():
            self.totals[name] = self.totals.get(name, 0) + value

    def reset_losses(self) -> None:
        """Reset the sums of the losses."""
        counters = self.counters
        self.totals: dict[str, Tensor] = {}
        self.since = Counters(counters.images_seen, counters.steps, counters.seconds)

    def mean_losses(self) -> dict[str, float]:
        """Mean losses since the last log line.

        Raises:
            DivergedError: a loss is not finite.
        """
        counters, since = self.counters, self.since
        steps = max(counters.steps - since.steps, 1)
        means = {name: float(total) / steps for name, total in self.totals.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise DivergedError(
                    f"{name} became {mean} between {since.images_seen:,} and "
                    f"{counters.images_seen:,} images; the last good state is kept in "
                    f"{self.folder}: try a lower --lr"
                )
        return means

    def log_metrics(self) -> None:
        """Log the means since the last log line.

        Raises:
            DivergedError: a loss is not finite.
        """
        counters, since = self.counters, self.since
        if counters.steps == since.steps:
            return
        self.world.all_reduce_mean_(list(self.totals.values()))
        progress, means = counters.progress(self.config), self.mean_losses()
        images, seconds = counters.images_seen - since.images_seen, counters.seconds - since.seconds
        self.log(
            {
                "images_seen": counters.images_seen,
                "steps": counters.steps,
                "seconds": round(counters.seconds, 3),
                # Other ranks hear of the time in the next step, so their progress may be 0.
                "seconds_left": round(counters.seconds * (1 / max(progress, 1e-9) - 1), 3),
                "share": progress,
                "images_per_second": images / max(seconds, 1e-9),
                "lr": learning_rate(self.config, progress),
                **means,
            }
        )
        self.reset_losses()

    def log(self, metrics: Metrics) -> None:
        """Pass metrics to the loggers, if this process has them."""
        if self.loggers is not None:
            self.loggers.log(metrics)

    def save(self) -> None:
        """Write the state and the generator, if the losses are finite."""
        self.mean_losses()
        self.state.save(self.folder)

    def save_samples(self) -> None:
        """Write a grid: one row per class (unconditional: ten rows), always the same seeds."""
        sampler = self.state.sampler(self.folder)
        if sampler.conditional:
            rows = sort_for_display(sampler.classes)[:GRID_CLASSES]
            images = sampler.sample(rows, GRID_COLUMNS)
        else:
            images = sampler.sample(None, GRID_COLUMNS**2)
        images_seen = self.counters.images_seen
        path = self.folder / SAMPLES_FOLDER / f"{images_seen:09d}.png"
        save_png(make_grid(to_pixels(images), GRID_COLUMNS), path)
        if self.loggers is not None:
            self.loggers.log_images(path, images_seen)

    def evaluate(self) -> None:
        """Log the metrics of an evaluation, warn about problems, and keep the best generator."""
        self.mean_losses()  # raises if the run has diverged
        assert self.monitor is not None
        self.last_evaluation = images_seen = self.counters.images_seen
        result = self.monitor.evaluate(self.state.sampler(self.folder))
        self.log({"images_seen": images_seen, **result.metrics()})
        if self.monitor.is_best(result):
            self.state.save_generator(self.folder / BEST_FILE, self.monitor.best)
        self.monitor.warn(result, self.folder, self.counters.progress(self.config))

    def final_evaluation(self) -> Control | None:
        """Measure ``control_per_class`` images per class on the test images, for the header."""
        if self.loggers is None:  # rank 0 does this
            return None
        self.loggers.close_terminal()
        images_seen = self.counters.images_seen
        if self.monitor is None:
            self.monitor = Monitor(
                self.plan.load_split, self.state.device, self.folder,
                reader_architecture(self.plan.dataset), self.plan.unlabelled,
            )  # fmt: skip
        elif self.last_evaluation != images_seen:
            self.evaluate()
        per_class, classes = self.config.control_per_class, len(self.plan.dataset.classes)
        if per_class > images_per_class(classes, per_class):
            per_class = images_per_class(classes, per_class)
            logger.info("the last evaluation draws %d images of each class", per_class)
        result = self.monitor.evaluate_on_test(self.state.sampler(self.folder), per_class)
        self.state.save_generator(self.folder / GENERATOR_FILE, result.to_dict())
        # No FID: it depends on the number of images, so it does not fit the curve.
        control = result.control
        self.log(
            {
                "images_seen": images_seen,
                "control_accuracy": control.accuracy,
                "control_accuracy_worst_class": control.per_class[control.worst],
            }
        )
        best = self.folder / BEST_FILE
        if (
            best.exists()
            and (best_at := read_header(best, GENERATOR)["images_seen"]) != images_seen
        ):
            logger.info(
                "the generator after %s images was the best by control accuracy and FID: %s",
                f"{best_at:,}",
                best,
            )
        return control
