"""The commands whose changes on disk fail, with what exists before each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.reliability.children import Child, command
from benchmarks.reliability.faults import Faults
from benchmarks.reliability.runs import train_reference, train_words
from cgan.storage.paths import has_state

SETTINGS = {
    "images": 128, "log_every_images": 64, "sample_every_images": 128, "eval_every_images": 128,
    "save_every_seconds": 1e-9, "control_per_class": 2,
}  # fmt: skip
SHARD_SIZE = 8
"""Images per shard here, so that a data set has several."""
SLOW = {"export", "evaluate --html", "train"}
"""Commands that ``--minutes 0`` leaves out."""


@dataclass
class Scene:
    """A command whose changes fail.

    Attributes:
        what: its row in the table.
        words: the words of the command that writes into a folder.
        begun: a folder with files that exist before; None for an empty one.
        trains: whether it writes a run, whose files may also hold a state in between.
    """

    what: str
    words: Callable[[Path], list[str]]
    begun: Path | None = None
    trains: bool = False
    calls: int = 0
    reference: Path | None = None

    def start(self, folder: Path) -> None:
        """Fill the folder with what exists before."""
        if self.begun is None:
            folder.mkdir()
        else:
            shutil.copytree(self.begun, folder)

    def again(self, folder: Path) -> list[str]:
        """The words to try again; a run that holds a state is resumed."""
        words = self.words(folder)
        resumes = self.trains and has_state(folder / "run") and "--resume" not in words
        return [*words, "--resume"] if resumes else words


def make_scenes(work: Path) -> list[Scene]:
    """The commands, with what exists before each."""
    begun = work / "begun"
    half = train_reference(begun / "resume" / "run", **{**SETTINGS, "images": 64})
    model = shutil.copytree(half, work / "model")
    old = begun / "old"
    old.mkdir()
    for name in ("grid.png", "model.onnx", "report.html"):
        (old / name).write_bytes(b"old")
    run_words = partial(_run_words, [])
    scenes = [
        Scene("train", run_words, trains=True),
        Scene("train --resume", partial(_run_words, ["--resume"]), begun / "resume", trains=True),
    ]
    single = {
        "generate --out grid.png": ("generate", "-n", "2", "--out", "grid.png"),
        "generate --out folder": ("generate", "-n", "2", "--digit", "3", "--out", "drawn"),
        "export": ("export", "--out", "model.onnx"),
        "evaluate --html": ("evaluate", "--per-class", "5", "--html", "report.html"),
    }
    scenes += [Scene(what, partial(_words, model, words), old) for what, words in single.items()]
    for format in ("webdataset", "npz", "folder"):
        words = ("generate", "--format", format, "--out", "set", "--count")
        smaller = begun / format
        Child(in_small(_words(model, (*words, "10"), smaller)), work / "said.txt").wait()
        what = f"generate --count --format {format}"
        scenes.append(Scene(what, partial(_words, model, (*words, "18")), smaller))
    return scenes


def _run_words(more: list[str], folder: Path) -> list[str]:
    return [*train_words(folder / "run", **SETTINGS), *more]


def _words(model: Path, words: tuple[str, ...], folder: Path) -> list[str]:
    """The words of a command that writes into ``folder``: its last file name is put there."""
    at = words.index("--html" if "--html" in words else "--out") + 1
    return [words[0], str(model), *words[1:at], str(folder / words[at]), *words[at + 1 :]]


def in_small(words: list[str], faults: Faults | None = None) -> Callable[[], None]:
    """The action of a command, with faults from its start on."""

    def run() -> None:
        from cgan.sampling import write_dataset
        from cgan.training import monitor

        write_dataset.SHARD_SIZE, monitor.EVAL_IMAGES = SHARD_SIZE, 100
        if faults is not None:
            faults.install()
        command(*words)()

    return run
