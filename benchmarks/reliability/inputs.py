"""The files that cgan reads: an original of each kind, and the commands that read it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from benchmarks.reliability.children import must_work
from benchmarks.reliability.mutators import (
    Mutator,
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_onnx,
    mutate_picture,
    mutate_safetensors,
    mutate_yaml,
)
from benchmarks.reliability.runs import split_safetensors, train_reference
from cgan.storage.paths import CONFIG_FILE, GENERATOR_FILE, JUDGE_FILE, STATE_FILES

SETTINGS = {
    "images": 128, "log_every_images": 64, "sample_every_images": 10_000, "eval_every_images": 0,
    "control_per_class": 5, "model.width": 8,
}  # fmt: skip
STATE, STATE_BEFORE = STATE_FILES


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: its row in the table.
        count: inputs of it in the full length.
        files: a file of the original folder to change, and its mutator; one is chosen.
        commands: the words that read it, by the folder and the number of the input.
        removed: files that are taken away for every second input.
    """

    name: str
    count: int
    files: dict[str, Mutator]
    commands: Callable[[Path, int], list[list[str]]]
    removed: tuple[str, ...] = field(default=())

    def change(self, folder: Path, seed: int, number: int) -> Path:
        """Change one file of a copy of the original folder, by the seed and the number."""
        random = Random(f"{self.name}-{seed}-{number}")
        name = random.choice(sorted(self.files))
        path = folder / name
        path.write_bytes(self.files[name](random, path.read_bytes()))
        for other in self.removed if number % 2 else ():
            (folder / other).unlink()
        return path


def make_originals(root: Path) -> None:
    """A folder of valid files for each kind; the same every time, so that a seed is enough."""
    run = train_reference(root / "metrics", **SETTINGS)
    for name in (GENERATOR_FILE, STATE, STATE_BEFORE):
        _forget_time(run / name)
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = {"seconds", "seconds_left", "images_per_second"}
    for row in log:
        row |= dict.fromkeys(timed & row.keys(), 1.0)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    shutil.copytree(run, root / "state")
    for kind, files in {
        "generator": (GENERATOR_FILE,),
        "judge": (GENERATOR_FILE, JUDGE_FILE),
        "ONNX export": (GENERATOR_FILE,),
        "data set": (GENERATOR_FILE,),
        "config": (CONFIG_FILE,),
    }.items():
        (root / kind).mkdir()
        for name in files:
            shutil.copy(run / name, root / kind)
    must_work("export", root / "ONNX export" / GENERATOR_FILE)
    must_work(*_write_set(root / "data set", 0)[0])
    _draw_pictures(root / "pictures")


def _forget_time(path: Path) -> None:
    """Set the training time in a header to a fixed number."""
    header, about, tensors = split_safetensors(path)
    own = json.dumps({**about, "seconds": 1.0}, sort_keys=True)
    text = json.dumps({"__metadata__": {"cgan": own}, **header}).encode()
    text += b" " * (-len(text) % 8)  # the tensors are aligned
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)


def _draw_pictures(root: Path) -> None:
    """Two classes of small pictures in several formats and modes."""
    random = np.random.default_rng(0)
    modes = {"a.png": "RGB", "b.png": "P", "c.png": "RGBA", "d.png": "I;16", "e.jpg": "RGB"}
    modes |= {"f.gif": "P", "g.bmp": "L", "h.webp": "RGB", "i.tif": "L", "j.ppm": "RGB"}
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for name, mode in modes.items():
            image = Image.fromarray(random.integers(0, 256, (12, 14, 3), np.uint8))
            if mode == "I;16":
                image = Image.fromarray(random.integers(0, 65_536, (12, 14), np.uint16))
            else:
                image = image.convert(mode)
            image.save(root / label / name)


def _use_generator(folder: Path, number: int) -> list[list[str]]:
    model = str(folder / GENERATOR_FILE)
    words = [["info", model, *(["--json"] if number % 2 else [])]]
    words.append(["generate", model, "-n", "1", "--out", str(folder / "out" / "")])
    return [*words, *(_evaluate(model) if number % 10 == 0 else [])]


def _evaluate(model: str) -> list[list[str]]:
    html = str(Path(model).parent / "report.html")
    return [["evaluate", model, "--data", "digits", "--per-class", "2", "--html", html]]


def _verify(folder: Path, number: int) -> list[list[str]]:
    model, out = str(folder / GENERATOR_FILE), str(folder / "out.png")
    return [["generate", model, "-n", "1", "--digit", "3", "--verify", "--out", out]]


def _draw(folder: Path, number: int) -> list[list[str]]:
    return [["generate", str(folder / GENERATOR_FILE), "-n", "1", "--out", str(folder / "out.png")]]


def _resume(folder: Path, number: int) -> list[list[str]]:
    more = ("--images", "192", "--set", "control_per_class=0")
    return [["train", "--resume", "--out", str(folder), *more]]


def _use_log(folder: Path, number: int) -> list[list[str]]:
    return _resume(folder, number) if number % 2 else _evaluate(str(folder))


def _read_config(folder: Path, number: int) -> list[list[str]]:
    return [["train", str(folder / CONFIG_FILE), "--dry-run"]]


def _train_on(folder: Path, number: int) -> list[list[str]]:
    more = ("--skip-broken",) if number % 2 else ()
    budget = ("--images", "8", "--batch-size", "4", "--model", "mlp", "--size", "8")
    quiet = ("--set", "control_per_class=0", "--set", "eval_every_images=0", "--device", "cpu")
    out = str(folder.parent / "run")
    return [["train", "--data", str(folder), "--out", out, *budget, *quiet, *more]]


def _write_set(folder: Path, number: int) -> list[list[str]]:
    more = ("--format", "webdataset", "--out", str(folder / "set"))
    return [["generate", str(folder / GENERATOR_FILE), "--count", "6", *more]]


PICTURES = {
    f"{label}/{name}": mutate_picture
    for label in ("cat", "dog")
    for name in ("a.png", "b.png", "c.png", "d.png", "e.jpg", "f.gif", "g.bmp", "h.webp", "i.tif")
}
KINDS = (
    Kind("generator", 2_500, {GENERATOR_FILE: mutate_safetensors}, _use_generator),
    Kind("judge", 1_000, {JUDGE_FILE: mutate_safetensors}, _verify),
    Kind("state", 1_500, {STATE: mutate_safetensors}, _resume, (STATE_BEFORE,)),
    Kind("ONNX export", 1_000, {"generator.onnx": mutate_onnx}, _draw),
    Kind("config", 1_500, {CONFIG_FILE: mutate_yaml}, _read_config),
    Kind("pictures", 1_500, PICTURES, _train_on),
    Kind(
        "data set", 500,
        {"set/dataset.json": mutate_json, "set/shard-00000.csv": mutate_bytes}, _write_set,
    ),
    Kind("metrics", 500, {"metrics.jsonl": mutate_lines}, _use_log),
)  # fmt: skip
