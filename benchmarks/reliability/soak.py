"""Sample, evaluate and export again and again in one process, and watch its memory."""

from __future__ import annotations

import gc
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from benchmarks.reliability.children import MEBIBYTE, Child
from benchmarks.reliability.report import Budget, Row
from benchmarks.reliability.runs import cache_judge, train_reference

FULL_SECONDS = 4_500.0
"""An hour with exports and a quarter of an hour without."""
WARM_UP = 0.2
"""The first part of the rounds, which fills caches, does not count for the slope."""
JUDGED_SECONDS = 600.0
LEAK = 20.0
"""MiB per hour in the second half that count as a failure, in a run of ``JUDGED_SECONDS`` or more;
in a shorter one, the noise of a few hundred KiB is more than that."""


def measure(budget: Budget, work: Path, seed: int) -> list[Row]:
    """Two rows: with exports, and a quarter as long without."""
    cache_judge(work)
    run = train_reference(work / "run")
    seconds = FULL_SECONDS if budget.seconds is None else budget.seconds
    return [
        _measure(run, work, seed, "sample, evaluate and export", 0.8 * seconds, exports=True),
        _measure(run, work, seed, "sample and evaluate", 0.2 * seconds, exports=False),
    ]


def _measure(run: Path, work: Path, seed: int, what: str, seconds: float, exports: bool) -> Row:
    told = work / "rounds.jsonl"
    action = partial(soak, run, told, seconds, seed, exports)
    ended = Child(action, work / "said.txt").wait(seconds + 300)
    rounds = [json.loads(line) for line in told.read_text().splitlines()]
    row = Row(f"rounds of {what} in one process, 1 thread")
    for one in rounds:
        row.add(one["seconds"])
    row.peak_mib = round(ended.peak_mib, 1)
    if ended.status:
        row.fail(f"ended with status {ended.status}: {ended.said[-400:]}")
    at, rss = (np.array([one[key] for one in rounds]) for key in ("at", "rss"))
    settled, half = len(rounds) * WARM_UP, len(rounds) / 2
    slope = {"settled": _slope(at, rss, settled), "half": _slope(at, rss, half)}
    row.figures = {
        "minutes": round(seconds / 60, 1),
        "first RSS": f"{rss[0]:.0f} MiB",
        "last RSS": f"{rss[-1]:.0f} MiB",
        "slope": f"{slope['settled']:.1f} MiB/hour",
        "slope of the second half": f"{slope['half']:.1f} MiB/hour",
    }
    if seconds >= JUDGED_SECONDS and slope["half"] > LEAK:
        row.fail(f"memory grows by {slope['half']:.1f} MiB per hour")
    return row


def soak(run: Path, told: Path, seconds: float, seed: int, exports: bool) -> None:
    """In a child: at least two rounds; tells the end, length and memory of each."""
    import cgan
    from cgan.sampling.export import export

    process, began = psutil.Process(), time.monotonic()
    with open(told, "w", buffering=1) as file:
        number, now = 0, began
        while number < 2 or now - began < seconds:
            cgan.load(run).sample(n=8, seed=seed + number)
            cgan.evaluate(run, per_class=20, device="cpu")
            if exports:
                export(run, told.with_suffix(".onnx"))
            gc.collect()
            before, now, number = now, time.monotonic(), number + 1
            rss = process.memory_info().rss / MEBIBYTE
            entry = {"at": now - began, "seconds": now - before, "rss": rss}
            file.write(json.dumps(entry) + "\n")


def _slope(at: np.ndarray, rss: np.ndarray, skipped: float) -> float:
    """MiB per hour by least squares, without the first rounds."""
    chosen = slice(min(int(skipped), len(at) - 2), None)
    return float(np.polyfit(at[chosen] / 3_600, rss[chosen], 1)[0])
