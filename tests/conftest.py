"""Fixtures: a separate cache, small data, two small runs, and the shell in this process."""

from __future__ import annotations

import io
import logging
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

# One thread per pytest-xdist worker, also in subprocesses. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import cgan
from cgan.config_io import load_config
from cgan.evaluation import judge_training as judges
from cgan.evaluation.judge import Classifier, Judge, JudgeHeader
from cgan.models import build_pair
from cgan.storage.checkpoint import GENERATOR, new_header, save_tensors
from cgan.training import plan


def mnist_folder() -> Path | None:
    named = os.environ.get("CGAN_DATA")
    return Path(named) if named and (Path(named) / "MNIST" / "raw").is_dir() else None


SLOWEST = (
    "test_examples", "test_trainer", "test_distributed", "test_cli", "test_examples_in_docs",
    "test_wrap", "test_steer", "test_reliability", "test_page", "test_augment_test",
)  # fmt: skip
"""Files that take longest. They come first: a worker that gets one of them last is waited for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs data or hardware that is not here, and begin with the slowest files."""
    no_mnist = pytest.mark.skip(reason="no MNIST files in the folder that CGAN_DATA names")
    no_cuda = pytest.mark.skip(reason="no CUDA device on this machine")
    for item in items:
        if item.get_closest_marker("mnist") and mnist_folder() is None:
            item.add_marker(no_mnist)
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(no_cuda)
    place = {name: index for index, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(SLOWEST)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Judges and downloads of tests never touch the user's."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CGAN_CACHE"] = str(folder)
    os.environ["WANDB_MODE"] = "offline"
    os.environ["HF_HOME"], os.environ["HF_HUB_OFFLINE"] = str(folder / "hf"), "1"
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_power_cuts() -> Iterator[None]:
    """fsync does nothing: it only matters when the power fails, and a run calls it ten times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def quick_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges that tests train on the way see fewer images than by default."""
    quick = partial(judges.train_judge, images=640)
    monkeypatch.setattr(judges, "train_judge", quick)


@pytest.fixture(autouse=True)
def no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of photographs have no teacher: fitting it takes seconds, and it is tested by itself."""
    monkeypatch.setattr(plan, "find_teacher", lambda _: None)


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    """The shell stops propagation to the root logger, which would hide messages from caplog."""
    yield
    logging.getLogger("cgan").propagate = True


SMALL = {"model.width": 64, "control_per_class": 0, "device": "cpu"}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> cgan.Run:
    """A conditional run on the real digits, a second long, that obeys: 98 % was measured."""
    config = load_config("digits-mlp", {**SMALL, "images": "6k", "log_every_images": "3k"})
    return cgan.train(config, tmp_path_factory.mktemp("runs") / "digits-mlp")


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> cgan.Run:
    overrides = {**SMALL, "images": "2k", "model.conditional": False}
    config = load_config("digits-mlp", overrides)
    return cgan.train(config, tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="session")
def trained_plain_run(tmp_path_factory: pytest.TempPathFactory) -> cgan.Run:
    """A plain run on the real digits, long enough to draw each of them."""
    overrides = {
        **SMALL, "model.width": 128, "images": "12k", "model.conditional": False,
        "sample_every_images": "1M",
    }  # fmt: skip
    config = load_config("digits-mlp", overrides)
    return cgan.train(config, tmp_path_factory.mktemp("runs") / "plain-gan")


@pytest.fixture(scope="session")
def steered_run(trained_plain_run: cgan.Run) -> cgan.Run:
    """The same GAN with class control."""
    overrides = {
        "images": "6k",
        "model.backbone": "mlp",
        "model.width": 64,
        "control_per_class": 50,
    }
    return cgan.steer(trained_plain_run.folder, device="cpu", overrides=overrides)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``shell("train", ...)`` runs the command in an empty folder and gives its outcome."""
    from cgan.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="cgan")

    return run


