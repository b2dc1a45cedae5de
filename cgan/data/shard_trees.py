"""Arrays in ``.npz`` files and WebDataset's shards, read as trees of images.

    images, labels                     of one .npz file: ours, and most others
    images.npy, labels.npy             a pair of files, or several for the splits
    train_images, train_labels, …      MedMNIST's; x_train, y_train, …: Keras's
    shard-00000.npz, shard-00000.tar   the folders that ``cgan generate`` writes
    000000000.png, 000000000.cls       WebDataset's samples in a .tar file

Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cgan.data.archive import Archive, FileTree, Member, class_folders
from cgan.data.facts import warn
from cgan.data.image_file import SUFFIXES
from cgan.data.splits import Split
from cgan.errors import DataError, first_few, one_line
from cgan.runtime.cpu import free_memory

PAIRS = (
    ("images", "labels"),
    ("x", "y"),
    ("data", "labels"),
    ("image", "label"),
    ("arr_0", "arr_1"),
)
"""Names of an array of images and of its labels."""
SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
MANIFEST, CLASSES = "dataset.json", "classes.txt"
LABEL = "cls"
"""The suffix of the class of a sample."""
MAX_LABEL_BYTES = 1_000


def shards_in(folder: Path) -> list[Path]:
    """The shards of a folder that ``cgan generate`` wrote as tar or npz files; else none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        is_ours = manifest.get("format") == "cgan-dataset"
    except (OSError, ValueError, AttributeError, RecursionError):
        return []
    return sorted(folder.glob("shard-*.*")) and [
        path for path in sorted(folder.glob("shard-*.*"))
        if is_ours and path.suffix in (".npz", ".tar")
    ]  # fmt: skip


class ArrayTree(FileTree):
    """Images and labels of ``.npz`` files, or of ``.npy``, as a tree ``SPLIT/CLASS/ROW.ppm``.

    Args:
        path: the file, or the folder of the files; messages name it.
        files: all ``.npz`` files; their rows follow each other.

    Raises:
        DataError: a file cannot be read, has no pair of arrays, or needs too much memory.
    """

    kind = "arrays of images and labels"

    def __init__(self, path: Path, files: Sequence[Path] = ()) -> None:
        super().__init__(path)
        self.shards, self.images = tuple(files), list[np.ndarray]()
        pairs = [pair for file in files or [path] for pair in _read(file)]
        texts = [str(label) for _, _, labels in pairs for label in labels.tolist()]
        names = name_labels(texts, path if path.is_dir() else path.parent)  # of all splits at once
        folders, number = class_folders(path, names), 0
        for split, images, _ in pairs:
            above = "" if split is None else f"{split}/"
            for row in range(len(images)):
                place = f"{above}{folders[names[number]]}/{number:09}.ppm"
                self._add(Member(place, images[row].nbytes, len(self.images), str(row)))
                number += 1
            self.images.append(images)

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.shards)  # for worker processes

    def read(self, member: Member) -> bytes:
        """A row as a PGM or PPM file, which every version of a library writes alike."""
        pixels = self.images[member.offset][int(member.key)]
        height, width, channels = pixels.shape
        kind = "P5" if channels == 1 else "P6"
        return f"{kind}\n{width} {height}\n255\n".encode() + np.ascontiguousarray(pixels).tobytes()


def _read(file: Path) -> list[tuple[Split | None, np.ndarray, np.ndarray]]:
    return _read_pairs(file) if file.suffix.lower() == ".npz" else _read_npy_pairs(file)


def _read_pairs(file: Path) -> list[tuple[Split | None, np.ndarray, np.ndarray]]:
    """The split, the images (N, H, W, C) and the labels (N,) of each pair of arrays."""
    try:
        with zipfile.ZipFile(file) as content:
            size, free = sum(one.file_size for one in content.infolist()), free_memory()
        if free is not None and size > free // 2:
            raise DataError(f"{file} needs {size:,} bytes of memory, and half of it is less")
        with np.load(file, allow_pickle=False) as arrays:
            by_name = {name.lower(): name for name in arrays.files}
            names = _names_of_pairs(by_name)
            found = [
                (split, arrays[by_name[images]], arrays[by_name[labels]])
                for split, images, labels in names
            ]
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, MemoryError) as error:
        raise DataError(f"{file} cannot be read as arrays ({one_line(error)})") from error
    if not found:
        raise DataError(
            f"{file} has no images and labels: it has {', '.join(by_name) or 'nothing'}; call them "
            "images and labels"
        )
    _say_what_is_not_used(file, by_name, names)
    return [(split, *_check_pair(file, images, labels)) for split, images, labels in found]


