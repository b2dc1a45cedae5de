"""What a budget buys on this machine, measured over the first steps of a run."""

from __future__ import annotations

import logging
from dataclasses import replace

from cgan.config import Config
from cgan.training.state import Counters, TrainState

logger = logging.getLogger("cgan")

TIMED_STEPS = 16
"""Steps that are timed: two rounds of a penalty every eighth step."""
FEW_IMAGES = 60_000
"""A budget that shows D fewer images than this gets a hint, if the images are larger than
``SMALL_SIDE``: at 64×64, 21,632 images leave the classes of a folder unrecognisable."""
SMALL_SIDE = 32


class BudgetTimer:
    """Times the first steps of a session on a CPU, and logs once what the budget buys.

    Args:
        state: the state of the run.
    """

    def __init__(self, state: TrainState) -> None:
        self.config, self.side = state.config, max(state.image_shape[1:])
        self.left = 1 - state.counters.progress(state.config)
        self.off = state.device.type != "cpu"  # elsewhere a step returns before it is done
        self.first: Counters | None = None

    def step(self, counters: Counters) -> None:
        """Call it after every step."""
        if self.off:
            return
        if self.first is None:  # the first step is slower than the others
            self.first = replace(counters)
        elif counters.steps - self.first.steps == TIMED_STEPS:
            images = counters.images_seen - self.first.images_seen
            speed = images / max(counters.seconds - self.first.seconds, 1e-9)
            logger.info("%s", describe_budget(self.config, self.side, speed, self.left))
            self.off = True


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
