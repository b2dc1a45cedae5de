"""Valid images that mean something else than they seem to, and what is said of them."""

from __future__ import annotations

import hashlib
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cgan
from cgan.data import ImageDataset, load_pictures, warn_about_classes
from cgan.data.dataset import f_statistic
from cgan.data.image_file import USUAL, Conversion, read_image
from cgan.data.image_folder import scan_folder
from cgan.data.scan_facts import describe_counts
from cgan.errors import ConfigError, DataError
from cgan.evaluation.invert import read_picture
from tests.conftest import make_pets


def save(pixels: np.ndarray, root: Path, name: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / name)
    return root / name


def deep(root: Path, maximum: int) -> Path:
    """Two classes of images of 16 bits whose largest value is this one."""
    random = np.random.default_rng(0)
    for index in range(12):
        pixels = random.integers(0, maximum // (1 + index % 2), (8, 8), np.uint16)
        pixels[0, 0] = maximum
        save(pixels, root, f"{'ab'[index % 2]}/{index}.png")
    return root


@pytest.mark.parametrize(
    ("maximum", "white"),
    [(255, 255), (900, 1_023), (4_095, 4_095), (9_999, 16_383), (40_000, 65_535)],
)
def test_16_bits_are_scaled_by_one_maximum_of_the_data(
    tmp_path: Path, maximum: int, white: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of a 12-bit camera were nearly black, and 0 to 255 in 16 bits was one black image."""
    with caplog.at_level("INFO", "cgan"):
        folder = scan_folder(deep(tmp_path, maximum))
    assert folder.conversion == Conversion(maximum=white)
    raw = np.asarray(Image.open(folder.paths[3])).astype(int)
    assert folder.read(3)[0].tolist() == (raw * 255 // white).tolist()
    said = f"their largest value is {maximum:,}, so {white:,} becomes white"
    assert (said in caplog.text) == (white != 65_535)


@pytest.mark.parametrize(("bits", "largest"), [(12, 15), (14, 63), (16, None)])
def test_colours_of_16_bits_that_use_fewer_are_named(
    bits: int, largest: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pillow reads the upper 8 bits, so those of a camera with 14 are nearly black."""
    for index in range(12):
        place = tmp_path / "ab"[index % 2] / f"{index}.png"
        place.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 2**bits, (8, 8, 3)).astype(">u2")
        pixels[0, 0] = 2**bits - 1
        place.write_bytes(png_of_16_bits(pixels))
    folder = scan_folder(tmp_path)
    assert folder.read(0).max() == 2**bits // 256 - 1
    said = f"use fewer: their largest value is {largest} of 255"
    assert ("bits a colour" in caplog.text) == (said in caplog.text) == (largest is not None)


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG file in colour; Pillow writes none. Pixels are big-endian (H, W, 3)."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)), (b"IEND", b""),
    ]  # fmt: skip
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_generator_knows_the_depth_of_its_data(tmp_path: Path) -> None:
    root = deep(tmp_path / "scans", 4_095)
    changes = {
        "data.source": str(root), "data.size": 8, "images": 64, "batch_size": 8, "model.width": 8,
        "control_per_class": 0, "device": "cpu",
    }  # fmt: skip
    run = cgan.train(cgan.load_config("folder-dcgan", changes), tmp_path / "run")
    sampler = cgan.load(run.folder)
    assert sampler.header["conversion"] == {"maximum": 4_095, "background": "white", "fit": "crop"}
    train = load_pictures(str(root))
    scanned = scan_folder(root)
    found = read_picture(scanned.paths[0], sampler)
    assert found.max() == 1
    assert torch.equal((found * 255).round().byte(), scanned.read(0))
    assert sum(sampler.header["class_counts"]) == len(train)


def test_usual_folders_have_the_same_digest_as_before(tmp_path: Path) -> None:
    """Of version 0.4.0, so that runs resume and judges are found."""
    folder = scan_folder(make_pets(tmp_path / "pets"))
    assert folder.conversion == USUAL
    hasher = hashlib.sha256(b"cat\0dog\0(3, 28, 28)")
    hasher.update(folder.labels.numpy().tobytes() + b"".join(folder.digests))
    assert folder.digest() == hasher.hexdigest()


