"""A folder that was read before is not decoded again, unless its files have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cgan.data import ImageDataset, image_cache, load, load_pictures
from cgan.data.image_file import decode, read_image
from cgan.errors import DataError
from cgan.storage.paths import cache_folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(20):
            pixels = random.integers(0, 256, (12, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{index}.png")
    return tmp_path / "pets"


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded; the cache is empty, and 20 images are many."""
    files: list[Path] = []

    def opened(path: Path):  # type: ignore[no-untyped-def]
        files.append(path)
        return decode(path)

    def read(path: Path, *others: Any) -> torch.Tensor:
        files.append(path)
        return read_image(path, *others)

    monkeypatch.setenv("CGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_cache, "decode", opened)
    monkeypatch.setattr("cgan.data.image_folder.read_image", read)
    for module in (image_cache, load):
        monkeypatch.setattr(module, "MIN_IMAGES", 20)
    return files


def read_train(root: Path) -> ImageDataset:
    dataset = load_pictures(str(root))
    assert isinstance(dataset, ImageDataset)
    return dataset


def test_the_second_time_nothing_is_decoded(pets: Path, decoded: list[Path]) -> None:
    first = read_train(pets)
    assert len(decoded) == 40 + len(first)
    decoded.clear()
    second = read_train(pets)
    assert decoded == []
    assert torch.equal(second.images, first.images)
    assert second.digest() == first.digest()
    assert second.classes == first.classes
    second.images[0] = 0  # a copy, not the file
    assert torch.equal(read_train(pets).images, first.images)


@pytest.mark.usefixtures("decoded")
def test_what_a_killed_process_left_is_removed(pets: Path) -> None:
    read_train(pets)
    (written,) = cache_folder().joinpath("images").glob("*-train.safetensors")
    left = written.with_name(f".{written.name}.{'0' * 16}")
    left.touch()
    os.utime(left, (0, 0))
    written.unlink()
    read_train(pets)
    assert written.exists()
    assert not left.exists()


def test_small_folders_are_not_cached(
    pets: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (image_cache, load):
        monkeypatch.setattr(module, "MIN_IMAGES", 41)
    read_train(pets)
    assert not (tmp_path / "cache").exists()


def test_changed_files_are_decoded_again(pets: Path, decoded: list[Path]) -> None:
    first = read_train(pets)
    decoded.clear()
    changed, moved = pets / "cat" / "3.png", pets / "dog" / "5.png"
    Image.new("RGB", (8, 12), "red").save(changed)
    moved.rename(pets / "dog" / "renamed.png")
    second = read_train(pets)
    assert decoded[0] == changed
    assert set(decoded[1:]) < {*pets.glob("*/*.png")}
    assert second.digest() != first.digest()
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    splits = [load_pictures(str(pets), split) for split in ("train", "validation", "test")]
    images = torch.cat([split.take(torch.arange(len(split))) for split in splits])
    assert (images == red).flatten(1).all(1).sum() == 1


def test_another_size_is_read_again(pets: Path, decoded: list[Path]) -> None:
    read_train(pets)
    decoded.clear()
    larger = load_pictures(str(pets), size=12)
    assert larger.image_shape == (3, 12, 12)
    assert len(decoded) == len(larger)


def test_a_broken_file_stays_broken(pets: Path, decoded: list[Path]) -> None:
    read_train(pets)
    (pets / "cat" / "0.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(DataError, match=r"0\.png cannot be read as an image"):
            read_train(pets)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no safetensors",
        lambda content: content[:200],
        lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    ],
)
def test_a_damaged_cache_is_written_anew(
    damage: Callable[[bytes], bytes], pets: Path, decoded: list[Path], tmp_path: Path
) -> None:
    expected = read_train(pets)
    files = list((tmp_path / "cache" / "images").iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    decoded.clear()
    assert torch.equal(read_train(pets).images, expected.images)
    assert len(decoded) == 40 + len(expected)
    decoded.clear()
    read_train(pets)
    assert decoded == []


def test_another_pillow_may_decode_otherwise(
    pets: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_train(pets)
    decoded.clear()
    monkeypatch.setattr(image_cache, "VERSION", "1, Pillow 99")
    read_train(pets)
    assert len(decoded) > 40


def test_an_unwritable_cache_is_no_error(
    pets: Path, decoded: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CGAN_CACHE", str(tmp_path / "file"))
    assert len(read_train(pets))


def test_without_memory_for_two_copies_only_the_facts_are_cached(
    pets: Path, decoded: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "free_memory", lambda: 1_000)
    read_train(pets)
    (facts,) = (tmp_path / "cache" / "images").iterdir()
    assert facts.name.endswith("-facts.safetensors")


@pytest.mark.parametrize(("level", "shown"), [("INFO", True), ("WARNING", False)])
def test_only_the_command_line_shows_progress(
    level: str,
    shown: bool,
    pets: Path,
    decoded: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(level, "cgan")
    monkeypatch.setattr("cgan.runtime.progress.LINE_SECONDS", 0.0)
    read_train(pets)
    assert ("40 of 40 images" in capsys.readouterr().err) == shown
