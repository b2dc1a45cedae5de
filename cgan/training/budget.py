"""What a budget buys on this machine, and whether training becomes slower on the way."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from cgan.config import Config
from cgan.training.state import Counters, TrainState

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
