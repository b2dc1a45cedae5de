"""Folders of images, in directories and archives: which of their entries count."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cgan.data.archive import IGNORED, AnyPath
from cgan.data.facts import inform
from cgan.data.image_file import SUFFIXES
from cgan.data.label_table import MAX_ATTRIBUTES
from cgan.data.splits import UNLABELLED_FOLDERS, Split
from cgan.errors import DataError, first_few

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders that hold one split; also ``training_set``, ``test-images``, ``seg_train``."""
SPLIT_FOLDER = re.compile(
    rf"((seg|images?|imgs?|data)[ _-]?)?(?P<split>{'|'.join(SPLIT_FOLDERS)})"
    r"([ _-]?(set|data|dataset|images?|imgs?|split|folder))?"
)
PICTURE_LIKE = {
    ".npy", ".npz", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".dcm", ".dng", ".nef", ".cr2",
    ".cr3", ".arw", ".raw", ".svg", ".psd", ".exr", ".hdr", ".mat", ".nii", ".mp4", ".avi",
    ".mov", ".webm",
}  # fmt: skip
"""Suffixes of files whose owner takes them for images."""
TABLE_SUFFIXES = (".csv", ".jsonl", ".json")
PLAIN_FOLDERS = {"images", "image", "imgs", "img", "pictures", "photos", "jpg", "jpeg", "png"}
"""Names of folders inside of classes that say nothing."""


def split_of(folder: str) -> Split | None:
    """The split that the name of a folder means."""
    found = SPLIT_FOLDER.fullmatch(folder.lower())
    return SPLIT_FOLDERS[found["split"]] if found else None


def composed(name: str) -> str:
    """A name in the form of Unicode in which macOS does not write it."""
    return unicodedata.normalize("NFC", name)


def has_nested_classes(root: AnyPath) -> bool:
    """Whether the folders are nested: at least two hold no images, but folders of images."""
    folders = folders_in(root)
    if any(map(images_in, folders)):
        return False
    return sum(map(holds_images, folders)) > 1


def holds_images(folder: AnyPath) -> bool:
    """Whether there are images in a folder, or in the folders below it."""
    return bool(leaves_of(folder, (folder.name,)))


def leaves_of(folder: AnyPath, values: tuple[str, ...]) -> list[tuple[tuple[str, ...], AnyPath]]:
    """The folders below this one that hold images, each with the names of the folders above."""
    if images_in(folder):
        return [(values, folder)]
    if len(values) >= MAX_ATTRIBUTES and Path(str(folder)).is_symlink():  # it may lead to a loop
        return []
    inner = folders_in(folder)
    return [leaf for one in inner for leaf in leaves_of(one, (*values, one.name))]


def check_depths(leaves: list[tuple[tuple[str, ...], AnyPath]]) -> None:
    """Raise ``DataError`` unless all of these folders are at one depth that attributes may have."""
    (first, place), *others = leaves
    for values, leaf in others:
        if len(values) != len(first):
            raise DataError(
                f"{place} and {leaf} hold images at different depths: use one level of "
                "folders for each attribute"
            )
    if len(first) > MAX_ATTRIBUTES:
        raise DataError(
            f"{place} is {len(first)} folders deep: each level is an attribute, and the limit is "
            f"{MAX_ATTRIBUTES}"
        )


def folders_of_images_below(folder: AnyPath) -> list[AnyPath]:
    """The folders inside of this one that hold images, at any depth."""
    return [leaf for one in folders_in(folder) for _, leaf in leaves_of(one, (one.name,))]


def holds_images_below(folder: AnyPath) -> bool:
    """Whether a folder holds folders of images; below a link only one level is searched."""
    if Path(str(folder)).is_symlink():  # it may lead anywhere
        return any(map(images_in, folders_in(folder)))
    return bool(folders_of_images_below(folder))


def folders_in(root: AnyPath) -> list[AnyPath]:
    """All folders but hidden ones, those of unlabelled images, and the one that macOS adds."""
    others = (*UNLABELLED_FOLDERS, IGNORED)
    names = (name for name, is_folder in _entries(root) if is_folder)
    return [root / name for name in sorted(names) if name[0] != "." and name not in others]


def images_in(folder: AnyPath) -> list[AnyPath]:
    """Everything that is named like an image; a link to nowhere is a broken image."""
    names = (name for name, is_folder in _entries(folder) if not is_folder and name[0] != ".")
    return [
        folder / name for name in sorted(names) if os.path.splitext(name)[1].lower() in SUFFIXES
    ]


def _entries(folder: AnyPath) -> list[tuple[str, bool]]:
    """The name of each entry, and whether it is a folder, with one call for all of a directory."""
    if not isinstance(folder, Path):
        return [(path.name, path.is_dir()) for path in folder.iterdir()]
    with os.scandir(folder) as found:
        # Path.is_dir takes a link that leads nowhere for a file.
        return [
            (one.name, (folder / one.name).is_dir() if one.is_symlink() else one.is_dir())
            for one in found
        ]


def names_in(folder: AnyPath) -> list[str]:
    """The names of all entries: ten times as fast as ``iterdir`` where there are many."""
    return (
        os.listdir(folder) if isinstance(folder, Path) else [one.name for one in folder.iterdir()]
    )


def unread_suffixes(folder: AnyPath) -> set[str]:
    """The suffixes of the files in a folder that are no images."""
    files = (path for path in folder.iterdir() if path.name[0] != "." and path.is_file())
    return {path.suffix.lower() or "no suffix" for path in files} - SUFFIXES


def say_what_is_not_read(folders: Iterable[AnyPath]) -> None:
    """Log how many files of other suffixes are beside the images."""
    counts: Counter[str] = Counter()
    for folder in folders:
        for name in names_in(folder):
            suffix = os.path.splitext(name)[1].lower()
            is_other = suffix not in SUFFIXES and suffix not in TABLE_SUFFIXES and name[0] != "."
            if is_other and (folder / name).is_file():
                counts[suffix or "without a suffix"] += 1
    if counts:
        in_order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        texts = [f"{count:,} {suffix}" for suffix, count in in_order]
        inform("files beside the images that are not read: %s", first_few(texts, 10))
