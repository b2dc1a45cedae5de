"""The folder ``_unlabelled``: which images it adds, and how training mixes them in."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

import cgan
from cgan.config import DataConfig
from cgan.data import (
    ImageDataset,
    Loader,
    load_pictures,
    load_split,
    load_splits,
    load_training_split,
)
from cgan.data.image_folder import scan_folder
from cgan.data.loader import Joined, alternate
from cgan.data.splits import folder_split_indices
from cgan.errors import ConfigError, RunError
from cgan.runtime.distributed import World
from tests.conftest import make_pets


@pytest.fixture
def half_labelled(tmp_path: Path) -> Path:
    """12 images of each of two classes, and 30 without a class."""
    root = make_pets(tmp_path / "pets")
    make_pets(tmp_path / "more", count=30, classes={"_unlabelled": 120})
    shutil.move(tmp_path / "more" / "_unlabelled", root)
    return root


def test_unlabelled_images_are_no_class_and_in_no_split(half_labelled: Path) -> None:
    config = DataConfig(source=str(half_labelled), size=8)
    parts = [load_split(config, split) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 24
    for part in parts:
        assert part.classes == ("cat", "dog")
        assert set(part.labels.tolist()) <= {0, 1}
    _, unlabelled, _ = load_training_split(config)
    assert unlabelled is not None
    assert unlabelled.classes == ("cat", "dog")
    assert unlabelled.labels.unique().tolist() == [-1]
    assert 18 <= len(unlabelled) < 30  # without those that would be held out

    together = load_splits(config).unlabelled
    assert together is not None
    assert together.digest() == unlabelled.digest()

    shutil.rmtree(half_labelled / "_unlabelled")
    assert load_training_split(config)[1] is None
    assert load_splits(config).unlabelled is None
    assert load_training_split(DataConfig(source="digits"))[1] is None
    labelled_only = load_split(config, "train")
    assert labelled_only.digest() == parts[0].digest()  # so judges and headers still fit


def test_a_copy_of_a_held_out_image_is_not_trained_on(half_labelled: Path) -> None:
    scanned = scan_folder(half_labelled)
    test = load_pictures(str(half_labelled), "test", memory_bytes=0)
    paths = [path for path in scanned.paths if path.parent.name != "_unlabelled"]
    for index, path in enumerate(paths):  # every labelled image again, without its label
        shutil.copy(str(path), half_labelled / "_unlabelled" / f"copy{index}.png")
    _, unlabelled, _ = load_training_split(DataConfig(source=str(half_labelled)))
    assert unlabelled is not None
    shape = scanned.image_shape
    held_out = {image.numpy().tobytes() for image in test.take(torch.arange(len(test)))}
    found = {image.numpy().tobytes() for image in unlabelled.take(torch.arange(len(unlabelled)))}
    assert held_out
    assert shape == unlabelled.image_shape
    assert not held_out & found


def test_beside_split_folders(half_labelled: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = half_labelled.parent / "split"
    shutil.copytree(half_labelled, root / "train")
    make_pets(root / "test", side=20)
    shutil.copytree(half_labelled / "_unlabelled", root / "test" / "_unlabelled")
    shutil.copytree(half_labelled / "_unlabelled", root / "_unlabelled")
    with caplog.at_level(logging.WARNING, "cgan"):
        _, unlabelled, _ = load_training_split(DataConfig(source=str(root)))
    assert unlabelled is not None
    assert len(unlabelled) > 40  # of 60, in train/ and beside it
    assert str(root / "test" / "_unlabelled") in caplog.text


def test_alternate() -> None:
    assert alternate(2, 2).tolist() == [0, 2, 1, 3]
    assert alternate(4, 2).tolist() == [0, 1, 4, 2, 3, 5]
    assert alternate(3, 1).tolist() == [0, 1, 2, 3]
    for labelled in range(1, 20):
        for others in range(1, labelled + 1):
            order = alternate(labelled, others)
            assert sorted(order.tolist()) == list(range(labelled + others))
            is_labelled = order < labelled
            assert (is_labelled[:-1] | is_labelled[1:]).all()


def numbered(first: int, count: int, label: int | None = None) -> ImageDataset:
    """Images of one pixel, numbered from ``first``."""
    images = torch.arange(first, first + count, dtype=torch.uint8).view(-1, 1, 1, 1)
    labels = torch.arange(count) % 2 if label is None else torch.full((count,), label)
    return ImageDataset("numbered", images, labels, ("even", "odd"))


@pytest.mark.parametrize(("others", "per_batch"), [(100, 4), (10, 4), (4, 2), (1, 1)])
def test_batches_of_labelled_and_unlabelled_images(others: int, per_batch: int) -> None:
    """Half of each batch at most; every image once before any is repeated."""
    labelled, unlabelled = numbered(0, 12), numbered(50, others, -1)
    loader = Loader(labelled, 8, unlabelled=unlabelled)
    batches = loader.batches()
    seen: list[int] = []
    for _ in range(30):
        images, labels = next(batches)
        numbers = ((images.flatten() + 1) * 127.5).round().int()
        assert (labels == -1).sum() == per_batch
        assert torch.equal(labels == -1, numbers >= 50)
        assert torch.equal(labels[labels >= 0], (numbers[labels >= 0] % 2).long())
        seen += numbers.tolist()
    for low, high, count in ((0, 50, 12), (50, 256, others)):
        one_kind = [number for number in seen if low <= number < high]
        for start in range(0, len(one_kind) - count + 1, count):
            assert max(Counter(one_kind[start : start + count]).values()) == 1

    resumed = loader.batches(images_seen=8 * 17)
    again = [next(resumed)[0] for _ in range(13)]
    fresh = loader.batches()
    expected = [next(fresh)[0] for _ in range(30)][17:]
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def test_labelled_and_unlabelled_images_have_orders_of_their_own() -> None:
    """With as many of both, the same pairs do not share every batch."""
    batches = Loader(numbered(0, 50), 2, unlabelled=numbered(50, 50, -1)).batches()
    pairs = [((next(batches)[0].flatten() + 1) * 127.5).round().int().tolist() for _ in range(50)]
    assert sum(other - own == 50 for own, other in pairs) < 25


def test_shards_and_folders_give_the_same_batches(half_labelled: Path) -> None:
    config = DataConfig(source=str(half_labelled), size=8)
    labelled, unlabelled, _ = load_training_split(config)
    on_disk = load_pictures(config.source, "train", size=8, memory_bytes=0)
    batches = Loader(labelled, 8, unlabelled=unlabelled).batches()
    shards = [
        Loader(on_disk, 8, workers=0, world=World(rank, 2), unlabelled=unlabelled).batches()
        for rank in range(2)
    ]
    assert isinstance(Loader(on_disk, 8, unlabelled=unlabelled).dataset, Joined)
    for _ in range(6):
        images, labels = next(batches)
        parts = [next(shard) for shard in shards]
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)
        assert all((part[1] >= 0).any() for part in parts)


def test_a_single_copy_of_a_test_image_is_not_trained_on(tmp_path: Path) -> None:
    """Unlabelled images are no class, which would keep at least one image for training."""
    root = make_pets(tmp_path / "pets", count=40)
    scanned = scan_folder(root)
    test = folder_split_indices(scanned.digests, scanned.labels, scanned.splits, "test", test=0.1)
    (root / "_unlabelled").mkdir()
    shutil.copy(str(scanned.paths[int(test[0])]), root / "_unlabelled" / "copy.png")
    assert load_training_split(DataConfig(source=str(root)))[1] is None


def test_a_run_with_unlabelled_images(half_labelled: Path, tmp_path: Path) -> None:
    changes = {
        "data.source": str(half_labelled), "data.size": 8, "images": 64, "batch_size": 8,
        "model.width": 8, "control_per_class": 0, "device": "cpu",
    }  # fmt: skip
    runs = [cgan.train(cgan.load_config("folder-dcgan", changes), tmp_path / "a")]
    plain = {**changes, "model.conditional": False}
    runs.append(cgan.train(cgan.load_config("folder-dcgan", plain), tmp_path / "plain"))
    assert all(run.images_seen == 64 for run in runs)
    assert cgan.load(tmp_path / "a").classes == ("cat", "dog")
    longer = cgan.load_config("folder-dcgan", {**changes, "images": 96})
    for path in sorted((half_labelled / "_unlabelled").iterdir())[:10]:
        path.unlink()
    with pytest.raises(RunError, match="add --data-changed"):
        cgan.train(longer, tmp_path / "a", resume=True)
    shutil.rmtree(half_labelled / "_unlabelled")
    cgan.train(cgan.load_config("folder-dcgan", changes), tmp_path / "b")
    a, b = (cgan.load(tmp_path / name).sample("cat", n=1, seed=0) for name in "ab")
    assert not torch.equal(a, b)


def test_a_discriminator_that_cannot_judge_them(half_labelled: Path, tmp_path: Path) -> None:
    changes = {"data.source": str(half_labelled), "model.discriminator_label": "concat"}
    with pytest.raises(ConfigError, match="remove the folder _unlabelled"):
        cgan.train(cgan.load_config("folder-dcgan", changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_joined_images() -> None:
    joined = Joined(numbered(0, 3), numbered(50, 2, -1))
    assert joined.labels.tolist() == [0, 1, 0, -1, -1]
    assert joined.take(torch.tensor([4, 0, 3])).flatten().tolist() == [51, 0, 50]
