"""The table of benchmarks/RECIPES.md: several seeds a row, mean and range."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Figures = dict[str, float | None]


class Row(NamedTuple):
    """A row of the table: a config, the budget in images, and further options of cgan train."""

    config: str
    images: str
    options: tuple[str, ...] = ()


ROWS = {
    "mnist-dcgan, conditional": Row("mnist-dcgan", "900k"),
    "mnist-dcgan, plain": Row("mnist-dcgan", "200k", ("--plain",)),
    "mnist-mlp, conditional": Row("mnist-mlp", "4.5M"),
    "mnist-mlp, plain": Row("mnist-mlp", "900k", ("--plain",)),
}

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "control_accuracy": ("control accuracy", lambda value: f"{100 * value:.2f} %"),
    "control_accuracy_worst_class": ("worst class", lambda value: f"{100 * value:.1f} %"),
    "fid": ("FID", lambda value: f"{value:.3f}"),
    "intra_fid_worst": ("worst intra-class FID", lambda value: f"{value:.2f}"),
    "recall": ("recall", lambda value: f"{100 * value:.1f} %"),
    "coverage": ("coverage", lambda value: f"{100 * value:.1f} %"),
    "diversity_least": ("least diversity", lambda value: f"{value:.2f}"),
    "images_seen": ("images", lambda value: f"{value:,.0f}"),
    "minutes": ("minutes", lambda value: f"{value:.1f}"),
}


def train(row: Row, seed: int, folder: Path) -> None:
    """Train one run."""
    train_run([row.config, *row.options, "--images", row.images, "--seed", str(seed)], folder)


def train_run(words: list[str], folder: Path) -> None:
    """``cgan train`` with these words, or the rest of a stopped run; a finished one is kept."""
    if folder.exists():
        words = ["--resume"]
    subprocess.run(["cgan", "train", *words, "--out", str(folder)], check=True)


def evaluate(model: str) -> tuple[Figures, Figures]:
    """The figures of one generator, and those of real images, from ``cgan evaluate --json``."""
    done = subprocess.run(
        ["cgan", "evaluate", model, "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    report = json.loads(done.stdout)
    own: Figures = {key: figure["value"] for key, figure in report["figures"].items()}
    own |= {"images_seen": report["images_seen"], "minutes": report["seconds"] / 60}
    return own, {key: figure["real"] for key, figure in report["figures"].items()}


def table_row(name: str, found: list[Figures]) -> str:
    """One Markdown row: each figure, or its mean and range over the seeds."""
    cells = [name]
    for key, (_, say) in COLUMNS.items():
        values = [value for figures in found if (value := figures.get(key)) is not None]
        if not values:
            cells.append("")
        elif len(set(map(say, values))) == 1:
            cells.append(say(values[0]))
        else:
            mean = say(statistics.fmean(values))
            cells.append(f"{mean} ({say(min(values))} to {say(max(values))})")
    return f"| {' | '.join(cells)} |"


def print_header() -> None:
    """The headings of the table."""
    print(f"|  | {' | '.join(heading for heading, _ in COLUMNS.values())} |")
    print("|---" * (1 + len(COLUMNS)) + "|")


def print_table(rows: dict[str, Row], packaged: tuple[str, ...], seeds: int, out: Path) -> None:
    """Train and evaluate all rows, seed by seed, and print the table."""
    found: dict[str, list[Figures]] = {name: [] for name in [*rows, *packaged]}
    real: Figures = {}
    for seed in range(seeds):
        for name, row in rows.items():
            folder = out / f"{name.replace(', ', '-')}-seed{seed}"
            train(row, seed, folder)
            own, real = evaluate(str(folder))
            found[name].append(own)
            print(f"seed {seed}: {table_row(name, [own])}", flush=True)
    for name in packaged:
        own, real = evaluate(name)
        found[name].append(own)
    print()
    print_header()
    print(table_row("real images", [real]))
    for name, figures in found.items():
        print(table_row(f"{name}, packaged" if name in packaged else name, figures))
