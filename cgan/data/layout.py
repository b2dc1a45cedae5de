"""Which images a folder or archive has, their classes, and their splits.

Several layouts, each also inside ``train/``, ``val/`` and ``test/``:

    cat/a.jpg  dog/b.jpg                  one folder per class
    cat/indoors/a.jpg  dog/outdoors/b.jpg nested: one level of folders per attribute
    labels.csv       a.jpg  b.jpg         columns ``file_name`` and ``label``
    metadata.csv     …                    the same: Hugging Face's ImageFolder
    metadata.jsonl   …                    the same, one JSON object per line

A folder ``_unlabelled`` beside the training images holds images without a class.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cgan.attributes import JOINT, attribute_values, split_classes
from cgan.data.archive import HUB_PREFIX, AnyPath, Archive, ArchivePath, is_archive
from cgan.data.class_folders import (
    UNLABELLED_FOLDERS,
    class_images,
    first_few,
    has_nested_classes,
    images_in,
)
from cgan.data.hub import HubDataset
from cgan.data.label_table import label_columns, read_labels
from cgan.data.split_folders import SPLIT_FOLDERS, split_folders, table_of
from cgan.data.splits import Split
from cgan.errors import DataError, quote
from cgan.storage.paths import require_utf8

NO_LABEL = -1
"""The label of an image without a class."""

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class Layout:
    """The images of a folder.

    Attributes:
        classes: the class names, sorted.
        paths: one file per image.
        labels: the index of each image's class; -1 for an unlabelled image.
        splits: the split of each image; None if a hash of its content decides.
    """

    classes: tuple[str, ...]
    paths: tuple[AnyPath, ...]
    labels: tuple[int, ...]
    splits: tuple[Split | None, ...]


def open_root(path: Path) -> AnyPath:
    """A folder unchanged; of an archive its root, or the only folder in it; a data set of the Hub.

    Raises:
        DataError: the archive cannot be read, or the data set cannot be loaded.
    """
    if not is_archive(path):
        return path
    if str(path).startswith(HUB_PREFIX):
        return ArchivePath(HubDataset(path))
    root = ArchivePath(Archive(path))
    while len(folders := [one for one in root.iterdir() if one.is_dir()]) == 1:
        beside = [one for one in root.iterdir() if one.suffix.lower() in (".csv", ".jsonl")]
        inside = list(folders[0].iterdir())
        if beside or not any(one.is_dir() or one.suffix in (".csv", ".jsonl") for one in inside):
            break  # it is the folder of a single class, or a table names the files in it
        root = folders[0]
    return root


def find_images(root: AnyPath) -> Layout:
    """Find the images of a folder and their classes.

    Raises:
        DataError: there are none, or the layout is none of these; the message says why.
        FileError: a name is not UTF-8.
    """
    try:
        parts = split_folders(root) or {None: root}
        training = parts.get("train", root)
        several = _has_several_labels(training)
        found = {
            split: [
                (unicodedata.normalize("NFC", name), path)  # macOS writes the other form
                for name, path in _labelled(folder, several)
            ]
            for split, folder in parts.items()
        }
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    trained = {name for split in ("train", None) for name, _ in found.get(split, ())}
    for split, pairs in found.items():
        if unknown := sorted({name for name, _ in pairs} - trained):
            raise DataError(
                f"{first_few(unknown)} in {parts[split]} has no training "
                "images: add some, or remove it"
            )
    for name in trained:
        require_utf8(Path(name))
    if several:
        check_attributes(sorted(trained), training)
    index = {name: label for label, name in enumerate(sorted(trained))}
    images = [(path, index[name], split) for split in found for name, path in found[split]]
    images += _unlabelled({None: root, **parts})
    paths, labels, splits = zip(*images, strict=True)
    return Layout(tuple(index), paths, labels, splits)


def check_attributes(classes: Sequence[str], root: AnyPath) -> None:
    """Check nested folders, and log the attributes.

    Raises:
        DataError: a folder is named like a split, a name is not one value, or an attribute has a
            single value or says the same as another one.
    """
    rows = split_classes(classes)
    if rows is None:
        raise DataError(
            f"{JOINT!r} joins attributes, so no folder or value in {root} may have it in its name"
        )
    columns = [[row[index] for row in rows] for index in range(len(rows[0]))]
    values = attribute_values(rows)
    if splits := [name for name in values[0] if name.lower() in SPLIT_FOLDERS]:
        raise DataError(
            f"{first_few(splits)} in {root} look like splits, but there is no folder train beside "
            "the others: add it, or rename them"
        )
    for index, known in enumerate(values):
        if len(known) == 1:
            raise DataError(
                f"all images in {root} are {quote(known[0])}, and an attribute needs two values: "
                "leave it out"
            )
        for other in range(index):
            pairs = len(set(zip(columns[index], columns[other], strict=True)))
            if pairs == len(known) == len(values[other]):
                raise DataError(
                    f"{quote(columns[index][0])} and {quote(columns[other][0])} in {root} always "
                    "occur together, as do the other values of both attributes: leave one out"
                )
    logger.info("%d attributes: %s", len(values), "; ".join(map(first_few, values)))


def _has_several_labels(root: AnyPath) -> bool:
    """Whether the images have several labels: by nested folders, or by columns of a table."""
    table = table_of(root)
    return has_nested_classes(root) if table is None else len(label_columns(table)) > 1


def _labelled(root: AnyPath, several: bool) -> list[tuple[str, AnyPath]]:
    """The class and the path of each image in one split."""
    if (table := table_of(root)) is not None:
        labels = read_labels(table)
        paths = {name: root / name for name in labels}
        _check_files(table, paths)
        above = {PurePosixPath(name).parts[0].lower() for name in labels if "/" in name}
        if len({SPLIT_FOLDERS[one] for one in above & SPLIT_FOLDERS.keys()}) > 1:
            raise DataError(
                f"{table} names images of several splits ({first_few(sorted(above))}): put a table "
                "into each of these folders instead"
            )
        return [(labels[name], path) for name, path in paths.items()]
    return class_images(root, several)


def _check_files(table: AnyPath, paths: dict[str, AnyPath]) -> None:
    """Every label has a file, and every image beside a labelled one has a label."""
    if missing := [name for name, path in paths.items() if not path.is_file()]:
        raise DataError(f"{table} has labels of files that do not exist: {first_few(missing)}")
    folders = {str(path.parent): path.parent for path in paths.values()}
    known = set(paths.values())
    if without := [
        str(path) for folder in folders.values() for path in images_in(folder) if path not in known
    ]:
        raise DataError(
            f"{table} has no label for {first_few(without)}: add labels, or move these images "
            "elsewhere"
        )


def _unlabelled(parts: dict[Split | None, AnyPath]) -> list[tuple[AnyPath, int, Split | None]]:
    """The unlabelled images, which are for training only."""
    found: list[tuple[AnyPath, int, Split | None]] = []
    for split, root in parts.items():
        for folder in (root / name for name in UNLABELLED_FOLDERS):
            if not folder.is_dir():
                continue
            if split in ("validation", "test"):
                logger.warning("ignored, because only training uses unlabelled images: %s", folder)
                continue
            images = images_in(folder)
            if not images:
                logger.warning("ignored, because it holds no images: %s", folder)
            found += [(path, NO_LABEL, split) for path in images]
    return found
