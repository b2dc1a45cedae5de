"""`python -m benchmarks record`: run entries, judge their images, and print the table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cgan
from benchmarks.against import ROOT, checkout, environment
from benchmarks.machine import machine
from cgan.evaluation.distances import frechet_distance, moments
from cgan.evaluation.judge import Judge
from cgan.storage.paths import JUDGE_FILE, PACKAGED, default_data_dir

HERE = Path(__file__).parent
LEVELS = (0.95, 0.98, 0.99, 0.995)
LONGEST_STEP = 5
"""Seconds."""
SURELY_BELOW = 0.05
"""A control accuracy of 2,000 images this far below a level: ten standard errors."""
OTHERS_EVERY = 5
"""Entries of other libraries store images this many times less often: drawing takes them long."""
DIFFUSION = ("denoising_diffusion", "diffusers", "smalldiffusion", "torchcfm")
"""Entries that draw in many steps: 1,000 images, once, when their time is over."""
OLD = ("cgan", "textbook")
"""Entries of older revisions too."""
OWN = (*OLD, "cgan_untaught")
"""Entries that need no environment of their own."""
ENTRIES = {path.stem.removeprefix("entry_"): path for path in sorted(HERE.glob("entry_*.py"))}


def record(
    entries: list[str],
    seconds: float,
    every: float,
    seeds: int,
    pythons: dict[str, Path],
    against: str | None = None,
) -> dict[str, Any]:
    """Run every entry with every seed, and judge what it drew.

    With a revision to compare with, each seed of an own entry is followed by that revision's.
    """
    judge = Judge.load(PACKAGED / "mnist" / JUDGE_FILE)
    test = cgan.load_pictures("mnist", split="test")
    real = judge_features(judge, test.images)
    results: dict[str, Any] = {
        "machine": machine(), "date": datetime.now(UTC).date().isoformat(),
        "cgan": cgan.__version__, "judge": judge.name, "seconds": seconds, "every": every,
        "entries": {},
    }  # fmt: skip
    with checkout(against) as trees:
        for name in entries:
            runs: dict[str, list[list[dict[str, float]]]] = {}
            for seed in range(seeds):
                for tree, folder in trees.items() if name in OLD else [("new", ROOT)]:
                    apart = every if name in OWN else OTHERS_EVERY * every
                    python = pythons.get(name)
                    rows = run_entry(name, seed, seconds, apart, python, judge, real, folder)
                    named = name if tree == "new" else f"{name} at {tree}"
                    print(f"{named}, seed {seed}: {rows[-1]}", file=sys.stderr, flush=True)
                    runs.setdefault(named, []).append(rows)
            results["entries"] |= {one: {"runs": r, **summarise(r)} for one, r in runs.items()}
    return results


def run_entry(
    name: str,
    seed: int,
    seconds: float,
    every: float,
    python: Path | None,
    judge: Judge,
    real: Any,
    tree: Path = ROOT,
) -> list[dict[str, float]]:
    """One run: a row of seconds, control accuracy and FID for each file of images."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"seed": seed, "seconds": seconds, "every": every, "out": folder}
        if name in DIFFUSION:
            options |= {"at": seconds, "count": 1_000}
        words = [str(python or sys.executable), str(tree / ENTRIES[name].relative_to(ROOT))]
        words += ["--data-dir", str(default_data_dir().resolve())]
        words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
        own = {"cwd": tree, "env": environment(tree)} if name in OWN else {}
        subprocess.run(words, check=True, stdout=sys.stderr, **own)
        paths = [path for path in sorted(Path(folder).glob("*.npy")) if in_time(path, seconds)]
        if not paths:
            raise SystemExit(f"{name} stored no images within {seconds:g} seconds")
        return [judge_images(path, judge, real) for path in paths]


def in_time(path: Path, seconds: float) -> bool:
    """Whether images were stored within the budget, or at the end of the step in which it ended."""
    return float(path.stem) <= seconds + LONGEST_STEP


def judge_images(path: Path, judge: Judge, real: Any) -> dict[str, float]:
    """Control accuracy and FID of up to 10,000 images, of which image i shows the digit i mod 10.

    If the first 2,000 show that the lowest level is far away, the others are left out.
    """
    images = torch.from_numpy(np.load(path))[:, None]
    found, predicted = [], torch.empty(0, dtype=torch.int64)
    for part in images.split(2_000):
        found.append(judge.predict(part / 255))
        predicted = torch.cat([predicted, found[-1].labels])
        control = (predicted == torch.arange(len(predicted)) % 10).double().mean()
        if control < LEVELS[0] - SURELY_BELOW:
            break
    fake = moments(torch.cat([one.features for one in found]))
    return {
        "seconds": float(path.stem), "control": round(float(control), 5),
        "fid": round(frechet_distance(real, fake), 4),
    }  # fmt: skip


def judge_features(judge: Judge, images: torch.Tensor) -> Any:
    """Mean and covariance of the judge's features of uint8 images."""
    parts = [judge.predict(part / 255).features for part in images.split(1_000)]
    return moments(torch.cat(parts))


def summarise(runs: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over seeds: seconds to each level with the FID there, and the last row."""
    levels = {}
    for level in LEVELS:
        first = [next((row for row in rows if row["control"] >= level), None) for rows in runs]
        reached = sorted((row for row in first if row), key=lambda row: row["seconds"])
        middle = len(runs) // 2  # a seed that does not reach the level counts as the slowest
        levels[f"{100 * level:g}"] = reached[middle] if middle < len(reached) else None
    last = {key: statistics.median(rows[-1][key] for rows in runs) for key in ("control", "fid")}
    return {"levels": levels, "last": last}


def to_table(results: dict[str, Any]) -> str:
    """The table of docs/record.md."""
    heads = [f"{100 * level:g} %" for level in LEVELS]
    lines = [
        f"{results['machine']}; {results['seconds']:g} seconds, median of "
        f"{len(next(iter(results['entries'].values()))['runs'])} seeds.",
        "",
        f"| entry | {' | '.join(heads)} | control at the end | FID at the end |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for name, entry in results["entries"].items():
        cells = [
            "–" if row is None else f"{row['seconds']:.0f} s (FID {row['fid']:.2f})"
            for row in entry["levels"].values()
        ]
        last = entry["last"]
        end = f"{100 * last['control']:.2f} % | {last['fid']:.2f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {end} |")
    return "\n".join(lines)


def write(results: dict[str, Any], path: Path) -> None:
    """Write the results as JSON."""
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
