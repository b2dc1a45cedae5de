"""Commands in odd surroundings: each works, or says one sentence with status 2."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.reliability.children import Child, command, fault_of, must_work
from benchmarks.reliability.report import Budget, Row
from benchmarks.reliability.runs import temporary_files
from benchmarks.reliability.surroundings import (
    IS_ROOT,
    NOBODY,
    Surroundings,
    can_mount,
    surroundings,
)
from cgan.storage.paths import GENERATOR_FILE


def draw_pictures(folder: Path, classes: tuple[str, str], name: str) -> None:
    """Twelve small pictures of each class."""
    random = np.random.default_rng(0)
    for level, label in zip((50, 200), classes, strict=True):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            pixels = (level + random.integers(-40, 40, (8, 8))).clip(0, 255).astype(np.uint8)
            with open(folder / label / f"{name}{number}.png", "wb") as file:
                Image.fromarray(pixels).save(file, "PNG")


def list_commands(place: Path, out: Path, spare: Path, label: str) -> list[list[str]]:
    """Train, resume and use a run in a folder; without one, a spare generator is used."""
    run, model = str(out / "run"), out / "run"
    words = ("--model", "mlp", "--size", "8", "--device", "cpu", "--batch-size", "16")
    often = {
        "sample_every_images": 64, "eval_every_images": 64, "log_every_images": 64,
        "control_per_class": 2,
    }  # fmt: skip
    more = [word for key, value in often.items() for word in ("--set", f"{key}={value}")]
    if out == place and not (model / GENERATOR_FILE).exists():
        model, label = spare, "cat"
    return [
        ["train", "--data", str(place / "data"), "--out", run, "--images", "64", *words, *more],
        ["train", "--resume", "--out", run, "--images", "128"],
        ["info", str(model)],
        ["generate", str(model), "--class", label, "-n", "2", "--out", str(out / "grid.png")],
        ["generate", str(model), "--count", "6", "--format", "folder", "--out", str(out / "set")],
        ["evaluate", str(model), "--data", str(place / "data"), "--per-class", "5", "--html",
         str(out / "report.html")],
        ["export", str(model), "--out", str(out / "model.onnx")],
    ]  # fmt: skip


def try_all(one: Surroundings, work: Path, spare: Path, count: int) -> Row:
    """Run the first ``count`` commands in these surroundings."""
    row, worked = Row(one.what), 0
    try:
        with one.place(work) as place:
            draw_pictures(place / "data", one.classes, one.picture)
            (place / "closed").mkdir(0o000)
            if IS_ROOT:
                os.chown(place, NOBODY, NOBODY)
            for index in range(count):
                words = list_commands(place, place / one.inside, spare, one.classes[0])[index]
                ended = Child(_action(one, words, place), work / "said.txt").wait(120)
                row.add(ended.seconds, 0 if one.wrapper is not None else ended.peak_mib)
                worked += ended.status == 0
                if fault := fault_of(ended):
                    row.fail(f"{words[0]} {fault}")
            for name in temporary_files(place):
                row.fail(f"{name} remains")
            for name in {path.name for path in place.iterdir()} & {"~", ".cache"}:
                row.fail(f"a folder {name} is made in the current one")
    except OSError as error:
        row.figures = {"left out": f"this machine cannot make it ({error.strerror})"}
    else:
        row.figures = {"worked": worked, "refused": row.count - worked}
    return row


def _action(one: Surroundings, words: list[str], place: Path) -> Callable[[], None]:
    def run() -> None:
        os.chdir(place)
        one.prepare()
        if one.wrapper is None:
            from cgan.evaluation import judge_training as judges

            judges.train_judge = partial(judges.train_judge, images=640)
            command(*words)()
        program = [*one.wrapper, sys.executable, "-m", "cgan", *words]
        os.execvp(program[0], program)

    return run


def measure(budget: Budget, work: Path, seed: int) -> list[Row]:
    """One row for each surroundings."""
    os.environ["CGAN_CACHE"] = str(work / "cache")
    (work / "empty").mkdir()
    warm, spare = work / "warm", work / "warm" / "run"
    draw_pictures(warm / "data", ("cat", "dog"), "picture")
    count = 6 if budget.is_least else 7  # an export takes as long as the others together
    for words in list_commands(warm, warm, spare, "cat")[:count]:
        must_work(*words)
    found, rows = surroundings(can_mount(work / "empty")), []
    for number, one in enumerate(found):
        if budget.allows(number, len(found)):
            folder = work / str(number)
            folder.mkdir()
            rows.append(try_all(one, folder, spare, count))
            shutil.rmtree(os.fsencode(folder), ignore_errors=True)
    return rows
