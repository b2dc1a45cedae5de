"""`python -m benchmarks record --data FOLDER`: entries on photographs, at equal minutes.

What an entry draws stays in the folder ``runs``, and is not drawn again.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import cgan
from benchmarks.against import ROOT, checkout, environment
from benchmarks.machine import machine
from benchmarks.record.harness import ENTRIES, LONGEST_STEP, OLD, OWN
from cgan.config import DataConfig
from cgan.data import ImageDataset, load_split
from cgan.evaluation.artifacts import pixel_statistics
from cgan.evaluation.features import extract_real_features
from cgan.evaluation.judge_training import get_or_train_judge
from cgan.evaluation.reference import Reference

PER_CLASS = 50
"""Drawn images of each class: diffusion takes up to two seconds for one on two cores."""
SHOWN, SIDE = 4, 64
"""Images of a class on the sheet, and pixels of each."""


def record(
    entries: list[str], data: Path, minutes: list[float], seeds: int,
    pythons: dict[str, Path], against: str | None, runs: Path,
) -> dict[str, Any]:  # fmt: skip
    """Run every entry with every seed, where that is not done, and read what it drew."""
    source = DataConfig(source=str(data.resolve()))
    splits = {name: load_split(source, name) for name in ("train", "validation", "test")}
    with tempfile.TemporaryDirectory() as folder, checkout(against) as trees:
        write_folder(splits["train"], Path(folder))
        for name in entries:
            for seed in range(seeds):
                for tree, root in trees.items() if name in OLD else [("new", ROOT)]:
                    out = runs / f"{name if tree == 'new' else f'{name}@{tree}'}-{seed}"
                    pictures = data if name.startswith("cgan") else Path(folder)
                    run_entry(name, seed, minutes, pythons.get(name), pictures, root, out)
    judge = get_or_train_judge(splits.__getitem__, "cpu", architecture="pretrained")
    reference = Reference(
        judge, splits["train"], splits["test"], splits["validation"], per_class=PER_CLASS
    )
    found: dict[str, dict[str, Any]] = {}
    for out in sorted(runs.iterdir()):
        name, _, seed = out.name.rpartition("-")
        read = [{"seconds": float(path.stem), **read_images(path, reference)}
                for path in sorted(out.glob("*.npy"))]  # fmt: skip
        drawing = json.loads((out / "drawing.json").read_text())
        found.setdefault(name, {"lines": lines_of(name)})[seed] = {"read": read, **drawing}
    return {
        "machine": machine(), "date": datetime.now(UTC).date().isoformat(),
        "cgan": cgan.__version__, "reader": judge.name, "minutes": minutes,
        "real": real_row(reference), "entries": found,
    }  # fmt: skip


def write_folder(dataset: ImageDataset, folder: Path) -> None:
    """The training images as PNG files, a folder per class."""
    for label, name in enumerate(dataset.classes):
        (folder / name).mkdir()
        chosen = (dataset.labels == label).nonzero().squeeze(1)
        for index, image in zip(chosen.tolist(), dataset.take(chosen), strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name / f"{index}.png")


def run_entry(
    name: str, seed: int, minutes: list[float], python: Path | None, pictures: Path,
    tree: Path, out: Path,
) -> None:  # fmt: skip
    """Run an entry, once for all budgets; `cgan` once for each, because its run knows its end."""
    missing = [60 * one for one in minutes if find(out, 60 * one) is None]
    parts = [[one] for one in missing] if name.startswith("cgan") else [missing]
    for at in filter(None, parts):
        words = [str(python or sys.executable), str(ENTRIES[name]), "--seed", str(seed)]
        words += ["--seconds", f"{at[-1]:g}", "--at", *(f"{one:g}" for one in at)]
        words += ["--count", str(10 * PER_CLASS), "--out", str(out.resolve())]
        words += ["--data-dir", str(pictures.parent), "--pictures", str(pictures.resolve())]
        own = {"cwd": tree, "env": environment(tree)} if name in OWN else {}
        subprocess.run(words, check=True, stdout=sys.stderr, **own)


def find(out: Path, seconds: float) -> Path | None:
    """The images that were stored at a budget."""
    return min(
        (path for path in out.glob("*.npy") if is_at(float(path.stem), seconds)), default=None
    )


def is_at(stored: float, seconds: float) -> bool:
    """Whether images were stored at a budget: at the end of the step in which it ended."""
    return 0 <= stored - seconds <= LONGEST_STEP


def read_images(path: Path, reference: Reference) -> dict[str, Any]:
    """The figures of stored images, of which image i shows class i mod K."""
    images = torch.from_numpy(np.load(path))
    classes = reference.train.classes
    drawn = ImageDataset("drawn", images, torch.arange(len(images)) % len(classes), classes)
    everything = torch.arange(len(images))
    features = extract_real_features(drawn, everything, reference.readers, everything)
    control = reference.control_of(features)
    interval, manifold = control.relative_interval, reference.manifold_of(features)
    assert interval is not None
    assert manifold is not None
    return {
        "control": control.accuracy, "relative": control.relative, "interval": tuple(interval),
        "worst": min(control.per_class.values()), "worst_class": control.worst,
        "fid": reference.fid_of(features), "coverage": manifold.coverage,
        "spots": float(pixel_statistics([images]).spots.sum()),
        "copied": reference.copied_share(images),
    }  # fmt: skip


def real_row(reference: Reference) -> dict[str, Any]:
    """The same figures of real images: the test images, and FID and coverage of other ones."""
    assert reference.control is not None
    assert reference.manifold is not None
    return {
        "control": reference.control.balanced_accuracy,
        "worst": min(reference.control.per_class.values()),
        "fid": reference.fid, "coverage": reference.manifold.coverage,
        "spots": float(reference.pixels.spots.sum()),
    }  # fmt: skip


def lines_of(name: str) -> int:
    """Lines of an entry: its imports and its function ``main``, with four that the rules need."""
    if name.startswith("cgan"):
        return 1
    nodes = ast.parse(ENTRIES[name.partition("@")[0]].read_text()).body
    code = [one for one in nodes if isinstance(one, ast.Import | ast.ImportFrom | ast.FunctionDef)]
    return sum((one.end_lineno or one.lineno) - one.lineno + 1 for one in code)


def to_table(results: dict[str, Any]) -> str:
    """Markdown: a table for each budget, and one of what drawing takes. Means over seeds."""
    real, lines = results["real"], [f"{results['machine']}. Reader: {results['reader']}."]
    for minutes in results["minutes"]:
        lines += [
            "",
            f"| {minutes:g} minutes | control | of real | worst class | FID | coverage | spots |",
            "|---|--:|--:|--:|--:|--:|--:|",
            f"| real photographs | {real['control']:.1%} | 1 | {real['worst']:.0%} | "
            f"{real['fid']:.0f} | {real['coverage']:.0%} | {real['spots']:.2f} |",
        ]  # fmt: skip
        for name, entry in results["entries"].items():
            rows = [
                row for seed in seeds_of(entry) for row in seed["read"]
                if is_at(row["seconds"], 60 * minutes)
            ]  # fmt: skip
            if rows:
                lines.append(f"| {name} | {cells(rows)} |")
    lines += ["", "| | seconds to draw 1,000 | MB of weights | lines |", "|---|--:|--:|--:|"]
    for name, entry in results["entries"].items():
        drawn = [seed["seconds_per_1000"] for seed in seeds_of(entry)]
        size = seeds_of(entry)[0]["bytes"] / 1e6
        lines.append(f"| {name} | {mean(drawn):,.1f} | {size:.1f} | {entry['lines']} |")
    return "\n".join(lines)


def seeds_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of an entry."""
    return [one for key, one in entry.items() if key != "lines"]


