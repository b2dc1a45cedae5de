"""``python -m benchmarks busy``: training beside other programs.

Each figure is of a process of its own: the images/s of the training loop of ``cgan.train``, without
evaluations. A busy program is a Python process that counts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.against import checkout, environment

CONFIGS = ("digits-mlp", "mnist-dcgan", "folder-dcgan")
LOADS = ("alone", "beside one", "beside two", "two at once")

TRAIN = """
import sys, tempfile, cgan
name, seconds, data, data_dir = sys.argv[1:]
changes = {"images": None, "minutes": float(seconds) / 60, "control_per_class": 0,
           "eval_every_images": 0, "sample_every_images": 10**9, "save_every_seconds": 1e6}
changes |= {"data.data_dir": data_dir} if data_dir else {}
changes |= {"data.source": data} if data and name.startswith("folder") else {}
run = cgan.train(cgan.load_config(name, changes), tempfile.mkdtemp() + "/run")
print(run.images_seen / run.seconds)
"""


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Programs that compute without end."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def rates(tree: Path, config: str, load: str, seconds: float, data: str, data_dir: str) -> float:
    """Images/s of one training, or the lower one of two at once."""
    words = [sys.executable, "-c", TRAIN, config, str(seconds), data, data_dir]
    count = 2 if load == "two at once" else 1
    with busy_programs({"beside one": 1, "beside two": 2}.get(load, 0)):
        runs = [
            subprocess.Popen(
                words,
                cwd=tree,
                env=environment(tree),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(count)
        ]
        found = [float(run.communicate()[0]) for run in runs]
    return min(found)


def measure(
    configs: list[str], revision: str | None, seconds: float, repeats: int, data: str, data_dir: str
) -> None:
    """Print a table: medians of all repeats, and their ratio to training alone."""
    print("|  |  | " + " | ".join(LOADS) + " |\n" + "|---" * (len(LOADS) + 2) + "|")
    with checkout(revision) as trees:
        for config in configs:
            found: dict[tuple[str, str], list[float]] = {}
            for _ in range(repeats):
                for load in LOADS:
                    for name, tree in trees.items():
                        rate = rates(tree, config, load, seconds, data, data_dir)
                        found.setdefault((name, load), []).append(rate)
            medians = {key: statistics.median(values) for key, values in found.items()}
            for name in trees:
                alone = medians[name, "alone"]
                cells = [
                    f"{medians[name, one]:,.0f} ({medians[name, one] / alone:.2f})" for one in LOADS
                ]
                print(f"| {config} | {name} | {' | '.join(cells)} |", flush=True)
