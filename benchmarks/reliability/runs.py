"""Small runs on the bundled digits, and how the campaign looks at their files."""

from __future__ import annotations

import csv
import json
import logging
import os
import tarfile
from pathlib import Path
from typing import Any

from benchmarks.reliability.children import must_work
from cgan.storage.paths import BEST_FILE, GENERATOR_FILE, STATE_FILES

FINAL_FILES = (STATE_FILES[0], GENERATOR_FILE, BEST_FILE)


def train_words(folder: Path, **settings: object) -> list[str]:
    """The words of ``cgan train`` for a small run that logs, samples, evaluates and saves often."""
    chosen = {
        "images": 1_280, "log_every_images": 320, "sample_every_images": 640,
        "eval_every_images": 640, "save_every_seconds": 0.05, "control_per_class": 10,
        "model.width": 32, **settings,
    }  # fmt: skip
    assigned = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    return ["train", "digits-mlp", "--device", "cpu", "--out", str(folder), *assigned]


def cache_judge(work: Path) -> None:
    """Put a quickly trained judge of the digits into a cache beside the folder, once."""
    from cgan.data import load_pictures
    from cgan.evaluation.judge_training import train_judge

    cache = work.with_name("cache")
    os.environ["CGAN_CACHE"] = str(cache)
    logging.getLogger("cgan").setLevel(logging.WARNING)
    if cache.exists():
        return
    digits, held_out = (load_pictures("digits", split) for split in ("train", "test"))
    digest = digits.digest()
    judge = train_judge(digits, held_out, digest, images=1_280)
    judge.save(cache / "judges" / f"digits-{digest[:16]}.safetensors")


def train_reference(folder: Path, **settings: object) -> Path:
    """A run that is never stopped, in this process."""
    must_work(*train_words(folder, **settings))
    return folder


def differences(folder: Path, reference: Path) -> list[str]:
    """How the final files of two runs differ; the time that they took does not count."""
    found = []
    for name in FINAL_FILES:
        if not (folder / name).exists():
            found.append(f"{name} is missing")
        elif _without_seconds(folder / name) != _without_seconds(reference / name):
            found.append(f"{name} differs from that of a run that was never stopped")
    return found


def split_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The header of a safetensors file, our own header in it, and the bytes of all tensors."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    return header, json.loads(header.pop("__metadata__")["cgan"]), content[end:]


def _without_seconds(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    header, about, tensors = split_safetensors(path)
    about.pop("seconds")
    return header, about, tensors


def temporary_files(folder: Path) -> list[str]:
    """Files that a write has left behind. A lock file stays; nobody holds it."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.name[0] == "." and path.name != ".lock") or path.stem == "state-next"
    )


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file in a folder, or a folder that it is in, begins with a dot."""
    return any(part[0] == "." for part in path.relative_to(folder).parts)


def unreadable_files(folder: Path) -> list[str]:
    """Visible files that are not complete; the last line of a log may be."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_hidden(path, folder):
            try:
                _read(path)
            except Exception as error:  # each reader has its own
                found.append(f"{path.relative_to(folder)} is not complete: {error}")
    return found


def _read(path: Path) -> None:
    """Read a whole file by its type; raises if it is not complete."""
    import numpy as np
    import onnx
    import yaml
    from PIL import Image
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        load_file(path)
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".yaml":
        yaml.safe_load(path.read_bytes())
    elif path.suffix == ".jsonl":
        for line in path.read_text().splitlines()[:-1]:
            json.loads(line)
    elif path.suffix == ".csv":
        rows = list(csv.reader(path.read_text().splitlines()))
        if {len(row) for row in rows} != {4}:
            raise ValueError("a row is cut")
    elif path.suffix == ".tar":
        with tarfile.open(path) as archive:
            archive.getmembers()
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            for name in arrays:
                arrays[name]
    elif path.suffix == ".onnx":
        onnx.load(path)
    elif path.suffix == ".html" and "</html>" not in path.read_text():
        raise ValueError("it is cut")