def cells(rows: list[dict[str, Any]]) -> str:
    """One budget of an entry: means over its seeds."""
    low, high = (mean([row["interval"][end] for row in rows]) for end in (0, 1))
    value = {key: mean([row[key] for row in rows])
             for key in ("control", "relative", "worst", "fid", "coverage", "spots")}  # fmt: skip
    of_real = f"{value['relative']:.2f} ({low:.2f} to {high:.2f})"
    others = f"{value['worst']:.0%} | {value['fid']:.0f} | {value['coverage']:.0%}"
    return f"{value['control']:.1%} | {of_real} | {others} | {value['spots']:.2f}"


def mean(values: list[float]) -> float:
    """Of a few numbers."""
    return sum(values) / len(values)


def write_sheet(runs: list[Path], seconds: float, classes: int, path: Path) -> None:
    """What entries draw after the same time, side by side: a row per class, under their names."""
    blocks = []
    for out in runs:
        stored = find(out, seconds)
        if stored is not None:
            blocks.append((out.name.rpartition("-")[0], torch.from_numpy(np.load(stored))))
    width, band, gap = SHOWN * SIDE, 22, 12
    sheet = Image.new("RGB", (len(blocks) * (width + gap) - gap, band + classes * SIDE), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, images) in enumerate(blocks):
        left = column * (width + gap)
        draw.text((left, 2), name, fill="black", font_size=16)
        for index, image in enumerate(images[: classes * SHOWN]):
            x, y = left + index // classes * SIDE, band + index % classes * SIDE
            sheet.paste(enlarge(image), (x, y))
    sheet.save(path)


def enlarge(image: Tensor) -> Image.Image:
    """uint8 (3, H, W) as a smooth picture."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
