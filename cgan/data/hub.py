"""Data sets of the Hugging Face Hub, named ``hf-datasets:NAME``, with the library ``datasets``.

The images appear as a tree of splits and classes, so that the code for archives reads them. A data
set that is not in the local cache of ``datasets`` is downloaded; ``HF_HUB_OFFLINE=1`` forbids that.
No code of a data set runs.
"""

from __future__ import annotations

import errno
import logging
import re
from pathlib import Path, PurePosixPath
from typing import Any

from cgan.data.archive import HUB_PREFIX, FileTree, Member, class_folders
from cgan.data.splits import SPLITS
from cgan.errors import DataError, first_few, one_line

LABEL_COLUMNS = ("label", "labels", "class", "fine_label")
"""Preferred names of the column of labels, if there are several."""

LABEL_TYPE = re.compile("(large_)?string|u?int[0-9]+|bool")
"""Types of a column of labels without names."""

logger = logging.getLogger("cgan")


class HubDataset(FileTree):
    """A data set as a tree ``SPLIT/CLASS/ROW.png``; rows without a class are left out.

    Args:
        path: ``hf-datasets:NAME``, where NAME may also be a local folder of Parquet files.

    Raises:
        DataError: the library is missing, the data set cannot be loaded, or it has no column of
            images or of labels.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.tables = _load(str(path).removeprefix(HUB_PREFIX))
        self.image_columns: dict[str, str] = {}
        if "train" not in self.tables:
            raise DataError(f"{path} has no split train: it has {first_few(list(self.tables))}")
        for split, table in self.tables.items():
            if split not in SPLITS:
                logger.warning("%s: the split %s is left out", path, split)
                continue
            self.image_columns[split] = _image_column(path, table)
            labels = _read_labels(path, table)
            folders = class_folders(path, labels)
            for row, label in enumerate(labels):
                if label is not None:
                    self._add(Member(f"{split}/{folders[label]}/{row:09}.png", 0, row))

    def read(self, member: Member) -> bytes:
        """The encoded image of a row.

        Raises:
            OSError: the row has no image, or its file is missing or belongs to something else.
        """
        split = PurePosixPath(member.name).parts[0]
        cell = self.tables[split][member.offset][self.image_columns[split]] or {}
        content: bytes | None = cell.get("bytes")
        if content is not None:
            return content
        if cell.get("path") is None:
            raise OSError(errno.EIO, "it is empty", str(self.path / member.name))
        return self._read_file(Path(cell["path"]))

    def _read_file(self, path: Path) -> bytes:
        """A file that a row names. It can name any, so those of others are refused."""
        import datasets
        from huggingface_hub import constants

        folder = str(self.path).removeprefix(HUB_PREFIX)
        own = (folder, datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE)
        if not any(path.resolve().is_relative_to(Path(root).resolve()) for root in own):
            raise OSError(errno.EACCES, "it is a file outside of the data set", str(path))
        return path.read_bytes()


def _load(name: str) -> dict[str, Any]:
    """The table of each split, not decoded: ``open_image`` limits what it decodes."""
    if not name:
        raise DataError(f"{HUB_PREFIX} needs a name after it, like {HUB_PREFIX}ylecun/mnist")
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{HUB_PREFIX}{name} needs the library datasets: pip install 'cgan[hf]'"
        ) from error
    try:
        tables = datasets.load_dataset(name)
        encoded = datasets.Image(decode=False)
        for split, table in tables.items():
            for column, feature in table.features.items():
                if isinstance(feature, datasets.Image):
                    tables[split] = tables[split].cast_column(column, encoded)
    except Exception as error:  # exceptions of the network, of files and of its own
        raise DataError(f"{HUB_PREFIX}{name} cannot be loaded ({one_line(error)})") from error
    return dict(tables)


def _image_column(path: Path, table: Any) -> str:
    """The first column of images."""
    import datasets

    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            return str(column)
    raise DataError(f"{path} has no column of images: it has {', '.join(table.column_names)}")


def _read_labels(path: Path, table: Any) -> list[str | None]:
    """The class of each row; None if it has none.

    Raises:
        DataError: there is no column of labels, or a label is none of the classes.
    """
    import datasets

    columns = [
        column
        for column, feature in table.features.items()
        if isinstance(feature, datasets.ClassLabel)
        or (column in LABEL_COLUMNS and LABEL_TYPE.fullmatch(str(getattr(feature, "dtype", ""))))
    ]
    columns.sort(key=lambda column: LABEL_COLUMNS.index(column) if column in LABEL_COLUMNS else 99)
    if not columns:
        raise DataError(f"{path} has no column of labels: it has {', '.join(table.column_names)}")
    names = getattr(table.features[columns[0]], "names", None)
    labels: list[Any] = list(table[columns[0]])
    if names is None:
        return [None if label is None else str(label) for label in labels]
    if wrong := [label for label in labels if label is not None and not -1 <= label < len(names)]:
        raise DataError(f"{path} has the label {wrong[0]}, and {len(names)} classes")
    return [None if label in (None, -1) else names[label] for label in labels]
