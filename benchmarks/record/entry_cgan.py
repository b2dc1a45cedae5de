"""`cgan train` as it is: this program copies the generator file whenever the run has saved one.

The clock starts when the process of `cgan train` starts. The images are drawn afterwards, from the
copies, so the run is not interrupted.

With pictures it is `cgan train --data FOLDER --minutes M`. What starts it and what it fits once, a
teacher, are a part of the time: a run of one step is timed, and the run has the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
from entry import parse

START = 4.0
"""Seconds of start-up, which a budget in minutes does not count."""


def main(changes: list[str] | None = None) -> None:
    options = parse()
    folder, start = Path(tempfile.mkdtemp()), START
    if options.pictures:
        words = ["--data", str(options.pictures)]
    else:
        words = ["mnist-dcgan", "--data-dir", str(options.data_dir), "--set", "aux_weight=2"]
        words += ["--set", f"save_every_seconds={options.every}"]
    words = [
        sys.executable, "-m", "cgan", "train", *words, "--seed", str(options.seed),
        "--set", "eval_every_images=0", "--set", "control_per_class=0",
        "--set", "sample_every_images=1000000000", *(changes or []),
    ]  # fmt: skip
    if options.pictures:
        os.environ["CGAN_CACHE"] = str(folder / "cache")
        begun = time.time()
        subprocess.run([*words, "--set", "images=16", "--out", str(folder / "first")], check=True)
        start = time.time() - begun
    run = options.out / f"run-{options.seconds:g}" if options.pictures else folder / "run"
    shutil.rmtree(run, ignore_errors=True)  # of a record that was interrupted
    words += ["--minutes", f"{(options.seconds - start) / 60}", "--out", str(run)]
    copies = watch(words, folder, run)
    if options.pictures:
        store_pictures(options, run)
    else:
        store_digits(options, copies)
    shutil.rmtree(folder)


def watch(words: list[str], folder: Path, out: Path) -> list[tuple[float, Path]]:
    """Run a training: seconds and a copy of each generator that it saves."""
    started, source = time.time(), out / "generator.safetensors"
    run = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    copies: list[tuple[float, Path]] = []
    seen = 0
    while run.poll() is None:
        time.sleep(0.05)
        if source.exists() and (changed := source.stat().st_mtime_ns) != seen:
            seen = changed
            copies.append((time.time() - started, folder / f"{len(copies)}.safetensors"))
            shutil.copyfile(source, copies[-1][1])
    if run.returncode:
        raise SystemExit(f"{' '.join(words)} ended with status {run.returncode}")
    return copies[1:]  # the first one is saved before the first step


def store_digits(options: Namespace, copies: list[tuple[float, Path]]) -> None:
    """Draw with every copy; in turn 0, 1, 2, …"""
    import cgan
    from cgan.storage.images import to_pixels

    count = options.count
    for seconds, path in copies:
        images = to_pixels(cgan.load(path).sample(None, n=count // 10, seed=0)).squeeze(1)
        in_turn = images.view(10, count // 10, 28, 28).transpose(0, 1).reshape(count, 28, 28)
        np.save(options.out / f"{seconds:08.3f}.npy", in_turn.numpy())


def store_pictures(options: Namespace, run: Path) -> None:
    """Draw with the last generator; in turn of the classes."""
    import cgan
    from cgan.storage.images import to_pixels

    begun, sampler = time.time(), cgan.load(run)
    images = to_pixels(sampler.sample(None, n=options.count // len(sampler.classes), seed=0))
    row = {"seconds_per_1000": 1_000 * (time.time() - begun) / len(images)}
    row["bytes"] = (run / "generator.safetensors").stat().st_size
    (options.out / "drawing.json").write_text(json.dumps(row))
    in_turn = images.unflatten(0, (len(sampler.classes), -1)).transpose(0, 1).flatten(0, 1)
    np.save(options.out / f"{options.seconds:08.3f}.npy", in_turn.numpy())


if __name__ == "__main__":
    main()
