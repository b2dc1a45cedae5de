"""``python -m benchmarks speed``: training step, loader, training, sampling and start-up.

Every timing is repeated; results are the median, minimum and maximum. Each block of steps is
compared with matrix products that run directly before and after it, because the speed of a shared
machine changes by the minute.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import cgan
from cgan.data import Loader, load_split
from cgan.evaluation.judge_training import get_or_train_judge
from cgan.models.conditioning import LABEL_DIM
from cgan.models.dcgan import MIN_FEATURES, plan_channels
from cgan.runtime.device import configure_backends, find_device
from cgan.storage.run_files import read_metrics
from cgan.training.plan import Plan, find_teacher
from cgan.training.state import TrainState
from cgan.training.step import TrainStep
from cgan.updates import in_turn

LEVELS = (0.95, 0.98, 0.99, 0.995)
BLOCKS = 9
LOOKS = 40
"""Evaluations in the time-to-control run, so its resolution is 1/40 of the budget."""


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    @staticmethod
    def of(values: list[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.least:{spec}} to {self.most:{spec}})"


class Count(TorchDispatchMode):
    """Count the floating-point operations inside the context, with torch's formulas.

    ``FlopCounterMode`` cannot be used, because it does not support ``autograd.grad`` in a step.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def by_hand(config: cgan.Config, image_shape: tuple[int, int, int], classes: int) -> float | None:
    """Operations per training image, from the formula in benchmarks/PERFORMANCE.md.

    Returns None for configs that the formula does not cover. ``g``, ``d``, ``first`` and ``head``
    are multiply-adds of one forward pass for one image. G: forward, weight gradient, input
    gradient. D: forward, weight gradient and input gradient for real and fake images (without the
    input gradient of the first layer), and one full input gradient for G's update. R1: one more
    pass through D, its weight gradient, and its input gradient without the head.
    """
    model, pixels = config.model, image_shape[0] * image_shape[1] * image_shape[2]
    counted = config.update == "simultaneous" and model.generator_label == "concat"
    counted = counted and model.backbone in ("mlp", "dcgan")
    if not counted or model.discriminator_label != "projection+auxiliary" or image_shape[0] != 1:
        return None
    z = model.latent_dim + LABEL_DIM
    if model.backbone == "mlp":
        width = model.width or 256
        g = z * width + width * 2 * width + 2 * width * pixels
        first = pixels * 2 * width
        head = width * (1 + classes)
        d = first + 2 * width * width + head
    else:
        width = model.width or 32
        channels = plan_channels(image_shape, width)
        side = image_shape[1] >> len(channels)
        flat = channels[-1] * side * side
        convolutions, before = [], 1
        for step, count in enumerate(channels, start=1):
            convolutions.append((image_shape[1] >> step) ** 2 * before * count * 16)
            before = count
        g = z * flat + sum(convolutions)
        first = convolutions[0]
        features = max(4 * width, MIN_FEATURES)
        head = features * (1 + classes)
        d = sum(convolutions) + flat * features + head
    step = 3 * g + 5 * d + 2 * (d - first)
    penalty = (3 * d - head) / config.penalty.lazy_interval if config.penalty.r1 else 0
    return 2 * (step + penalty)


