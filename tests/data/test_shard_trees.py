"""Arrays and shards as data: what cgan writes, MedMNIST's and Keras's files."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cgan
from cgan.data import Loader, load_pictures
from cgan.data.image_folder import scan_folder
from cgan.data.shard_trees import open_tree
from cgan.errors import DataError
from cgan.sampling.write_dataset import write_dataset

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (60, 8, 8), np.uint8)
COLOUR = RANDOM.integers(0, 256, (60, 8, 8, 3), np.uint8)
LABELS = np.arange(60) % 3


def save(root: Path, **arrays: np.ndarray) -> str:
    np.savez(root / "data.npz", **arrays)
    return str(root / "data.npz")


def contents(folder: object) -> dict[bytes, str]:
    """By pixels of an image, its class."""
    classes, labels = folder.classes, folder.labels.tolist()  # type: ignore[attr-defined]
    images = folder.take(torch.arange(len(labels)))  # type: ignore[attr-defined]
    return {
        image.numpy().tobytes(): classes[label] for image, label in zip(images, labels, strict=True)
    }


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("x", "y"), ("arr_0", "arr_1")]
)
def test_a_pair_of_arrays(tmp_path: Path, images: str, labels: str) -> None:
    source = save(tmp_path, **{images: IMAGES, labels: LABELS})
    found = scan_folder(Path(source))
    assert found.image_shape == (1, 8, 8)
    assert found.classes == ("0", "1", "2")
    wanted = {image.tobytes(): str(label) for image, label in zip(IMAGES, LABELS, strict=True)}
    assert contents(found) == wanted


def test_medmnist_has_splits_and_labels_in_a_column(tmp_path: Path) -> None:
    parts = {"train": slice(0, 40), "val": slice(40, 50), "test": slice(50, 60)}
    arrays = {}
    for name, rows in parts.items():
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = COLOUR[rows], LABELS[rows, None]
    source = save(tmp_path, **arrays)
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        part = load_pictures(source, split)  # type: ignore[arg-type]
        assert part.image_shape == (3, 8, 8)
        wanted = np.moveaxis(COLOUR[parts[name]], 3, 1)
        assert set(contents(part)) == {image.tobytes() for image in wanted}


def test_keras_and_channels_first(tmp_path: Path) -> None:
    first = np.moveaxis(COLOUR, 3, 1)
    source = save(
        tmp_path, x_train=first[:40], y_train=LABELS[:40], x_test=first[40:], y_test=LABELS[40:]
    )
    assert len(load_pictures(source, "test")) == 20
    assert set(contents(load_pictures(source, "test"))) == {one.tobytes() for one in first[40:]}


@pytest.mark.parametrize("format", ["npz", "webdataset"])
def test_what_cgan_generates_is_data(
    small_run: cgan.Run, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.sampling.write_dataset.SHARD_SIZE", 40)
    sampler = cgan.load(small_run.folder)
    names = [f"class {label}" for label in range(10)]
    named = cgan.Sampler(sampler.generator, {**sampler.header, "classes": names}, sampler.path)
    write_dataset(named, tmp_path / "set", 100, format=format)
    write_dataset(named, tmp_path / "folder", 100, format="folder")
    found, wanted = (scan_folder(tmp_path / name, size=8) for name in ("set", "folder"))
    assert found.classes == wanted.classes == tuple(names)
    assert contents(found) == contents(wanted)
    if format == "webdataset":  # a shard alone, too
        assert len(scan_folder(tmp_path / "set" / "shard-00002.tar", size=8)) == 20
    again = pickle.loads(pickle.dumps(found.paths[3]))
    assert again.open().read() == found.paths[3].open().read()
    images, labels = next(Loader(found, 16, workers=1).batches())
    assert images.shape == (16, 1, 8, 8)
    assert labels.max() < 10


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"pictures": IMAGES}, "has no images and labels: it has pictures"),
        ({"images": IMAGES / 255, "labels": LABELS}, "has images of type float64 and shape"),
        ({"images": IMAGES, "labels": LABELS[:9]}, r"shape \(9,\) for 60 images: one whole number"),
        ({"images": IMAGES, "labels": np.eye(3)[LABELS]}, r"of type float64 and shape \(60, 3\)"),
        ({"images": IMAGES, "labels": np.array([object()] * 60)}, "cannot be read as arrays"),
    ],
)
def test_arrays_that_cannot_be_used(
    tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        scan_folder(Path(save(tmp_path, **arrays)))


def test_a_file_that_is_no_npz_and_a_sample_without_a_class(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot be read as arrays"):
        load_pictures(str(tmp_path / "data.npz"))
    assert open_tree(tmp_path) is None


def test_samples_of_the_same_name_in_two_folders_and_files_of_macos(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as file:
        for folder in "ab":
            for index in range(4):
                at = index + 4 * (folder == "b")
                png = io.BytesIO()
                Image.fromarray(IMAGES[at]).save(png, "PNG")
                for suffix, content in (("png", png.getvalue()), ("cls", str(index % 2).encode())):
                    for name in (
                        f"{folder}/{index:03}.{suffix}",
                        f"{folder}/._{index:03}.{suffix}",
                    ):
                        info = tarfile.TarInfo(name)
                        info.size = len(content)
                        file.addfile(info, io.BytesIO(content))
    found = scan_folder(tmp_path / "shard.tar")
    assert found.classes == ("0", "1")
    assert set(contents(found)) == {image.tobytes() for image in IMAGES[:8]}


def test_pairs_of_npy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", COLOUR)
    np.save(tmp_path / "labels.npy", LABELS)
    wanted = {
        image.tobytes(): str(label)
        for image, label in zip(np.moveaxis(COLOUR, 3, 1), LABELS, strict=True)
    }
    for source in (tmp_path, tmp_path / "images.npy", tmp_path / "labels.npy"):
        assert contents(scan_folder(source)) == wanted
    for old, new in (("images", "X_train"), ("labels", "y_train")):
        (tmp_path / f"{old}.npy").rename(tmp_path / f"{new}.npy")
    np.save(tmp_path / "X_test.npy", IMAGES)
    np.save(tmp_path / "y_test.npy", LABELS)
    assert set(contents(load_pictures(str(tmp_path), "test")).values()) == {"0", "1", "2"}
    assert load_pictures(str(tmp_path), "test").image_shape == (3, 8, 8)
    assert len(load_pictures(str(tmp_path), "test")) == 60


def test_npy_files_that_are_no_pair(tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", IMAGES)
    with pytest.raises(
        DataError, match=r"pictures\.npy has no labels beside it: call the files ima"
    ):
        load_pictures(str(tmp_path / "pictures.npy"))
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", np.array([{}] * 60, object), allow_pickle=True)
    with pytest.raises(DataError, match=r"images\.npy or labels\.npy cannot be read"):
        load_pictures(str(tmp_path))
    np.save(tmp_path / "labels.npy", LABELS[:-1])
    with pytest.raises(DataError, match="for 60 images: one whole number or name"):
        load_pictures(str(tmp_path))


def test_classes_txt_names_all_splits_alike(tmp_path: Path) -> None:
    """Labels 1 to 3 do not fit three lines, so none is a line: also in a split without 3."""
    (tmp_path / "classes.txt").write_text("1\n2\n3\n")
    for name, count in (("train", 3), ("test", 2)):
        np.save(tmp_path / f"x_{name}.npy", IMAGES if name == "train" else IMAGES[:30] ^ 1)
        labels = np.arange(60 if name == "train" else 30) % count + 1
        np.save(tmp_path / f"y_{name}.npy", labels)
    test = load_pictures(str(tmp_path), "test")
    assert test.classes == ("1", "2", "3")
    assert test.labels.bincount().tolist() == [15, 15]


@pytest.mark.parametrize(
    ("text", "classes", "sentence"),
    [
        (b"cat\ndog\nowl\n\n\n", ("cat", "dog", "owl"), ""),
        ("cat\ndog\nkäuzchen\n".encode("latin-1"), ("0", "1", "2"), "it is not UTF-8 text"),
        (b"cat\ncat\nowl\n", ("0", "1", "2"), "it has a line twice"),
        (b"cat\ndog\n", ("0", "1", "2"), "it has 2 lines, and there is a label 2"),
    ],
)
def test_classes_txt_that_cannot_be_used_is_named(
    text: bytes,
    classes: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "classes.txt").write_bytes(text)
    assert scan_folder(Path(save(tmp_path, images=IMAGES, labels=LABELS))).classes == classes
    assert sentence in caplog.text
    assert ("is not used" in caplog.text) == bool(sentence)


def test_classes_txt_and_a_label_that_is_no_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    labels = np.arange(60) % 3 - 1  # -1, 0 and 1
    found = scan_folder(Path(save(tmp_path, images=IMAGES, labels=labels)))
    assert found.classes == ("-1", "0", "1")
    assert "is not used, because it has 2 lines, and there is a label -1" in caplog.text


def test_arrays_that_are_not_used_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = {"x_train": IMAGES, "y_train": LABELS, "x_dev": IMAGES[:9], "y_dev": LABELS[:9]}
    source = save(tmp_path, **split, test_images=IMAGES[:5], test_labels=LABELS[:5])
    assert len(load_pictures(source, "validation")) == 9
    assert "arrays of data.npz that are not used: test_images, test_labels" in caplog.text
    np.savez(tmp_path / "four.npz", IMAGES, LABELS, IMAGES[:6], LABELS[:6])
    with pytest.raises(DataError, match="more than two arrays without a name: call them x_train"):
        load_pictures(str(tmp_path / "four.npz"))


def test_samples_with_a_dot_in_their_names_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(12):
            png = io.BytesIO()
            Image.fromarray(IMAGES[index]).save(png, "PNG")
            name = "St. Peter" if index == 0 else f"{index:03}"
            for suffix, content in (("png", png.getvalue()), ("cls", b"01"[index % 2 :][:1])):
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    assert len(scan_folder(tmp_path / "a.tar")) == 11
    assert "a.tar: 1 images are not read, because WebDataset cuts their names" in caplog.text
    assert "St. Peter.png" in caplog.text


def test_samples_whose_joined_names_are_alike(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index, key in enumerate(("run/1-05", "run-1/05", "run/7", "run/8")):
            buffer = io.BytesIO()
            Image.fromarray(IMAGES[index]).save(buffer, "png")
            for end, content in (("png", buffer.getvalue()), ("cls", b"%d" % (index // 3))):
                member = tarfile.TarInfo(f"{key}.{end}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert len(set(contents(scan_folder(tmp_path / "a.tar")))) == 4


def test_a_training_pair_without_the_word(tmp_path: Path) -> None:
    source = save(tmp_path, x=IMAGES[:40], y=LABELS[:40], x_test=IMAGES[40:], y_test=LABELS[40:])
    assert len(load_pictures(source, "test")) == 20
    assert len(load_pictures(source)) + len(load_pictures(source, "validation")) == 40
