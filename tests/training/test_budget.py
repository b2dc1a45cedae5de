"""What a budget buys: the sentence, and when it is logged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cgan.config import Config
from cgan.training.loop import TIMED_STEPS, BudgetTimer, describe_budget
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


@pytest.mark.parametrize(
    ("speed", "cpu", "wall", "expected"),
    [
        (0.45, 0.45, 1.0, "29 images/s now, 64 at first: other programs use the processor"),
        (0.45, 1.0, 1.0, "29 images/s now, 64 at first: the processor is slower, perhaps because"),
        (0.55, 0.5, 1.0, None),  # more than half of the first speed
        (0.45, 0.45, 1.5, None),  # an evaluation took a third of the time
    ],
)
def test_slow_training_is_said_once_with_the_reason(
    speed: float,
    cpu: float,
    wall: float,
    expected: str | None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of 64 images take a second with two cores at work, and later 1 / ``speed`` seconds with
    ``cpu`` of that CPU time per second, and ``wall`` seconds on the clock per second."""
    caplog.set_level("INFO", "cgan")
    clock = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr("cgan.training.loop.time.perf_counter", lambda: clock["wall"])
    monkeypatch.setattr("cgan.training.loop.time.process_time", lambda: clock["cpu"])
    state: Any = SimpleNamespace(
        config=Config(images=64_000),
        image_shape=(3, 32, 32),
        device=torch.device("cpu"),
        counters=Counters(),
    )
    timer = BudgetTimer(state)
    seconds = 0.0
    for step in range(1, 80):
        slow = step > TIMED_STEPS + 20
        took = 1 / speed if slow else 1.0
        seconds += took
        clock["wall"] += took * (wall if slow else 1.0)
        clock["cpu"] += took * 2 * (cpu if slow else 1.0)
        timer.step(Counters(64 * step, step, seconds))
    assert len(caplog.messages) == (2 if expected else 1)
    assert expected is None or caplog.messages[1].startswith(expected)
