"""``python -m benchmarks gallery``: train every config, and write its picture and its figures."""

from __future__ import annotations

import sys
from pathlib import Path

import cgan
from cgan.evaluation.report import format_share, format_value
from cgan.storage.images import make_grid, save_png, to_pixels

CONFIGS = ("digits-mlp", "mnist-mlp", "mnist-dcgan", "fashion-dcgan")
"""Those with data of their own, in their default budgets."""
COLUMNS = 16


def draw(path_or_run: str | Path, name: str, out: Path) -> Path:
    """A picture: one row per class."""
    sampler = cgan.load(path_or_run)
    images = to_pixels(sampler.sample(list(sampler.classes), COLUMNS))
    scale = max(1, 28 // sampler.image_shape[2])
    return save_png(make_grid(images, COLUMNS, scale), out / f"gallery-{name}.png")


def gallery(names: list[str], runs: Path, out: Path) -> None:
    """Train, evaluate and draw; print one row of the table for each config."""
    print("| config | control accuracy | worst class | FID | least diversity | images | minutes |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        run = cgan.train(name, runs / name)
        report = cgan.evaluate(run.folder)
        figures = {figure.key: figure for figure in report.figures}
        cells = [
            format_value(figures[key].value, figures[key].share)
            for key in ("control_accuracy", "control_accuracy_worst_class", "fid")
        ]
        cells += [format_value(figures["diversity_least"].value), f"{run.images_seen:,}"]
        print(f"| {name} | {' | '.join(cells)} | {run.seconds / 60:.1f} |", flush=True)
        real = figures["control_accuracy"].real
        print(f"{name}: real images {format_share(real or 0)}", file=sys.stderr)
        draw(run.folder, name, out)
