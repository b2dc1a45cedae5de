"""Which images a folder or archive has, their classes, and their splits.

Several layouts, each also inside ``train/``, ``val/`` and ``test/``:

    cat/a.jpg  dog/b.jpg                  one folder per class
    cat/indoors/a.jpg  dog/outdoors/b.jpg nested: one level of folders per attribute
    cat/rex/a.jpg      dog/bello/b.jpg    nested: a name below one class only is a group
    labels.csv       a.jpg  b.jpg         columns ``file_name`` and ``label``
    train.csv        train/a.jpg          Kaggle's: its first column names the files
    dataset.json     00000/a.png          StyleGAN's
    metadata.csv     …                    the same: Hugging Face's ImageFolder
    metadata.jsonl   …                    the same, one JSON object per line

A folder ``_unlabelled`` beside the training images holds images without a class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from cgan.attributes import JOINT, attribute_values, join_values, sort_for_display
from cgan.data.archive import HUB_PREFIX, AnyPath, Archive, ArchivePath, is_archive
from cgan.data.facts import inform, warn
from cgan.data.find_table import locate, table_of
from cgan.data.folders import (
    PICTURE_LIKE,
    PLAIN_FOLDERS,
    SPLIT_FOLDERS,
    check_depths,
    composed,
    folders_in,
    folders_of_images_below,
    has_nested_classes,
    holds_images,
    holds_images_below,
    images_in,
    leaves_of,
    names_in,
    say_what_is_not_read,
    split_of,
    unread_suffixes,
)
from cgan.data.hub import HubDataset
from cgan.data.image_file import SUFFIXES
from cgan.data.label_table import STYLEGAN_TABLE, is_foreign, read_labels
from cgan.data.shard_trees import TarTree, is_webdataset, open_tree
from cgan.data.splits import SPLITS, UNLABELLED_FOLDERS, Split
from cgan.errors import DataError, first_few, quote
from cgan.storage.paths import require_utf8
from cgan.storage.safe_reading import MAX_CLASS_NAME

PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
DOMAIN_FOLDER = re.compile(f"({'|'.join(SPLIT_FOLDERS)})_?[ab]")
NO_LABEL = -1
"""The label of an image without a class."""


def class_images(root: AnyPath, nested: bool) -> list[tuple[tuple[str, ...], AnyPath]]:
    """The values of each image, one per attribute, and its path.

    Args:
        root: holds one folder per class.
        nested: whether there is one level of folders for each attribute.

    Raises:
        DataError: there are no images, or the folders are neither classes nor attributes.
    """
    folders = folders_in(root)
    if not nested:
        found = {folder.name: images_in(folder) for folder in folders}
        _check_class_folders(root, found)
        _warn_of_other_images(root, [folder for folder in folders if found[folder.name]])
        return [((name,), path) for name, paths in found.items() for path in paths]
    leaves = {folder.name: leaves_of(folder, (folder.name,)) for folder in folders}
    if empty := [str(root / name) for name, found_ in leaves.items() if not found_]:
        warn("ignored, because they hold no images: %s", first_few(empty))
    every = [leaf for found_ in leaves.values() for leaf in found_]
    if not every:
        raise DataError(f"no images in {root}: it must contain folders like those for training")
    check_depths(every)
    _warn_of_other_images(root, [leaf for _, leaf in every])
    return [(values, path) for values, leaf in every for path in images_in(leaf)]


def _check_class_folders(root: AnyPath, found: dict[str, list[AnyPath]]) -> None:
    """Raise ``DataError`` if no class has images; log a warning about folders that are ignored."""
    others = [root / name for name, paths in found.items() if not paths]
    holds_nested = [holds_images_below(folder) for folder in others]
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
        if archives := [name for name in names_in(root) if name.lower().endswith(PACKED)]:
            raise DataError(
                f"no images in {root}, but {first_few(archives)}: unpack what is inside, into one "
                "folder per class"
            )
        raise DataError(
            f"no images in {root}: it must contain one folder of images per class "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    if links := [path for path in nested if Path(path).is_symlink()]:  # they may lead to a loop
        warn("ignored, because they are links: %s", first_few(links))
    if nested := [path for path in nested if path not in links]:
        direct = next(name for name, paths in found.items() if paths)
        raise DataError(
            f"{first_few(nested)} holds folders of images, and {root / direct} holds images: put "
            "all images of a class directly into its folder, or all of them one folder deeper"
        )
    unread = {name: unread_suffixes(root / name) for name, paths in found.items() if not paths}
    if full := [name for name, suffixes in unread.items() if suffixes & PICTURE_LIKE]:
        suffixes = ", ".join(sorted(unread[full[0]]))
        raise DataError(
            f"{root / full[0]} holds files ({suffixes}), and none of them is an image that can be "
            "read: convert them to PNG, or move the folder elsewhere"
        )
    if empty:
        warn("ignored, because they hold no images: %s", first_few(empty))


def _warn_of_other_images(root: AnyPath, class_folders: Sequence[AnyPath]) -> None:
    """Log a warning about images beside the class folders, and in folders inside them."""
    inner = [leaf for folder in class_folders for leaf in folders_of_images_below(folder)]
    others = [str(path) for folder in (root, *inner) for path in images_in(folder)]
    if others:
        warn(
            "ignored, because they are not directly in the folder of a class: %s",
            first_few(others),
        )


def split_folders(root: AnyPath) -> dict[Split | None, AnyPath]:
    """The folder of each split; empty if the layout has none.

    A folder ``train`` is a class like any other if all folders hold images and no table of labels,
    and one of them is not named like a split. Folders that hold no images are ignored.

    Raises:
        DataError: a split has images without a class, two folders are the same split, or there are
            images in a folder that is not a split.
    """
    folders = [] if table_of(root) else folders_in(root)
    if not any(split_of(folder.name) == "train" for folder in folders):
        return {}
    folders = [folder for folder in folders if _holds_data(folder)]
    names = [split_of(folder.name) for folder in folders]
    if "train" not in names:
        return {}
    loose = [folder for folder in folders if images_in(folder) and table_of(folder) is None]
    if len(loose) == len(folders):
        if None not in names:
            _refuse_splits_as_classes(root, folders)
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


def _refuse_splits_as_classes(root: AnyPath, folders: Sequence[AnyPath]) -> NoReturn:
    names = first_few([folder.name for folder in folders])
    raise DataError(
        f"the folders in {root} are splits ({names}), and nothing says which class their images "
        "have: put one folder per class into each, or beside them a table whose first column "
        "names the files and whose second one is the class"
    )


def _refuse_pairs_of_domains(root: AnyPath, classes: Iterable[tuple[str, ...]]) -> None:
    """Raise ``DataError`` for folders like those of CycleGAN: trainA, trainB, testA, testB."""
    names = sorted(values[0] for values in classes)
    parts = [DOMAIN_FOLDER.fullmatch(name.lower()) for name in names]
    if len({part[1] for part in parts if part}) > 1 and all(parts):
        raise DataError(
            f"the folders in {root} are splits of two domains ({first_few(names)}): call them "
            "train/A, train/B, test/A and test/B to make each domain a class"
        )


def _refuse_chunks(root: AnyPath, classes: Iterable[tuple[str, ...]]) -> None:
    """Raise ``DataError`` for the folders 00000, 00001, … of a data set without labels."""
    if all(re.fullmatch(r"\d{5}", value) for values in classes for value in values):
        raise DataError(
            f"{root / STYLEGAN_TABLE} has no labels, and the folders beside it are chunks of "
            "files, no classes: add labels, or put the images into one folder per class"
        )


def _holds_data(folder: AnyPath) -> bool:
    return holds_images(folder) or table_of(folder) is not None


@dataclass(frozen=True)
class Layout:
    """The images of a folder.

    Attributes:
        classes: the class names, sorted.
        paths: one file per image.
        labels: the index of each image's class; -1 for an unlabelled image.
        splits: the split of each image; None if a hash of its content decides.
        num_attributes: how many attributes a class combines.
        groups: the group of each image, whose images stay in one split; None if it has none.
    """

    classes: tuple[str, ...]
    paths: tuple[AnyPath, ...]
    labels: tuple[int, ...]
    splits: tuple[Split | None, ...]
    num_attributes: int
    groups: tuple[str | None, ...]


def open_root(path: Path) -> AnyPath:
    """A folder unchanged; of an archive its root, or the only folder in it; a data set of the Hub.

    Raises:
        DataError: the archive cannot be read, or the data set cannot be loaded.
    """
    if (tree := open_tree(path)) is not None:
        return ArchivePath(tree)
    if not is_archive(path):
        return path
    if str(path).startswith(HUB_PREFIX):
        return ArchivePath(HubDataset(path))
    archive = Archive(path)
    if is_webdataset(archive):
        return ArchivePath(TarTree(path, [archive]))
    root = ArchivePath(archive)
    while len(folders := [one for one in root.iterdir() if one.is_dir()]) == 1:
        beside = any(_is_table(one) for one in root.iterdir())
        inside = list(folders[0].iterdir())
        if beside or not any(one.is_dir() or _is_table(one) for one in inside):
            break  # it is the folder of a single class, or a table names the files in it
        if loose := images_in(root):
            warn(
                "ignored, because they are beside the only folder: %s",
                first_few(list(map(str, loose))),
            )
        root = folders[0]
    return root


def _is_table(path: AnyPath) -> bool:
    return path.suffix.lower() in (".csv", ".jsonl") or path.name == STYLEGAN_TABLE


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
            split: [one.with_composed_names() for one in _labelled(folder, several)]
            for split, folder in parts.items()
        }
        has_table = table_of(training) is not None
        if several and not has_table:
            found = _find_groups(found)
        inform("layout: %s", _describe(training, parts, found))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    trained = {one.values for split in ("train", None) for one in found.get(split, ())}
    for split, images in found.items():
        if unknown := sorted({one.values for one in images} - trained):
            names = first_few(sort_for_display(sorted(map(join_values, unknown))))
            raise DataError(
                f"{names} in {parts[split]} has no training images: add some, or remove it"
            )
    _refuse_pairs_of_domains(training, trained)
    if (training / STYLEGAN_TABLE).is_file() and not has_table:
        _refuse_chunks(training, trained)
    for values in trained:
        require_utf8(Path(join_values(values)))
        if (length := len(join_values(values))) > MAX_CLASS_NAME:
            name = quote(join_values(values))
            raise DataError(
                f"a class has {length:,} characters, at most {MAX_CLASS_NAME} are possible: {name}"
            )
    in_order = sorted(trained, key=join_values)
    if len(in_order[0]) > 1:
        check_attributes(in_order, training)
    index = {values: label for label, values in enumerate(in_order)}
    rows = [
        (one.path, index[one.values], split, one.group) for split in found for one in found[split]
    ]
    rows += [(*row, None) for row in _unlabelled({None: root, **parts})]
    paths, labels, splits, groups = zip(*rows, strict=True)
    say_what_is_not_read({path.parent for path in paths})
    classes = tuple(map(join_values, in_order))
    return Layout(classes, paths, labels, splits, len(in_order[0]), groups)


def _describe(
    training: AnyPath,
    parts: Mapping[Split | None, AnyPath],
    found: Mapping[Split | None, Sequence[Labelled]],
) -> str:
    """The layout as text, such as "one folder per class, in train and test"."""
    images, table = [one for some in found.values() for one in some], table_of(training)
    several = any(one.group for one in images)
    attributes = max((len(one.values) for one in images), default=1)
    if isinstance(training, ArchivePath) and training.archive.kind:
        text = training.archive.kind
    elif table is not None:
        text = table.name
    elif attributes > 1:
        text = "nested folders, one level for each attribute"
    else:
        text = "one folder per class" + (", and in it one per group" if several else "")
    if folders := [parts[split].name for split in SPLITS if split in parts]:
        text += f", in {' and '.join(folders)}"
    return text


class Labelled(NamedTuple):
    """An image with its values, one per attribute, and its group."""

    values: tuple[str, ...]
    path: AnyPath
    group: str | None = None

    def with_composed_names(self) -> Labelled:
        """macOS writes the other form of Unicode."""
        if all(map(str.isascii, self.values)):
            return self
        return self._replace(values=tuple(map(composed, self.values)))


def _find_groups(
    found: dict[Split | None, list[Labelled]],
) -> dict[Split | None, list[Labelled]]:
    """Levels of folders that are no attributes: folders like ``images``, and groups.

    A level whose names occur below one parent only cannot be combined with other classes: each is a
    patient, a scene or another source of several images of one class.
    """
    rows = {one.values for split in ("train", None) for one in found.get(split, ())}
    depth = len(next(iter(rows)))
    kept = [
        level for level in range(depth)
        if level == 0 or {row[level].lower() for row in rows} - PLAIN_FOLDERS
    ]  # fmt: skip
    rows = {tuple(row[level] for level in kept) for row in rows}
    attributes = next(
        (level for level in range(1, len(kept)) if _is_level_of_groups(rows, level)), len(kept)
    )
    if attributes < len(kept):
        inform(
            "folders that are below one class each, such as %s, are groups: all images of one are "
            "in the same split",
            "/".join(min(rows)),
        )

    def cut(one: Labelled) -> Labelled:
        if len(one.values) != depth:  # another layout than that of the training images
            return one
        values = tuple(one.values[level] for level in kept)
        group = "/".join(values[: attributes + 1]) if attributes < len(kept) else None
        return Labelled(values[:attributes], one.path, group)

    return {split: [cut(one) for one in images] for split, images in found.items()}


def _is_level_of_groups(rows: set[tuple[str, ...]], level: int) -> bool:
    """Whether each name at this level is below one parent, and some parent has several of them."""
    pairs = {(row[:level], row[level]) for row in rows}
    names, parents = {name for _, name in pairs}, {parent for parent, _ in pairs}
    return len(pairs) == len(names) > len(parents)


def check_attributes(rows: Sequence[tuple[str, ...]], root: AnyPath) -> None:
    """Check the values of several attributes, one row per class, and log the attributes.

    Raises:
        DataError: a folder is named like a split, a name is not one value, or an attribute has a
            single value or says the same as another one.
    """
    if any(tuple(join_values(row).split(JOINT)) != row for row in rows):
        raise DataError(
            f"{JOINT!r} joins attributes, so no folder or value in {root} may have it in its name"
        )
    columns = [[row[index] for row in rows] for index in range(len(rows[0]))]
    values = attribute_values(rows)
    if splits := [name for name in values[0] if split_of(name)]:
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
    shown = "; ".join(first_few(sort_for_display(known)) for known in values)
    inform("%d attributes: %s", len(values), shown)


def _has_several_labels(root: AnyPath) -> bool:
    """Whether the images have several labels: by nested folders, or by columns of a table."""
    table = table_of(root)
    if table is None:
        return has_nested_classes(root)
    labels = read_labels(table, is_foreign(table)).labels
    return len(next(iter(labels.values()))) > 1


def _labelled(root: AnyPath, several: bool) -> list[Labelled]:
    """The images of one split."""
    if (table := table_of(root)) is not None:
        found = read_labels(table, is_foreign(table))
        labels = found.labels
        if found.unused:
            inform("columns of %s that are not used: %s", table, first_few(found.unused))
        paths = locate(root, table, list(labels))
        used = {str(path.parent) for path in paths.values()}
        others = [str(one) for one in folders_of_images_below(root) if str(one) not in used]
        if others:
            warn(
                "ignored, because %s names none of their images: %s",
                table.name, first_few([str(Path(one).relative_to(str(root))) for one in others]),
            )  # fmt: skip
        above = {part for one in used for part in Path(one).relative_to(str(root)).parts}
        above = {part for part in above if split_of(part)}
        if len(set(map(split_of, above))) > 1:
            raise DataError(
                f"{table} names images of several splits ({first_few(sorted(above))}): put a table "
                "into each of these folders instead"
            )
        return [
            Labelled(labels[name], path, found.groups.get(name)) for name, path in paths.items()
        ]
    return [Labelled(values, path) for values, path in class_images(root, several)]


def _unlabelled(parts: dict[Split | None, AnyPath]) -> list[tuple[AnyPath, int, Split | None]]:
    """The unlabelled images, which are for training only."""
    found: list[tuple[AnyPath, int, Split | None]] = []
    for split, root in parts.items():
        for folder in (root / name for name in UNLABELLED_FOLDERS):
            if not folder.is_dir():
                continue
            if split in ("validation", "test"):
                warn("ignored, because only training uses unlabelled images: %s", folder)
                continue
            images, deeper = images_in(folder), folders_of_images_below(folder)
            if deeper:
                warn(
                    "ignored, because they are not directly in %s: the images in %s",
                    folder.name, first_few(list(map(str, deeper))),
                )  # fmt: skip
            elif not images:
                warn("ignored, because it holds no images: %s", folder)
            found += [(path, NO_LABEL, split) for path in images]
    return found
