"""Classes as folders of images: one folder per class, or one level of folders per attribute."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cgan.attributes import join_values
from cgan.data.archive import IGNORED, AnyPath, ArchivePath
from cgan.data.image_file import SUFFIXES
from cgan.errors import DataError

UNLABELLED_FOLDERS = ("_unlabelled", "_unlabeled")
MAX_ATTRIBUTES = 4
"""Levels of folders that are searched for images."""

logger = logging.getLogger("cgan")


def has_nested_classes(root: AnyPath) -> bool:
    """Whether the folders are nested: at least two hold no images, but folders of images."""
    folders = folders_in(root)
    if any(map(images_in, folders)):
        return False
    return sum(map(holds_images, folders)) > 1


def holds_images(folder: AnyPath) -> bool:
    """Whether there are images in a folder, or in the folders below it."""
    return bool(_leaves(folder, (folder.name,)))


def class_images(root: AnyPath, nested: bool) -> list[tuple[str, AnyPath]]:
    """The class and the path of each image.

    Args:
        root: holds one folder per class.
        nested: whether there is one level of folders for each attribute; classes then join the
            names of the folders.

    Raises:
        DataError: there are no images, or the folders are neither classes nor attributes.
    """
    folders = folders_in(root)
    if not nested:
        found = {folder.name: images_in(folder) for folder in folders}
        _check_class_folders(root, found)
        _warn_of_other_images(root, [folder for folder in folders if found[folder.name]])
        return [(name, path) for name, paths in found.items() for path in paths]
    leaves = {folder.name: _leaves(folder, (folder.name,)) for folder in folders}
    if empty := [str(root / name) for name, found_ in leaves.items() if not found_]:
        logger.warning("ignored, because they hold no images: %s", first_few(empty))
    every = [leaf for found_ in leaves.values() for leaf in found_]
    if not every:
        raise DataError(f"no images in {root}: it must contain folders like those for training")
    for values, leaf in every:
        if len(values) != len(every[0][0]):
            raise DataError(
                f"{every[0][1]} and {leaf} hold images at different depths: use one level of "
                "folders for each attribute"
            )
    _warn_of_other_images(root, [leaf for _, leaf in every])
    return [(join_values(values), path) for values, leaf in every for path in images_in(leaf)]


def _leaves(folder: AnyPath, values: tuple[str, ...]) -> list[tuple[tuple[str, ...], AnyPath]]:
    """The folders below this one that hold images, each with the names of the folders above."""
    if images_in(folder):
        return [(values, folder)]
    if len(values) == MAX_ATTRIBUTES:
        return []
    inner = folders_in(folder)
    return [leaf for one in inner for leaf in _leaves(one, (*values, one.name))]


def first_few(items: Sequence[object], few: int = 3) -> str:
    """``a, b, c, 4 more``."""
    more = [f"{len(items) - few:,} more"] if len(items) > few else []
    return ", ".join([*map(str, items[:few]), *more])


def folders_in(root: AnyPath) -> list[AnyPath]:
    """All folders but hidden ones, those of unlabelled images, and the one that macOS adds."""
    others = (*UNLABELLED_FOLDERS, IGNORED)
    return sorted(
        path
        for path in root.iterdir()
        if path.name[0] != "." and path.name not in others and path.is_dir()
    )


def images_in(folder: AnyPath) -> list[AnyPath]:
    """Everything that is named like an image; a link to nowhere is a broken image."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.name[0] != "." and not path.is_dir()
    )


def _check_class_folders(root: AnyPath, found: dict[str, list[AnyPath]]) -> None:
    """Raise ``DataError`` if no class has images; log a warning about folders that are ignored."""
    others = [root / name for name, paths in found.items() if not paths]
    holds_nested = [any(map(_has_images, folder.iterdir())) for folder in others]
    nested = [str(folder) for folder, holds in zip(others, holds_nested, strict=True) if holds]
    empty = [str(folder) for folder, holds in zip(others, holds_nested, strict=True) if not holds]
    if not any(found.values()):
        if nested:
            hint = f"did you mean --data {nested[0]}?"
            if isinstance(root, ArchivePath):
                hint = "put the class folders at the top of the archive"
            raise DataError(f"the images in {root} are two folders deep: {hint}")
        if images_in(root):
            raise DataError(
                f"put the images in {root} into one folder per class, named after it, or add a "
                "labels.csv with the columns file_name and label"
            )
        raise DataError(
            f"no images in {root}: it must contain one folder of images per class "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    if nested:
        logger.warning("ignored, because they hold folders of images: %s", first_few(nested))
    if empty:
        logger.warning("ignored, because they hold no images: %s", first_few(empty))


def _warn_of_other_images(root: AnyPath, class_folders: Sequence[AnyPath]) -> None:
    """Log a warning about images beside the class folders, and in folders inside them."""
    inner = [one for folder in class_folders for one in folders_in(folder)]
    others = [str(path) for folder in (root, *inner) for path in images_in(folder)]
    if others:
        logger.warning(
            "ignored, because they are not directly in the folder of a class: %s",
            first_few(others),
        )


def _has_images(path: AnyPath) -> bool:
    return path.is_dir() and bool(images_in(path))
