"""`cgan train` as it is: this program copies the generator file whenever the run has saved one.

The clock starts when the process of `cgan train` starts. The images are drawn afterwards, from the
copies, so the run is not interrupted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from entry import COUNT, parse

START = 4.0
"""Seconds of start-up, which a budget in minutes does not count."""


def main(config: str, *settings: str) -> None:
    options = parse()
    folder = Path(tempfile.mkdtemp())
    words = [
        sys.executable, "-m", "cgan", "train", config, "--data-dir", str(options.data_dir),
        "--minutes", f"{(options.seconds - START) / 60}", "--seed", str(options.seed),
        "--out", str(folder / "run"), "--set", f"save_every_seconds={options.every}",
        "--set", "eval_every_images=0", "--set", "control_per_class=0",
        "--set", "sample_every_images=1000000000", *settings,
    ]  # fmt: skip
    started, source = time.time(), folder / "run" / "generator.safetensors"
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
    import cgan
    from cgan.storage.images import to_pixels

    for seconds, path in copies[1:]:  # the first one is saved before the first step
        sampler = cgan.load(path)
        images = to_pixels(sampler.sample(None, n=COUNT // 10, seed=0)).squeeze(1)
        in_turn = images.view(10, COUNT // 10, 28, 28).transpose(0, 1).reshape(COUNT, 28, 28)
        np.save(options.out / f"{seconds:08.3f}.npy", in_turn.numpy())
    shutil.rmtree(folder)


if __name__ == "__main__":
    main("mnist-dcgan", "--set", "aux_weight=2")
