"""Images are mirrored only where a mirrored image shows the same class."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import cgan
from cgan.data import ImageDataset
from cgan.evaluation import judge_training
from cgan.evaluation.judge_training import choose_augment, may_mirror
from cgan.storage.images import save_png

SIDE = 16


def draw(kinds: tuple[str, ...], count: int = 400, seed: int = 0) -> ImageDataset:
    """Arrows to the left or right, or rings and bars, in random colours at random places."""
    random = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    labels = torch.arange(count) % len(kinds)
    images = torch.empty(count, 3, SIDE, SIDE)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = torch.randint(6, 10, (2,), generator=random).tolist()
        across, down = x - column, (y - row).abs()
        shape = {
            "left": (across.abs() < 4) & (down <= across + 4) & (down < 4),
            "right": (across.abs() < 4) & (down <= 4 - across) & (down < 4),
            "ring": ((across.square() + down.square()).sqrt() - 4).abs() < 1.2,
            "bar": (down < 2) & (across.abs() < 5),
        }[kinds[label]]
        ground, own = torch.rand(2, 3, 1, 1, generator=random)
        image[:] = torch.where(shape, own, ground) * 255
    return ImageDataset("shapes", images.round().to(torch.uint8), labels, kinds)


@pytest.fixture(autouse=True)
def shorter_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrows are learned soon."""
    monkeypatch.setattr(judge_training, "MIRROR_SHOWN", 3_000)


def test_arrows_are_not_mirrored_and_it_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cgan")
    assert not may_mirror(draw(("left", "right")))
    assert "mirrored ones show other classes" in caplog.text
    assert len(choose_augment(draw(("left", "right")), mirror=False).augmentations) == 1  # type: ignore[attr-defined]


def test_rings_and_bars_are() -> None:
    data = draw(("ring", "bar"))
    assert may_mirror(data)
    assert len(choose_augment(data, mirror=True).augmentations) == 2  # type: ignore[attr-defined]


def test_what_was_found_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    data = draw(("left", "right"), seed=1)
    assert not may_mirror(data)
    monkeypatch.setattr(judge_training, "train_classifier", None)
    assert not may_mirror(data)


def test_large_images_are_reduced_and_one_class_may_always_be_mirrored() -> None:
    data = draw(("left", "right"), seed=4)
    large = data.images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert not may_mirror(ImageDataset("large", large, data.labels, data.classes))
    assert may_mirror(ImageDataset("one", data.images, 0 * data.labels, ("arrow",)))


def test_few_images_cannot_tell() -> None:
    assert may_mirror(draw(("left", "right"), count=8, seed=2))


def test_training_on_arrows_does_not_mirror_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = draw(("left", "right"), seed=3)
    for index, image in enumerate(data.images):
        folder = tmp_path / "arrows" / data.classes[int(data.labels[index])]
        folder.mkdir(parents=True, exist_ok=True)
        save_png(image, folder / f"{index}.png")
    caplog.set_level(logging.INFO, "cgan")
    small = {"data.source": str(tmp_path / "arrows"), "model.width": 4, "device": "cpu"}
    for name, augment in (("auto", ["auto"]), ("asked", ["auto", "mirror"])):
        caplog.clear()
        changes = {**small, "images": 32, "control_per_class": 0, "augment": augment}
        cgan.train(cgan.load_config("folder-dcgan", changes), tmp_path / name)
        mirrored = "augmentation: mirror, hue, translation" in caplog.text
        assert mirrored is (name == "asked")
        assert mirrored or "augmentation: hue, translation" in caplog.text