def test_grey_pictures_stored_as_colour_train_a_grey_gan(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(6):
        grey = np.repeat(random.integers(0, 256, (40, 40, 1), np.uint8), 3, axis=2)
        save(grey, tmp_path, f"{'ab'[index % 2]}/{index}.{'jpg' if index % 3 else 'png'}")
    assert scan_folder(tmp_path).image_shape == (1, 32, 32)
    tinted = np.full((200, 200, 3), 90, np.uint8)
    tinted[150:, 150:, 0] = 99  # in a corner of a large image
    save(tinted, tmp_path, "a/tinted.png")
    assert scan_folder(tmp_path).image_shape == (3, 32, 32)


def test_white_drawings_on_transparency_are_kept_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(8):
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[index % 7 + 1, 1:7] = 255
        save(pixels, tmp_path / "white", f"{'ab'[index % 2]}/{index}.png")
        save(np.where(pixels == 255, [0, 0, 0, 255], 0).astype(np.uint8), tmp_path / "black",
             f"{'ab'[index % 2]}/{index}.png")  # fmt: skip
    with caplog.at_level("INFO", "cgan"):
        white = scan_folder(tmp_path / "white")
    assert white.conversion.background == "black"
    assert "8 images have transparent parts: black shows there" in caplog.text
    assert white.read(0).unique().tolist() == [0, 255]
    assert scan_folder(tmp_path / "black").conversion == USUAL
    red = load_pictures(str(tmp_path / "white"), background="#ff0000")
    assert red.images[0, :, 0, 0].tolist() == [255, 0, 0]
    caplog.clear()
    scan_folder(tmp_path / "white", background="white")
    assert "8 of 8 images show nothing: all their pixels are the same" in caplog.text
    with pytest.raises(ConfigError, match="background: String should match pattern"):
        load_pictures(str(tmp_path / "white"), background="mauve")


def test_wide_pictures_can_be_padded_or_stretched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a spectrogram of 1000×128, the square in the middle holds 13 %."""
    pixels = np.zeros((16, 128, 3), np.uint8)
    pixels[:, :64, 0], pixels[:, 64:, 2] = 255, 255
    for name in ("a/0.png", "b/1.png"):
        save(pixels, tmp_path, name)
    cropped = scan_folder(tmp_path, size=16)
    assert "cropping at the centre keeps 12 % of the area: --set data.fit=pad" in caplog.text
    assert "--size 256x32 fits most images" in caplog.text
    assert (cropped.read(0)[0, 0] == 255).sum() == 8
    padded = scan_folder(tmp_path, size=16, fit="pad", background="black").read(0)
    assert (padded.sum(0).sum(1) > 0).sum() == 2  # two rows of sixteen
    stretched = scan_folder(tmp_path, size=16, fit="stretch").read(0)
    assert (stretched[0, :, :7] > 250).all()
    assert (stretched[2, :, 9:] > 250).all()


def test_a_file_in_two_classes_is_named_and_can_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_pets(tmp_path / "pets")
    shutil.copy(root / "cat" / "03.png", root / "dog" / "99.png")
    assert len(scan_folder(root)) == 25
    assert f"1 images are in several classes, such as {root / 'cat' / '03.png'}, " in caplog.text
    left = scan_folder(root, skip_conflicts=True)
    assert len(left) == 23
    assert not {"99.png"} & {path.name for path in left.paths}
    assert len(load_pictures(str(root), memory_bytes=0, skip_conflicts=True)) < 23


@pytest.mark.parametrize("suffix", [".jfif", ".tga", ".jp2", ".avif"])
def test_more_suffixes_are_read(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    path = tmp_path / f"x{suffix}"
    try:
        Image.fromarray(pixels).save(path, **({"quality": 95} if suffix != ".tga" else {}))
    except (KeyError, OSError, ValueError) as error:
        pytest.skip(f"this Pillow cannot write {suffix}: {error}")
    found = read_image(path, (3, 32, 32)).permute(1, 2, 0).int()
    assert (found - torch.from_numpy(pixels).int()).abs().float().mean() < 20


def test_similar_names_and_many_copies_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_pets(tmp_path / "pets", classes={"cat": 200, "Cat ": 50, "3": 90, "03": 120})
    for index in range(20):
        shutil.copy(root / "3" / "00.png", root / "3" / f"copy-{index}.png")
    scan_folder(root)
    assert "almost the same name: '03' and '3', 'Cat ' and 'cat'" in caplog.text
    assert "20 of 68 images are copies of another file" in caplog.text


def test_counts_of_few_and_of_many_classes() -> None:
    assert describe_counts(["cat", "dog"], [3, 12_000]) == "cat (3), dog (12,000)"
    names = [f"c{index}" for index in range(30)]
    assert describe_counts(names, [5] * 10 + [9] + [2] + [5] * 18) == (
        "30, the largest c10 (9), the smallest c11 (2)"
    )


def test_files_that_are_not_read_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_pets(tmp_path / "pets")
    for name in ("cat/a.npy", "cat/b.npy", "dog/notes.txt", "dog/raw"):
        (root / name).write_bytes(b"x")
    frames = [Image.new("RGB", (8, 8), (index, 0, 9)) for index in (0, 200)]
    frames[0].save(root / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level("INFO", "cgan"):
        assert len(scan_folder(root)) == 25
    assert "not read: 2 .npy, 1 .txt, 1 without a suffix" in caplog.text
    assert "1 files have several frames: the first one is read" in caplog.text


def test_a_class_of_which_no_file_is_read_is_not_dropped(tmp_path: Path) -> None:
    root = make_pets(tmp_path / "pets")
    (root / "notes").mkdir()
    (root / "notes" / "readme.txt").write_text("about these images")
    assert scan_folder(root).classes == ("cat", "dog")
    (root / "owl").mkdir()
    (root / "owl" / "1.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"owl holds files \(.npy\), and none of them is an image"):
        scan_folder(root)


def test_a_coloured_background_shows_through_grey_drawings(tmp_path: Path) -> None:
    grey = np.zeros((8, 8, 2), np.uint8)
    grey[2:6, 2:6] = [90, 255]
    for name in ("a/0.png", "b/1.png"):
        save(grey, tmp_path, name)
    found = scan_folder(tmp_path, background="#ffcc00")
    assert found.read(0)[:, 0, 0].tolist() == [255, 204, 0]


def test_names_that_differ_in_a_mark_are_different(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("C", "C#", "C++", "+", "-", "-1", "1", "का", "की")
    scan_folder(make_pets(tmp_path / "signs", classes={n: 20 * i + 9 for i, n in enumerate(names)}))
    assert "almost the same name" not in caplog.text


def test_what_is_said_is_collected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Messages, dry run and report read the same facts."""
    root = make_pets(tmp_path / "pets")
    (root / "cat" / "notes.npy").touch()
    with caplog.at_level("INFO", "cgan"):
        folder = scan_folder(root)
    assert folder.facts == (
        "layout: one folder per class",
        "files beside the images that are not read: 1 .npy",
        "pets: 24 images of 2 classes, resized to 28×28 in colour (change it with --size)",
        "classes: cat (12), dog (12)",
    )
    assert [record.getMessage() for record in caplog.records] == list(folder.facts)
    read = load_pictures(str(root))
    assert isinstance(read, ImageDataset)
    assert read.facts == folder.facts


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["cat/a.png", "dog/b.png"], "one folder per class"),
        (["train/cat/a.png", "train/dog/b.png", "test/dog/c.png", "test/cat/d.png"],
         "one folder per class, in train and test"),
        (["cat/in/a.png", "dog/in/b.png", "cat/out/c.png"],
         "nested folders, one level for each attribute"),
        (["cat/rex/a.png", "cat/rex/b.png", "dog/bello/b.png", "cat/tom/c.png"],
         "one folder per class, and in it one per group"),
        (["a.png", "b.png", "labels.csv"], "labels.csv"),
    ],
)  # fmt: skip
def test_the_layout_is_named(tmp_path: Path, names: list[str], layout: str) -> None:
    for index, name in enumerate(names):
        if name.endswith("csv"):
            (tmp_path / name).write_text("file_name,label\na.png,cat\nb.png,dog\n")
        else:
            save(np.full((8, 8), 40 * index, np.uint8) + np.eye(8, dtype=np.uint8), tmp_path, name)
    assert f"layout: {layout}" in scan_folder(tmp_path).facts[:2]