class Bench:
    """One config on one device."""

    def __init__(
        self, named: str, device: torch.device, data_dir: str | None, folder: Path | None
    ) -> None:
        self.named, (name, _, batch) = named, named.partition("@")
        changes: dict[str, object] = {"control_per_class": 0, "eval_every_images": 0}
        changes |= {"device": str(device)} | ({"batch_size": int(batch)} if batch else {})
        changes |= {"data.data_dir": data_dir} if data_dir else {}
        changes |= {"data.source": str(folder)} if folder else {}
        self.config, self.device = cgan.load_config(name, changes), device
        self.pictures = load_split(self.config.data, "train")
        side = 8192 if device.type == "cuda" else 1024
        self.left, self.right = (torch.randn(side, side, device=device) for _ in range(2))

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self, products: int = 6) -> float:
        """Current operations per second of large matrix products."""
        self.wait()
        before = time.perf_counter()
        for _ in range(products):
            self.left @ self.right
        self.wait()
        return products * 2 * len(self.left) ** 3 / (time.perf_counter() - before)

    def timed(self, work: Callable[[], None], seconds: float = 1.0) -> float:
        """How many times per second ``work`` runs."""
        self.wait()
        done, before = 0, time.perf_counter()
        while time.perf_counter() - before < seconds:
            work()
            done += 1
        self.wait()
        return done / (time.perf_counter() - before)

    def train_step(self) -> TrainStep:
        torch.manual_seed(0)
        plan = Plan(self.config, self.pictures, self.device)
        return TrainStep(TrainState(replace(plan, teacher=find_teacher(plan))))

    def flops(self) -> float:
        """Counted operations per training image, averaged over one lazy interval."""
        step, every = self.train_step(), self.config.penalty.lazy_interval
        step.run = step.update  # no CUDA graph: a replay is not counted
        step.gan.teacher = None  # its work is not that of G and D
        step.gan.both = in_turn  # a dispatch mode sees its own thread only
        batches = Loader(self.pictures, self.config.batch_size, self.device).batches()
        with Count() as counted:
            for _ in range(every):
                step(*next(batches))
        return counted.total / every / self.config.batch_size

    def steps(self) -> dict[str, Any]:
        """Images/s of the step alone and with the loader, and their fractions of the peak."""
        step, batch = self.train_step(), self.config.batch_size
        batches = Loader(self.pictures, batch, self.device).batches()
        one, per_image = next(batches), self.flops()
        self.timed(lambda: step(*one), 2.0)
        rates: dict[str, list[float]] = {"bare": [], "loader": []}
        shares: dict[str, list[float]] = {"bare": [], "loader": []}
        peaks = []
        for _ in range(BLOCKS):
            for kind in rates:
                before = self.peak()
                if kind == "bare":
                    rate = batch * self.timed(lambda: step(*one))
                else:
                    rate = batch * self.timed(lambda: step(*next(batches)))
                peak = (before + self.peak()) / 2
                peaks.append(peak)
                rates[kind].append(rate)
                shares[kind].append(rate * per_image / peak)
        return {
            "mflop_per_image": per_image / 1e6,
            "mflop_per_image_by_hand": self.hand(),
            "peak_gflops": Spread.of([peak / 1e9 for peak in peaks]),
            **{f"{kind}_images_per_s": Spread.of(rates[kind]) for kind in rates},
            **{f"{kind}_share_of_peak": Spread.of(shares[kind]) for kind in shares},
        }

    def hand(self) -> float | None:
        counted = by_hand(self.config, self.pictures.image_shape, len(self.pictures.classes))
        return counted and counted / 1e6

    def whole(self, seconds: float, repeats: int = 3) -> dict[str, Any]:
        """Images/s of a complete `cgan.train` (without imports), compared with the step alone."""
        step, batch = self.train_step(), self.config.batch_size
        one = next(Loader(self.pictures, batch, self.device).batches())
        self.timed(lambda: step(*one), 1.0)
        described = self.config.model_copy(update={"images": None, "minutes": seconds / 60})
        rates, shares = [], []
        for _ in range(repeats):
            bare = batch * self.timed(lambda: step(*one), seconds / 4)
            folder = Path(tempfile.mkdtemp())
            before = time.perf_counter()
            run = cgan.train(described, folder / "run")
            rates.append(run.images_seen / (time.perf_counter() - before))
            shutil.rmtree(folder)
            bare = (bare + batch * self.timed(lambda: step(*one), seconds / 4)) / 2
            shares.append(rates[-1] / bare)
        if self.device.type == "cuda":
            used = torch.cuda.max_memory_allocated(self.device) / 2**30
        else:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {
            "whole_images_per_s": Spread.of(rates),
            "whole_share_of_bare": Spread.of(shares),
            "peak_memory_gib": used,
        }

    def drawing(self) -> dict[str, Any]:
        """Images/s generated by class and seed, converted to uint8, with this config's network."""
        sampler = self.train_step().state.sampler(Path("none"))
        count = 200_000 if self.device.type == "cuda" else 6_400
        request = sampler.request(None, count // 10)

        def draw() -> None:
            for pictures, _ in sampler.batches(request):
                pictures.mul(255).to(torch.uint8)

        draw()
        return {"drawn_per_s": Spread.of([count * self.timed(draw, 0.5) for _ in range(5)])}

    def to_control(self, minutes: float, every_images: int) -> dict[str, Any]:
        """Training seconds until each control accuracy is reached, without the evaluations."""
        changes = {"images": None, "minutes": minutes, "eval_every_images": every_images}
        changes |= {"log_every_images": every_images, "sample_every_images": 10**9}
        folder = Path(tempfile.mkdtemp())
        cgan.train(self.config.model_copy(update=changes), folder / "run")
        rows, seconds, reached = read_metrics(folder / "run"), {}, {}
        for row in rows:
            if "seconds" in row:
                seconds[row["images_seen"]] = row["seconds"]
        best = 0.0
        for row in rows:
            if "control_accuracy" in row:
                best = max(best, row["control_accuracy"])
                for level in LEVELS:
                    if row["control_accuracy"] >= level and row["images_seen"] in seconds:
                        reached.setdefault(f"{100 * level:g}", seconds[row["images_seen"]])
        shutil.rmtree(folder)
        return {"seconds_to_control": reached, "budget_s": 60 * minutes, "best_control": best}

    def textbook(self, seconds: float) -> dict[str, Any]:
        """Speed and final control accuracy of the textbook loop."""
        from benchmarks.textbook import Textbook
        from cgan.storage.paths import default_data_dir

        torch.manual_seed(0)
        data_dir = self.config.data.data_dir or str(default_data_dir())
        usual = Textbook(self.config.model.backbone, data_dir, self.device)
        rates = [usual.train(seconds / 3) for _ in range(3)]
        judge = get_or_train_judge(lambda split: load_split(self.config.data, split))
        return {
            "textbook_images_per_s": Spread.of(rates),
            "textbook_control": usual.control(judge),
            "textbook_seconds": 1.1 * seconds,
        }


def starting(repeats: int = 5) -> dict[str, Spread]:
    """Seconds per process: `import torch`, `--help`, one image with and without torch."""
    folder = Path(tempfile.mkdtemp())
    (folder / "plain").mkdir()
    packaged = Path(cgan.__file__).parent / "packaged" / "mnist" / "generator.safetensors"
    for name in ("plain", "exported"):
        (folder / name).mkdir(exist_ok=True)
        shutil.copy(packaged, folder / name)
    me = (sys.executable, "-m", "cgan")
    draw = ("--digit", "7", "--out", str(folder / "7.png"))
    commands = {
        "import torch": (sys.executable, "-c", "import torch"),
        "cgan --help": (*me, "--help"),
        "cgan generate --digit 7": (*me, "generate", str(folder / "plain"), *draw),
    }
    try:
        words = (*me, "export", str(folder / "exported"))
        subprocess.run(words, check=True, capture_output=True)
        exported = (*me, "generate", str(folder / "exported"), *draw)
        commands["the same, exported"] = exported
    except subprocess.CalledProcessError:  # the extra onnx is not installed
        pass
    found: dict[str, Spread] = {}
    for name, words in commands.items():
        times = []
        for _ in range(repeats + 1):  # the first one warms the disk cache
            before = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True)
            times.append(time.perf_counter() - before)
        found[name] = Spread.of(times[1:])
    shutil.rmtree(folder)
    return found