def _read_npy_pairs(file: Path) -> list[tuple[Split | None, np.ndarray, np.ndarray]]:
    """The same of the ``.npy`` files of a folder, which stay on disk; ``file`` may be one of them.

    Raises:
        DataError: there is no pair, or a file cannot be read.
    """
    folder = file if file.is_dir() else file.parent
    files = {path.stem.lower(): path for path in folder.iterdir() if path.suffix == ".npy"}
    pairs = [
        (split, files[images], files[labels])
        for split, images, labels in _names_of_pairs(files)
        if file in (folder, files[images], files[labels])
    ]
    if not pairs:
        raise DataError(
            f"{file} has no labels beside it: call the files images.npy and labels.npy, or x.npy "
            "and y.npy"
        )
    if file == folder:
        _say_what_is_not_used(folder, files, _names_of_pairs(files))
    found = []
    for split, *pair in pairs:
        try:
            arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in pair]
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{pair[0]} or {pair[1].name} cannot be read ({one_line(error)})"
            ) from error
        found.append((split, *_check_pair(pair[0], *arrays)))
    return found


def _say_what_is_not_used(
    file: Path, names: Iterable[str], pairs: list[tuple[Split | None, str, str]]
) -> None:
    """Warn of other arrays.

    Raises:
        DataError: there are more than two without a name, which may be those of a test set.
    """
    others = sorted(set(names) - {name for _, *pair in pairs for name in pair})
    if "arr_2" in others:
        raise DataError(
            f"{file} has more than two arrays without a name: call them x_train, y_train, x_test "
            "and y_test (np.savez(file, x_train=…))"
        )
    if others:
        warn("arrays of %s that are not used: %s", file.name, first_few(others))


def _has_npy_pair(folder: Path) -> bool:
    """Whether a folder holds a pair of arrays, and no two folders, which could be classes."""
    try:
        with os.scandir(folder) as inside:
            entries = list(inside)
    except OSError:  # whoever lists it next says so
        return False
    names = {entry.name[:-4].lower() for entry in entries if entry.name.endswith(".npy")}
    return bool(_names_of_pairs(names)) and sum(entry.is_dir() for entry in entries) < 2


def _names_of_pairs(names: Iterable[str]) -> list[tuple[Split | None, str, str]]:
    """The names of images and labels, with their split if they say it."""
    known = set(names)
    without_training: list[tuple[Split | None, str, str]] = []
    for images, labels in PAIRS:
        found: list[tuple[Split | None, str, str]] = []
        for word, split in SPLIT_NAMES.items():
            for pattern in (f"{word}_{{}}", f"{{}}_{word}"):
                pair = pattern.format(images), pattern.format(labels)
                if known.issuperset(pair):
                    found.append((split, *pair))
        alone = known.issuperset((images, labels))
        if any(split == "train" for split, _, _ in found):
            return found
        if alone:
            return [("train" if found else None, images, labels), *found]
        without_training = without_training or found
    return without_training


def _check_pair(
    file: Path, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = np.moveaxis(images, 1, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"{file} has images of type {images.dtype} and shape {images.shape}: they must be "
            "uint8 (N, height, width) or (N, height, width, 1 or 3)"
        )
    if labels.shape == (len(images), 1):
        labels = labels[:, 0]
    if labels.shape != (len(images),) or labels.dtype.kind not in "iubU":
        raise DataError(
            f"{file} has labels of type {labels.dtype} and shape {labels.shape} for "
            f"{len(images):,} images: one whole number or name for each is needed"
        )
    return images, labels


class TarTree(FileTree):
    """Samples of WebDataset as a tree ``CLASS/KEY.png``: files with the same key, one ``.cls``.

    Args:
        path: the folder of the shards, or the shard; messages name it.
        archives: the shards.

    Raises:
        DataError: a sample has no image or no class.
    """

    kind = "WebDataset's samples"

    def __init__(self, path: Path, archives: Sequence[Archive]) -> None:
        super().__init__(path)
        self.archives = list(archives)
        samples = [
            one for index, archive in enumerate(archives) for one in _samples(index, archive)
        ]
        texts = [text for _, _, _, text in samples]
        names = name_labels(texts, path if path.is_dir() else path.parent)
        folders = class_folders(path, names)
        for name, (index, inner, member, _) in zip(names, samples, strict=True):
            place = f"{folders[name]}/{index:05}-{'-'.join(inner.parts)}"
            while PurePosixPath(place) in self.files:  # a-b/c.png and a/b-c.png
                stem, _, suffix = place.rpartition(".")
                place = f"{stem}~.{suffix}"
            self._add(Member(place, member.size, index, str(inner)))

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.archives)

    def read(self, member: Member) -> bytes:
        """The encoded image of a sample."""
        archive = self.archives[member.offset]
        return archive.read(archive.files[PurePosixPath(member.key)])