def open_image(path: Path | str) -> Image.Image:
    """Read an image and close its file."""
    with Image.open(path) as image:
        image.load()
        return image.copy()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder of colour pictures: cats bright, dogs dark, 12 of each, of several sizes."""
    return make_pets(tmp_path / "pets")


def make_pets(
    root: Path, side: int = 18, count: int = 12, classes: dict[str, int] | None = None
) -> Path:
    """One folder per class, each with images of its own brightness and several sizes."""
    random = np.random.default_rng(0)
    for name, level in (classes or {"cat": 200, "dog": 50}).items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            shape = (side + index % 3, side + index % 2, 3)
            noise = random.integers(-40, 40, shape)
            pixels = (level + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:02}.png")
    return root


def write_parquet(root: Path, columns: dict[str, Any], split: str = "train") -> str:
    """One split of a data set; the name by which it is loaded."""
    import datasets

    root.mkdir(exist_ok=True)
    features = {name: feature for name, (feature, _) in columns.items()}
    rows = {name: values for name, (_, values) in columns.items()}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    table.to_parquet(str(root / f"{split}-00000-of-00001.parquet"))
    return f"hf-datasets:{root}"


def columns_of(folder: Path, **others: Any) -> dict[str, Any]:
    """The images and labels of a folder of class folders, last image first."""
    import datasets

    paths = sorted(folder.glob("*/*"), reverse=True)
    names = sorted({path.parent.name for path in paths})
    images = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    labels = [names.index(path.parent.name) for path in paths]
    return {
        "img": (datasets.Image(), images),
        "label": (datasets.ClassLabel(names=names), labels),
        **others,
    }


def write_shards(folder: Path, pets: Path, count: int = 4, seed: int = 0) -> str:
    """The images of class folders as WebDataset's shards, in random order; their pattern."""
    paths = sorted(pets.glob("*/*"))
    random.Random(seed).shuffle(paths)
    folder.mkdir(exist_ok=True)
    for shard in range(count):
        files = []
        for index, path in enumerate(paths[shard::count]):
            files += [(f"{index:03}.png", path.read_bytes())]
            files += [(f"{index:03}.cls", path.parent.name.encode())]
        write_tar(folder / f"{shard:03}.tar", files)
    return str(folder / f"{{000..{count - 1:03}}}.tar")


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_idx(root: Path, kind: str, count: int = 256) -> Path:
    """Random pictures in the files in which torchvision looks for the MNIST family."""
    raw = root / kind / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        head = np.array([0x803, count, 28, 28], dtype=">u4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = np.array([0x801, count], dtype=">u4").tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return root


def save_untrained_judge(source: str, data_dir: Path, cache: Path) -> None:
    """Put an untrained judge of a data set into a cache, where evaluations find it."""
    dataset = cgan.load_pictures(source, data_dir=data_dir)
    digest, shape = dataset.digest(), dataset.image_shape
    header = JudgeHeader(dataset.name, digest, dataset.classes, shape, 0.1, len(dataset))
    judge = Judge(Classifier(shape, len(dataset.classes)), header)
    judge.save(cache / "judges" / f"{dataset.name}-{digest[:16]}.safetensors")


def randomise(network: nn.Module) -> nn.Module:
    """Weights that make each layer matter: no running moment, gain or bias is 0 or 1."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture
def make_generator(tmp_path: Path) -> Callable[..., cgan.Sampler]:
    """``make_generator(classes, image_shape, backbone)`` writes a generator file and loads it."""

    def make(
        classes: tuple[str, ...] = ("cat", "dog"),
        image_shape: tuple[int, int, int] = (1, 8, 8),
        backbone: str = "mlp",
        conditional: bool = True,
        measured: dict[str, Any] | None = None,
        **model: Any,
    ) -> cgan.Sampler:
        torch.manual_seed(0)
        model = {"generator_label": "cbn", **model}
        pair = build_pair(
            backbone, image_shape=image_shape, num_classes=len(classes) if conditional else None,
            width=16, latent_dim=8, **model,
        )  # fmt: skip
        config = cgan.load_config("digits-mlp", {
            "model.backbone": backbone, "model.width": 16, "model.latent_dim": 8,
            "model.conditional": conditional,
            **{f"model.{key}": model[key] for key in model},
        })  # fmt: skip
        header = {
            **new_header(GENERATOR), "config": config.model_dump(mode="json"), "data": "pets",
            "classes": list(classes), "image_shape": list(image_shape), "images_seen": 100,
            "seconds": 6.0, "steps": 10, "measured": measured or {}, "versions": {},
        }  # fmt: skip
        path = tmp_path / "pets" / "generator.safetensors"
        save_tensors(path, randomise(pair.generator).state_dict(), header)
        return cgan.load(path)

    return make
