"""Find the table of labels of a folder, and the files that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from cgan.data.archive import AnyPath
from cgan.data.facts import inform
from cgan.data.folders import (
    PLAIN_FOLDERS,
    SPLIT_FOLDERS,
    composed,
    folders_in,
    holds_images,
    images_in,
)
from cgan.data.label_table import STYLEGAN_TABLE, TABLES, is_table_of_stylegan, read_labels
from cgan.errors import DataError, first_few

OWN_INDEX = re.compile(r"shard-\d{5}\.csv")
"""What ``cgan generate`` writes beside generated images."""


def table_of(root: AnyPath) -> AnyPath | None:
    """The table of labels in a folder, or None."""
    tables = [root / name for name in TABLES if (root / name).is_file()]
    if is_table_of_stylegan(root / STYLEGAN_TABLE):
        tables.append(root / STYLEGAN_TABLE)
    tables = tables or foreign_tables(root)
    if len(tables) > 1:
        raise DataError(f"{tables[0]} and {tables[1]} both hold labels: remove one")
    return tables[0] if tables else None


def foreign_tables(root: AnyPath) -> list[AnyPath]:
    """CSV files that label all images beside them, or all in a folder like ``train`` or ``images``.

    They count only where folders are no classes. Others are named aloud.
    """
    tables = [one for one in root.iterdir() if one.suffix.lower() == ".csv" and one.name[0] != "."]
    tables = sorted(one for one in tables if one.is_file() and not OWN_INDEX.fullmatch(one.name))
    found = [one for one in tables if labels_all(one)]
    for table in tables:
        if table not in found:
            inform("a table that is not used: %s", table)
    return found


def labels_all(table: AnyPath) -> bool:
    """Whether a foreign table names all images of its folder, or of one that is for training."""
    root = table.parent
    folders = [folder for folder in folders_in(root) if holds_images(folder)]
    if any(not images_in(folder) for folder in folders):
        return False  # classes below splits, or nested ones
    places = [root] if images_in(root) else []
    for folder in folders:
        name = folder.name.lower()
        is_training = SPLIT_FOLDERS.get(name) == "train" or name in PLAIN_FOLDERS
        if is_training or folder.name == PurePosixPath(table.name).stem:
            places.append(folder)
        elif name not in SPLIT_FOLDERS:
            return False  # a class
    if len(places) != 1:
        return False
    try:
        names = read_labels(table, foreign=True).labels
    except DataError as error:
        inform("%s", error)
        return False
    wanted = {path.name for path in images_in(places[0])}
    known = {PurePosixPath(name).name for name in names}
    return all({name, PurePosixPath(name).stem} & known for name in wanted) and bool(wanted)


class FileIndex:
    """The images beside a table, and those one folder below it, by the names that tables use."""

    def __init__(self, root: AnyPath) -> None:
        self.root = root
        self.by_name: dict[str, list[AnyPath]] = {}
        for folder in (root, *folders_in(root)):
            above = () if folder is root else (composed(folder.name),)
            for path in images_in(folder):
                for name in map(composed, {path.name, PurePosixPath(path.name).stem}):
                    self.by_name.setdefault(name, []).append(path)
                    if above:
                        self.by_name.setdefault(f"{above[0]}/{name}", []).append(path)

    def find(self, name: str) -> list[AnyPath]:
        """The images with this name, with or without its suffix."""
        return self.by_name.get(composed(str(PurePosixPath(name))), [])


def locate(root: AnyPath, table: AnyPath, names: Sequence[str]) -> dict[str, AnyPath]:
    """The file of each name in a table; every image beside a labelled one has a label.

    A name may lack the suffix, and the file may be one folder below the table.
    """
    paths = {name: root / name for name in names}
    if missing := [name for name, path in paths.items() if not path.is_file()]:
        files = FileIndex(root)
        found = {name: files.find(name) for name in missing}
        if without := [name for name, several in found.items() if not several]:
            raise DataError(f"{table} has labels of files that do not exist: {first_few(without)}")
        if twice := next((several for several in found.values() if len(several) > 1), None):
            raise DataError(
                f"{table} may mean {twice[0]} or {twice[1]}: write the folder before the name"
            )
        paths |= {name: several[0] for name, several in found.items()}
        if len(set(paths.values())) < len(paths):
            raise DataError(f"{table} names a file twice, with and without its folder or suffix")
    folders = {str(path.parent): path.parent for path in paths.values()}
    known = set(paths.values())
    if without := [
        str(path) for folder in folders.values() for path in images_in(folder) if path not in known
    ]:
        raise DataError(
            f"{table} has no label for {first_few(without)}: add labels, or move these images "
            "elsewhere"
        )
    return paths