def test_the_f_statistic() -> None:
    """By hand: means 2 and 5, variance within 1, between 3 (1.5² + 1.5²) = 13.5."""
    values = torch.tensor([[1.0, 0], [2, 0], [3, 9], [4, 0], [5, 0], [6, 9]])
    labels = torch.tensor([4, 4, 4, 7, 7, 7])
    assert f_statistic(values, labels).tolist() == pytest.approx([13.5, 0])
    assert f_statistic(values, torch.arange(6)).tolist() == [0, 0]
    assert f_statistic(values, torch.zeros(6)).tolist() == [0, 0]


def test_classes_that_differ_in_brightness_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat = load_pictures(str(make_pets(tmp_path / "pets", count=40)))
    assert isinstance(flat, ImageDataset)
    warn_about_classes(flat)
    assert "the classes of pets seem to differ in brightness only" in caplog.text
    caplog.clear()
    brighter = (flat.labels == 0).view(-1, 1, 1, 1)
    slope = torch.arange(28, dtype=torch.uint8).expand(3, 28, 28)
    for other in (slope, slope.mT, 40 * (slope % 2)):  # another shape, or other detail
        warn_about_classes(
            replace(flat, images=torch.where(brighter, flat.images - other, flat.images))
        )
        assert "brightness" not in caplog.text
    yellow = torch.tensor([90, 60, 0], dtype=torch.uint8).view(3, 1, 1)
    warn_about_classes(
        replace(flat, images=torch.where(brighter, flat.images - yellow, flat.images))
    )
    assert "brightness" not in caplog.text
