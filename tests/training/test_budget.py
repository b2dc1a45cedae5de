"""What a budget buys: the sentence, and when it is logged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cgan.config import Config
from cgan.training.budget import TIMED_STEPS, BudgetTimer, describe_budget
from cgan.training.state import Counters


def test_minutes_and_images() -> None:
    assert describe_budget(Config(minutes=5), 32, 433.3) == (
        "433 images/s: 5 minutes are about 130,000 images"
    )
    assert describe_budget(Config(images=390_000), 32, 433.3) == (
        "433 images/s: 390,000 images take about 15 minutes"
    )
    assert describe_budget(Config(images=1_000), 28, 100.0) == (
        "100 images/s: 1,000 images take about 10 seconds"
    )
    assert describe_budget(Config(minutes=20), 32, 100.0, left=0.25) == (
        "100 images/s: 5 minutes are about 30,000 images"
    )
    assert describe_budget(Config(images=80_000), 32, 100.0, left=0.25) == (
        "100 images/s: 20,000 images take about 3.3 minutes"
    )
    assert describe_budget(Config(images="3.6M"), 28, 500.0) == (
        "500 images/s: 3,600,000 images take about 2.0 hours"
    )


def test_too_few_for_large_images() -> None:
    assert describe_budget(Config(minutes=4), 64, 90.0) == (
        "90 images/s: 4 minutes are about 22,000 images, too few for 64×64; --size 32 is faster"
    )
    assert "too few" not in describe_budget(Config(minutes=4), 32, 90.0)
    assert "too few" not in describe_budget(Config(minutes=12), 64, 90.0)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", ["64 images/s: 63,360 images take about 16 minutes"]), ("cuda", [])],
)
def test_the_first_step_is_not_timed(
    device: str, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cgan")
    state: Any = SimpleNamespace(
        config=Config(images=64_000),
        image_shape=(3, 32, 32),
        device=torch.device(device),
        counters=Counters(640, 10, 0.0),
    )
    timer = BudgetTimer(state)
    for step in range(3 * TIMED_STEPS):  # a resumed session; its first step takes 1,000 seconds
        timer.step(Counters(64 * (11 + step), 11 + step, 1_000.0 + step))
    assert caplog.messages == expected
