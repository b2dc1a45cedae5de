"""A folder of pictures: colours, sizes, broken files, odd layouts."""

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgan.data import SPLITS, ImageDataset, ImageFolder, Split, load_pictures
from cgan.data.image_file import read_image
from cgan.data.image_folder import scan_folder
from cgan.errors import DataError
from tests.conftest import make_pets


def test_classes_are_the_folders_names_and_pixels_those_of_the_files(pets: Path) -> None:
    train, validation, test = (load_pictures(str(pets), split) for split in SPLITS)
    assert train.classes == ("cat", "dog")
    assert train.image_shape == (3, 28, 28)  # 18 to 20 pixels need 28
    assert len(train) + len(validation) + len(test) == 24
    bright = train.images[train.labels == 0].float().mean()
    assert abs(bright - 200) < 5


def test_size_is_taken_as_it_is_where_nothing_is_resized(tmp_path: Path) -> None:
    make_pets(tmp_path / "p", side=6)
    scanned = scan_folder(tmp_path / "p")
    assert scanned.image_shape == (3, 8, 8)
    (tmp_path / "q" / "a").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "q" / "a" / "x.png")
    picture = scan_folder(tmp_path / "q").read(0)
    assert torch.equal(picture.permute(1, 2, 0), torch.from_numpy(pixels))


def test_size_is_said_and_can_be_chosen(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cgan")
    assert load_pictures(str(pets), size=16).image_shape == (3, 16, 16)
    assert "resized to 16×16 in colour" in caplog.text


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (8, 8), 77).save(tmp_path / "a" / "x.png")
    assert scan_folder(tmp_path).image_shape == (1, 8, 8)
    Image.new("RGB", (8, 8), (90, 92, 94)).save(tmp_path / "a" / "y.jpg")  # stored as colour
    assert scan_folder(tmp_path).image_shape == (1, 8, 8)
    Image.new("RGB", (8, 8), (1, 2, 9)).save(tmp_path / "a" / "z.png")
    assert scan_folder(tmp_path).image_shape == (3, 8, 8)


def test_modes(tmp_path: Path) -> None:
    """Transparency lies on white, 16 bits are scaled, a palette has its colours."""
    shape = (3, 8, 8)
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "t.png")
    assert (read_image(tmp_path / "t.png", shape) == 255).all()
    deep = Image.fromarray(np.full((8, 8), 65535, dtype=np.uint16))
    deep.save(tmp_path / "d.png")
    assert (read_image(tmp_path / "d.png", (1, 8, 8)) == 255).all()
    Image.new("RGB", (8, 8), (200, 0, 0)).convert("P").save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png", shape)[0].float().mean() > 150


def test_wide_pictures_are_cropped_at_the_centre_not_squeezed(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 8:16] = 255
    Image.fromarray(pixels).save(tmp_path / "w.png")
    assert (read_image(tmp_path / "w.png", (3, 8, 8)) == 255).all()


def test_broken_picture_is_named_and_skipped_only_if_asked(pets: Path) -> None:
    good = pets / "cat" / "03.png"
    good.write_bytes(good.read_bytes()[:60])
    with pytest.raises(DataError, match="03.png.*--skip-broken"):
        load_pictures(str(pets))
    kept = [load_pictures(str(pets), split, skip_broken=True) for split in SPLITS]
    assert sum(map(len, kept)) == 23
    (pets / "dog" / "99.jpg").write_text("not a picture")
    with pytest.raises(DataError, match="cannot be read as an image"):
        load_pictures(str(pets))


