"""Folders ``train``, ``val`` and ``test`` inside a folder of images."""

from __future__ import annotations

from cgan.data.archive import AnyPath
from cgan.data.class_folders import folders_in, holds_images, images_in
from cgan.data.label_table import TABLES
from cgan.data.splits import Split
from cgan.errors import DataError

SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders that hold one split."""


def split_folders(root: AnyPath) -> dict[Split | None, AnyPath]:
    """The folder of each split; empty if the layout has none.

    Folders ``train`` and ``test`` are classes like any other if all folders hold images and no
    table of labels. Folders beside them that hold no images are ignored.

    Raises:
        DataError: a split has images without a class, two folders are the same split, or there are
            images in a folder that is not a split.
    """
    folders = [] if table_of(root) else folders_in(root)
    if not any(SPLIT_FOLDERS.get(folder.name.lower()) == "train" for folder in folders):
        return {}
    folders = [folder for folder in folders if _holds_data(folder)]
    names = [SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders]
    if "train" not in names:
        return {}
    loose = [folder for folder in folders if images_in(folder) and table_of(folder) is None]
    if len(loose) == len(folders):
        return {}  # classes
    if None in names:
        training, other = folders[names.index("train")], folders[names.index(None)]
        if training in loose:
            return {}  # classes, of which some have no images of their own
        raise DataError(
            f"{other} is beside the folder {training.name}, but it is not a split: move it "
            f"elsewhere, or rename {training.name} if it is a class"
        )
    if loose:
        raise DataError(
            f"the images in {loose[0]} have no class: put them into one folder per class, or move "
            f"{loose[0].name} elsewhere"
        )
    splits: dict[Split | None, AnyPath] = {}
    for split, folder in zip(names, folders, strict=True):
        if split in splits:
            raise DataError(f"{splits[split]} and {folder} are the same split: merge them")
        splits[split] = folder
    return splits


def _holds_data(folder: AnyPath) -> bool:
    return holds_images(folder) or table_of(folder) is not None


def table_of(root: AnyPath) -> AnyPath | None:
    """The table of labels in a folder, or None."""
    tables = [root / name for name in TABLES if (root / name).is_file()]
    if len(tables) > 1:
        raise DataError(f"{tables[0]} and {tables[1]} both hold labels: remove one")
    return tables[0] if tables else None
