"""Every Python and shell example in README, CONTRIBUTING and docs runs, with small budgets."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import cgan
from benchmarks.__main__ import app as benchmarks_app
from cgan.cli import app
from cgan.config_io import load_config
from cgan.evaluation import augment_test, classifier_training, invert, judge_training, sections
from cgan.sampling.write_dataset import write_dataset
from cgan.storage.checkpoint import Latents
from cgan.storage.images import save_png
from cgan.training import plan as plan_of_runs
from cgan.training import trainer
from tests.conftest import (
    columns_of,
    make_pets,
    save_untrained_judge,
    write_idx,
    write_parquet,
    write_shards,
)

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON_PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("python", "index", "sharing")),
]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?: {4}|\t)?(?:\S.* && )?((?:cgan|python -m benchmarks) [^#\n]*)", re.M)
SHORT = ("images=64", "eval_every_images=0", "control_per_class=0", "model.width=8")


ONCE = ("augment-test", "steer")
"""Commands that take seconds: the first example runs, and the options of the others are read."""


def python_examples() -> list[Any]:
    found = []
    for page in PYTHON_PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 1
            found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


def shell_examples() -> list[str]:
    found: dict[str, None] = {}
    for page in PAGES:
        for line in COMMAND.findall(page.read_text()):
            for command in line.split(" && "):
                found[command.strip()] = None
    return [command for command in found if "completion" not in command]


def shorten(command: str) -> list[str]:
    """The words of a command, with a small budget."""
    words = shlex.split(command.replace("1000000", "100"))[1:]
    if words[0] in ("train", "steer") and "--dry-run" not in words:
        for budget in {"--minutes", "--images"} & set(words):
            del words[words.index(budget) : words.index(budget) + 2]
        words += [word for change in SHORT for word in ("--set", change)]
    if words[0] == "steer":  # runs/plain draws the bundled digits here
        words = [word for word in words if word not in ("--data", "mnist")]
    if words[0] in ("evaluate", "compare"):
        words += ["--per-class", "5"]
    if words[0] == "augment-test":
        words += ["--seeds", "2"]
    if words[0] == "push":
        words += ["--dry-run", "--license", "mit"]
    loose = {"control=0.99": "control=0", "fid=2": "control=0", "hf-hub:owner/pets": "runs/pets"}
    return [loose.get(word, word) for word in words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples expect: runs, a folder of images, MNIST's files and a judge of them."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("my-pictures", "my-images"):
        make_pets(root / name, classes={"cat": 200, "dog": 50, "lynx": 120})
    make_pets(root / "split-pictures" / "train")
    make_pets(root / "split-pictures" / "test", side=20)
    shutil.make_archive(str(root / "my-pictures"), "zip", root / "my-pictures")
    shutil.copytree(root / "my-pictures", root / "table" / "images")
    rows = [f"{path.relative_to(root / 'table')},{path.parent.name}"
            for path in (root / "table").rglob("*.png")]  # fmt: skip
    (root / "table" / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
    write_parquet(root / "parquet", columns_of(root / "my-pictures"))
    for place, level in (("indoors", 90), ("outdoors", 160)):
        for animal in ("cat", "dog"):
            make_pets(root / "two-labels" / animal, classes={place: level})
    for status, level in (("sick", 90), ("well", 160)):
        for number in range(10):
            make_pets(root / "patients" / status, count=3, classes={f"{status}-{number}": level})
    make_pets(root / "kaggle", count=24, classes={"train": 100})
    rows = [f"{index:02},{'pug' if index % 2 else 'beagle'}" for index in range(24)]
    (root / "kaggle" / "train.csv").write_text("\n".join(["id,breed", *rows]))
    make_pets(root / "stylegan", classes={"00000": 90, "00001": 180})
    labels = [[f"{chunk:05}/{index:02}.png", index % 2] for chunk in (0, 1) for index in range(12)]
    (root / "stylegan" / "dataset.json").write_text(json.dumps({"labels": labels}))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(root / "arrays.npz", images=images, labels=np.arange(60) % 3)
    (root / "array-files").mkdir()
    np.save(root / "array-files" / "images.npy", images)
    np.save(root / "array-files" / "labels.npy", np.arange(60) % 3)
    write_shards(root / "shards", root / "my-pictures")
    shutil.copytree(root / "my-pictures", root / "half-labelled")
    (root / "half-labelled" / "lynx").rename(root / "half-labelled" / "_unlabelled")
    write_idx(root / "data", "MNIST")
    write_idx(root / "data", "FashionMNIST")
    save_untrained_judge("mnist", root / "data", root / "cache")
    quiet = {**dict(change.split("=") for change in SHORT), "device": "cpu"}
    pets = load_config("folder-dcgan", {**quiet, "data.source": str(root / "my-pictures")})
    plain = load_config("digits-mlp", {**quiet, "model.conditional": False})
    for name in ("pets", "folder-dcgan"):
        cgan.train(pets, root / "runs" / name)
    cgan.train(plain, root / "runs" / "plain")
    steered = {**quiet, "steer": str(root / "runs" / "plain"), "data.source": "digits"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_of_runs, "check_classes", lambda *_: None)  # that generator is untrained
        cgan.train(load_config("steer", steered), root / "runs" / "plain-steered")
    seven = cgan.load_pictures("mnist", data_dir=root / "data").take(torch.tensor([0]))[0]
    save_png(seven, root / "seven.png")
    Latents(torch.zeros(1, 64), torch.eye(10)[:1], tuple("0123456789")).save(
        root / "generated" / "seven-inverted.safetensors"
    )
    two = load_config("folder-dcgan", {**quiet, "data.source": str(root / "two-labels")})
    cgan.train(two, root / "runs" / "two-labels")
    write_dataset(cgan.load(root / "runs" / "pets"), root / "generated-set", 60)
    for name in ("conditional", "A", "B", "NAME"):
        cgan.train(load_config("digits-mlp", quiet), root / "runs" / name)
    return root


@pytest.fixture
def workplace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CGAN_DATA", str(folder / "data"))
    monkeypatch.setenv("CGAN_CACHE", str(folder / "cache"))
    quick = partial(judge_training.train_judge, images=640)
    monkeypatch.setattr(judge_training, "train_judge", quick)
    monkeypatch.setattr(sections, "train_judge", quick)
    monkeypatch.setattr(classifier_training, "default_images", lambda _: 128)
    monkeypatch.setattr(classifier_training, "MIN_IMAGES", 1)
    monkeypatch.setattr(classifier_training, "TIMED_STEPS", 1)
    monkeypatch.setattr(classifier_training, "LEAST_DRAWN", 100)
    monkeypatch.setattr(augment_test, "RECIPES", classifier_training.RECIPES[:6:5])
    monkeypatch.setattr(plan_of_runs, "check_classes", lambda *_: None)
    for name, count in (("STEPS", 2), ("HELD_OUT", 4)):
        monkeypatch.setattr(invert, name, count)
    monkeypatch.setattr(invert, "IMAGES", 256)
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))  # cgan show writes there
    return folder


def test_examples_are_found() -> None:
    assert len(shell_examples()) >= 30
    assert len(python_examples()) >= 9


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("command", shell_examples())
def test_shell_example(command: str) -> None:
    if command.startswith("python -m benchmarks"):
        name = command.split()[3]
        assert CliRunner().invoke(benchmarks_app, [name, "--help"]).exit_code == 0
        return
    words = shorten(command)
    if words[0] in ONCE and command != next(c for c in shell_examples() if words[0] in c):
        group: Any = typer.main.get_command(app)
        with group.make_context("cgan", words) as context:
            _, subcommand, rest = group.resolve_command(context, words)
            subcommand.make_context(words[0], rest, parent=context)
        return
    result = CliRunner().invoke(app, words, prog_name="cgan")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("code", python_examples())
def test_python_example(code: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short_config(name: str, *rest: Any, **named: Any) -> cgan.Config:
        config = load_config(name, *rest, **named)
        model = config.model.model_copy(update={"width": 8})
        return config.model_copy(update={"images": 64, "eval_every_images": 0, "model": model})

    monkeypatch.setattr(trainer, "load_config", short_config)
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})
