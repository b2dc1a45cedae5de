"""The command: choose parts, share the time between them, merge their figures."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.machine import machine
from benchmarks.reliability.report import Budget, Part, merge, to_table, write_page

WEIGHTS = {
    Part.writes: 12, Part.kills: 12, Part.mutations: 12, Part.processes: 6, Part.environments: 3,
    Part.soak: 60,
}  # fmt: skip
"""Shares of the time: about the minutes that each full length takes."""

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the parts write, so that they do not wait for a disk."""


def reliability(
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time for all parts together; 0 does the least of each.",
            show_default="the full length of each part, about 2 hours in all",
        ),
    ] = None,
    part: Annotated[list[Part] | None, typer.Option(help="A part; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of instants, faults and mutations.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of reliability.json and .md.")] = Path("docs"),
) -> None:
    """Kill, fail, mutate, race and soak; counts failures, ends with status 1 if there are any."""
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # before torch is imported
    parts = [one for one in Part if not part or one in part]
    out.mkdir(parents=True, exist_ok=True)
    end = None if minutes is None else time.monotonic() + 60 * minutes
    failed = 0
    with tempfile.TemporaryDirectory(prefix="cgan-reliability-", dir=IN_MEMORY) as base:
        os.chmod(base, 0o755)  # for commands that another user runs
        for index, name in enumerate(parts):
            began, work = time.monotonic(), Path(base, name)
            work.mkdir()
            share = WEIGHTS[name] / sum(WEIGHTS[later] for later in parts[index:])
            budget = Budget(None if end is None else max(end - began, 0) * share)
            module = importlib.import_module(f"benchmarks.reliability.{name}")
            rows = module.measure(budget, work, seed)
            failed += sum(row.failed for row in rows)
            about = _about(seed, time.monotonic() - began)
            table = to_table(merge(out / "reliability.json", name, about, rows))
            write_page(out / "reliability.md", table)
            shutil.rmtree(os.fsencode(work), ignore_errors=True)
    print(table)
    raise typer.Exit(int(failed > 0))


def _about(seed: int, seconds: float) -> dict[str, object]:
    import cgan

    return {
        "machine": machine(),
        "cgan": cgan.__version__,
        "seed": seed,
        "seconds": round(seconds, 1),
    }