def test_no_pictures_no_classes_too_deep(tmp_path: Path, pets: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no images in"):
        load_pictures(str(empty))
    with pytest.raises(DataError, match="one folder per class"):
        load_pictures(str(pets / "cat"))
    shutil.move(pets, tmp_path / "outer" / "animals")
    with pytest.raises(DataError, match="did you mean --data .*animals"):
        load_pictures(str(tmp_path / "outer"))
    with pytest.raises(DataError, match="there is no folder"):
        load_pictures("./nowhere")


def test_nested_folders_beside_classes_are_told(
    pets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pets / "void").mkdir()
    assert load_pictures(str(pets)).classes == ("cat", "dog")
    assert re.search("they hold no images: .*void$", caplog.text, re.MULTILINE)
    shutil.copytree(pets / "cat", pets / "birds" / "small")
    with pytest.raises(DataError, match="birds holds folders of images, and .*cat holds images"):
        load_pictures(str(pets))


def test_hidden_files_and_others_are_not_pictures(pets: Path) -> None:
    (pets / "cat" / ".hidden.png").write_text("x")
    (pets / "cat" / "notes.txt").write_text("x")
    (pets / ".git").mkdir()
    assert len(scan_folder(pets)) == 24


def digests_by_split(root: Path) -> dict[str, set[bytes]]:
    """The digests of the files in each split."""
    return {split: set(folder_split(root, split).digests) for split in SPLITS}


def folder_split(root: Path, split: Split) -> ImageFolder:
    found = load_pictures(str(root), split, memory_bytes=0)
    assert isinstance(found, ImageFolder)
    return found


def test_no_image_changes_its_split_when_others_are_added_removed_or_renamed(
    tmp_path: Path,
) -> None:
    root = make_pets(tmp_path / "pets", count=60)
    before = digests_by_split(root)
    assert all(before.values())  # 120 images: none of the splits is empty
    for index in range(0, 60, 7):
        (root / "cat" / f"{index:02}.png").unlink()
    for index in range(0, 60, 5):
        (root / "dog" / f"{index:02}.png").rename(root / "dog" / f"renamed-{99 - index}.png")
    make_pets(tmp_path / "more", classes={"cat": 120})
    for path in (tmp_path / "more" / "cat").iterdir():
        path.rename(root / "cat" / f"a-{path.name}")  # sorts before the others
    shutil.copy(root / "dog" / "01.png", root / "dog" / "copy.png")
    after = digests_by_split(root)
    for split in SPLITS:
        others = set().union(*(after[other] for other in SPLITS if other != split))
        assert not before[split] & others
    assert not after["train"] & after["test"]


def test_folder_has_one_digest_in_memory_and_on_disk(pets: Path) -> None:
    in_memory, on_disk = load_pictures(str(pets)), load_pictures(str(pets), memory_bytes=0)
    assert isinstance(in_memory, ImageDataset)
    assert in_memory.digest() == on_disk.digest()
    (pets / "cat").rename(pets / "kitten")
    assert load_pictures(str(pets)).digest() != in_memory.digest()
    (pets / "kitten").rename(pets / "cat")
    assert load_pictures(str(pets)).digest() == in_memory.digest()
    assert load_pictures(str(pets), size=16).digest() != in_memory.digest()
    first = next((pets / "cat").iterdir())
    Image.new("RGB", (18, 18)).save(first)
    assert load_pictures(str(pets)).digest() != in_memory.digest()


def test_large_images_are_32_by_default(tmp_path: Path) -> None:
    make_pets(tmp_path / "pets", side=100, count=1)
    assert scan_folder(tmp_path / "pets").image_shape == (3, 32, 32)
    assert scan_folder(tmp_path / "pets", size=64).image_shape == (3, 64, 64)


def test_rectangles_are_cropped_to_their_shape(tmp_path: Path) -> None:
    """Of an image that is too high, rows above and below are lost."""
    (tmp_path / "a").mkdir()
    pixels = np.zeros((24, 16, 3), dtype=np.uint8)
    pixels[8:16] = 255
    Image.fromarray(pixels).save(tmp_path / "a" / "high.png")
    scanned = scan_folder(tmp_path, size="16x8")
    assert scanned.image_shape == (1, 8, 16)
    assert (scanned.read(0) == 255).all()