def _samples(index: int, archive: Archive) -> list[tuple[int, PurePosixPath, Member, str]]:
    """The image and the label of each sample of a shard."""
    samples: dict[str, dict[str, PurePosixPath]] = {}
    for path in archive.files:
        key, end = sample_key(str(path))
        if key is not None and path.name[0] != ".":
            samples.setdefault(key, {})[end.lower()] = path
    found, without = [], []
    for key, files in samples.items():
        if (suffix := image_of_sample(files, archive.path, key)) is None:
            images = [str(one) for one in files.values() if one.suffix.lower() in SUFFIXES]
            without += images[:1]
            continue
        label = archive.files.get(files.get(LABEL, PurePosixPath()))
        if label is None or label.size > MAX_LABEL_BYTES:
            raise DataError(f"{archive.path / files[suffix]} has no class: there is no {key}.cls")
        text = archive.read(label).decode("utf-8", "replace").strip()
        found.append((index, files[suffix], archive.files[files[suffix]], text))
    if without:
        warn(
            "%s: %d images are not read, because WebDataset cuts their names at the first dot, and "
            "the rest is no suffix of an image: %s",
            archive.path.name, len(without), first_few(without),
        )  # fmt: skip
    return found


def sample_key(path: str) -> tuple[str, str] | tuple[None, str]:
    """The key of a file's sample, and its suffix: WebDataset cuts a name at its first dot.

    Parts with a digit belong to the key, so that ``frame.0001.png`` is a sample of its own, and
    ``0001.seg.png`` another file of 0001.
    """
    folder, _, name = path.rpartition("/")
    parts = name.split(".")
    place = next((i for i in range(1, len(parts)) if not re.search(r"\d", parts[i])), 0)
    place = place or len(parts) - 1  # a suffix like jp2
    if place == 0 or not parts[0]:
        return None, name
    key = ".".join(parts[:place])
    return f"{folder}/{key}" if folder else key, ".".join(parts[place:])


def image_of_sample(suffixes: Iterable[str], path: Path, key: str) -> str | None:
    """The suffix of the image of a sample: the first one, if there are several.

    Raises:
        DataError: there is a class and no image.
    """
    suffixes = list(suffixes)
    found = next((one for one in suffixes if f".{one}" in SUFFIXES), None)
    if found is None and LABEL in suffixes:
        raise DataError(
            f"{path.name}/{key} has a class and no image: its files end in "
            f"{', '.join(sorted(suffixes))}"
        )
    return found


def is_webdataset(archive: Archive) -> bool:
    """Whether an archive holds samples of WebDataset."""
    return any(path.suffix.lower() == f".{LABEL}" for path in archive.files)


def class_names(folder: Path) -> list[str]:
    """The lines of ``classes.txt`` in a folder; empty if there is none, or it cannot be used."""
    path = folder / CLASSES
    try:
        names = path.read_text("utf-8-sig").rstrip().splitlines()
    except OSError:
        return []
    except ValueError:
        warn("%s is not used, because it is not UTF-8 text", path)
        return []
    if len(set(names)) < len(names):
        warn("%s is not used, because it has a line twice", path)
        return []
    return names


def name_labels(texts: list[str], folder: Path) -> list[str]:
    """The name of each label: a line of ``classes.txt`` in this folder, or the number itself."""
    names = class_names(folder)
    by_text = {text: int(text) if text.isdecimal() else -1 for text in set(texts)}
    unknown = sorted(text for text, number in by_text.items() if not 0 <= number < len(names))
    if names and unknown and not set(names).issuperset(texts):
        warn(
            "%s is not used, because it has %d lines, and there is a label %s",
            folder / CLASSES, len(names), unknown[-1],
        )  # fmt: skip
    return texts if unknown else [names[by_text[text]] for text in texts]


def open_tree(path: Path) -> FileTree | None:
    """The tree of ``.npz`` or ``.npy`` files, or of a folder of shards; None for anything else."""
    if path.is_dir() and _has_npy_pair(path):
        return ArrayTree(path)
    if path.is_dir():
        shards = shards_in(path)
        if not shards:
            return None
        if shards[0].suffix == ".npz":
            return ArrayTree(path, shards)
        return TarTree(path, [Archive(shard) for shard in shards])
    return ArrayTree(path) if path.suffix.lower() in (".npz", ".npy") else None