def measure(
    configs: list[str],
    data_dir: str | None,
    minutes: float,
    seconds: float,
    folder: Path | None = None,
) -> dict[str, Any]:
    """All measurements for each config, on CUDA if available; of a folder, without control."""
    minutes = 0 if folder else minutes
    device = find_device()
    results: dict[str, Any] = {}
    with configure_backends(device):
        for named in configs:
            bench = Bench(named, device, data_dir, folder)
            print(f"{named} on {device}", file=sys.stderr, flush=True)
            steps = bench.steps()
            every = int(steps["bare_images_per_s"].median * 60 * minutes / LOOKS)
            results[named] = {
                "batch": bench.config.batch_size,
                **steps,
                **bench.whole(seconds),
                **bench.drawing(),
                **(bench.textbook(3 * seconds) if bench.config.data.source == "mnist" else {}),
                **(bench.to_control(minutes, every) if minutes and "@" not in named else {}),
            }
    return {"device": str(device), "starting": starting(), "configs": results}


def to_json(results: dict[str, Any]) -> str:
    def plain(value: Any) -> Any:
        return asdict(value) if isinstance(value, Spread) else str(value)

    return json.dumps(results, indent=1, default=plain) + "\n"


def to_table(results: dict[str, Any], machine: str) -> str:
    """The results as Markdown tables."""
    configs = results["configs"]
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("batch", lambda r: f"{r['batch']}"),
        ("Mflop per image (counted)", lambda r: f"{r['mflop_per_image']:.3f}"),
        ("Mflop per image (formula)", lambda r: _maybe(r["mflop_per_image_by_hand"], ".3f")),
        ("peak (matrix products), Gflop/s", lambda r: f"{r['peak_gflops']:.0f}"),
        ("step alone, images/s", lambda r: f"{r['bare_images_per_s']:,.0f}"),
        ("step alone, fraction of peak", lambda r: f"{r['bare_share_of_peak']:.2f}"),
        ("step with loader, images/s", lambda r: f"{r['loader_images_per_s']:,.0f}"),
        ("step with loader, fraction of peak", lambda r: f"{r['loader_share_of_peak']:.2f}"),
        ("`cgan.train`, images/s", lambda r: f"{r['whole_images_per_s']:,.0f}"),
        ("`cgan.train`, fraction of step alone", lambda r: f"{r['whole_share_of_bare']:.2f}"),
        ("peak memory, GiB", lambda r: f"{r['peak_memory_gib']:.2f}"),
        ("sampling, images/s", lambda r: f"{r['drawn_per_s']:,.0f}"),
        ("textbook loop, images/s", lambda r: _spread(r, "textbook_images_per_s")),
        ("`cgan.train` / textbook loop", _ratio),
        ("textbook loop, control accuracy", _textbook_control),
        *(
            (
                f"seconds to {100 * level:g} % control accuracy",
                lambda r, level=level: _seconds(r, f"{100 * level:g}"),
            )
            for level in LEVELS
        ),
    ]
    lines = [f"{machine}; median (min to max).", ""]
    lines += [f"|  | {' | '.join(configs)} |", "|---" * (len(configs) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(of(r) for r in configs.values())} |" for name, of in rows]
    lines += ["", "| process | seconds |", "|---|---|"]
    lines += [f"| {name} | {spread:.2f} |" for name, spread in results["starting"].items()]
    return "\n".join(lines) + "\n"


def _maybe(value: float | None, spec: str) -> str:
    return "" if value is None else f"{value:{spec}}"


def _spread(result: dict[str, Any], key: str) -> str:
    return f"{result[key]:,.0f}" if key in result else ""


def _ratio(result: dict[str, Any]) -> str:
    if "textbook_images_per_s" not in result:
        return ""
    whole, usual = result["whole_images_per_s"], result["textbook_images_per_s"]
    return f"{whole.median / usual.median:.1f}"


def _textbook_control(result: dict[str, Any]) -> str:
    if "textbook_control" not in result:
        return ""
    return f"{100 * result['textbook_control']:.1f} % after {result['textbook_seconds']:.0f} s"


def _seconds(result: dict[str, Any], level: str) -> str:
    if "seconds_to_control" not in result:
        return ""
    found = result["seconds_to_control"].get(level)
    return f"{found:.0f}" if found else f"> {result['budget_s']:.0f}"
