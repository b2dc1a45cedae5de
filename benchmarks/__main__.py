"""``python -m benchmarks start | step | table``: one measurement each, as Markdown on stdout."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


def machine() -> str:
    """What this was measured on."""
    import torch

    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else f"no GPU, {cpu}"
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {place}, Python {platform.python_version()}, torch {torch.__version__}"


def seconds(*command: str) -> float:
    """Wall time of a process."""
    before = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - before


@app.command()
def start(
    run: Annotated[str, typer.Argument(help="A run to draw from.")], repeats: int = 7
) -> None:
    """Seconds to `--help` and to a first picture, beside `import torch` alone."""
    commands = {
        "import torch": (sys.executable, "-c", "import torch"),
        "cgan --help": ("cgan", "--help"),
        "cgan generate": ("cgan", "generate", run, "--out", "/tmp/start.png"),
    }
    times: dict[str, list[float]] = {}
    for name, words in commands.items():
        seconds(*words)  # the first fills the disk's cache
        times[name] = [seconds(*words) for _ in range(repeats)]
    print(f"{machine()}; median of {repeats} (least, most)\n\n| process | seconds |\n|---|---|")
    for name, all_ in times.items():
        print(f"| {name} | {statistics.median(all_):.2f} ({min(all_):.2f}, {max(all_):.2f}) |")
    limit = 1.3 * statistics.median(times["import torch"]) + 0.5
    print(f"\n1.3 × import torch + 0.5 s = {limit:.2f} s")


@app.command()
def step(config: Annotated[str, typer.Argument()], images: int = 60_000, repeats: int = 3) -> None:
    """Images/s of the bare step on one batch in memory, and of the whole of `train`; memory."""
    import torch

    import cgan
    from cgan.data import Loader, load_split
    from cgan.device import find_device
    from cgan.learner import Learner

    described = cgan.load_config(config, {"images": images, "control_per_class": 0})
    device = find_device(described.device)
    pictures = load_split(described.data, "train")

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def bare() -> float:
        learner = Learner(described, pictures, device)
        real, labels = next(Loader(pictures, described.batch_size, device).batches())
        steps = images // described.batch_size
        for _ in range(50):
            learner.step(real, labels)
        wait()
        before = time.perf_counter()
        for _ in range(steps):
            learner.step(real, labels)
        wait()
        return steps * described.batch_size / (time.perf_counter() - before)

    def whole() -> float:
        folder = Path(tempfile.mkdtemp())
        before = time.perf_counter()
        run = cgan.train(described, folder / "run")
        wall = time.perf_counter() - before
        shutil.rmtree(folder)
        return run.images_seen / wall

    bares, wholes = zip(*[(bare(), whole()) for _ in range(repeats)], strict=True)
    share = statistics.median(wholes) / statistics.median(bares)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{machine()}; {config}, {images:,} images, median of {repeats} (least, most)\n")
    for name, all_ in (("bare step", bares), ("cgan.train, whole call", wholes)):
        print(
            f"- {name}: {statistics.median(all_):,.0f} images/s "
            f"({min(all_):,.0f}, {max(all_):,.0f})"
        )
    print(f"- share: {100 * share:.0f} %\n- peak memory of the process: {peak:.2f} GiB")


@app.command()
def table(
    configs: Annotated[list[str], typer.Argument()],
    minutes: float = 5.0,
    plain_minutes: Annotated[
        float, typer.Option(help="A plain GAN gets chance, however long it learns.")
    ] = 2.0,
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/table"),
) -> None:
    """The README's table: each config, conditional and plain, with both update schemes."""
    rows = []
    for name in configs:
        for kind in ("conditional", "plain"):
            for update in ("alternating", "shared"):
                folder = out / f"{name}-{kind}-{update}"
                if not folder.exists():
                    words = ["cgan", "train", name, f"--{kind}", "--update", update]
                    spent = minutes if kind == "conditional" else plain_minutes
                    words += ["--minutes", str(spent), "--out", str(folder)]
                    subprocess.run(words, check=True)
                info = subprocess.run(
                    ["cgan", "info", str(folder), "--json"], check=True, capture_output=True
                )
                rows.append((name, kind, update, json.loads(info.stdout)))
    print(f"{machine()}\n")
    print("| config | | update | control accuracy | worst class | images | images/s | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for name, kind, update, header in rows:
        measured, seen, spent = header["measured"], header["images_seen"], header["seconds"]
        worst = measured["per_class"][measured["worst_class"]]
        print(
            f"| {name} | {kind} | {update} | {100 * measured['control_accuracy']:.2f} % "
            f"| {100 * worst:.1f} % | {seen:,} | {seen / spent:,.0f} | {spent / 60:.1f} |"
        )


if __name__ == "__main__":
    app()
