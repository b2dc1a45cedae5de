"""Data sets of the Hugging Face Hub, named ``hf-datasets:NAME``, with the library ``datasets``.

The images appear as a tree of splits and classes, so that the code for archives reads them. A data
set that is not in the local cache of ``datasets`` is downloaded; ``HF_HUB_OFFLINE=1`` forbids that.
No code of a data set runs.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cgan.data.archive import HUB_PREFIX, FileTree, Member, class_folders
from cgan.data.facts import inform, warn
from cgan.data.splits import SPLITS
from cgan.errors import DataError, first_few, one_line

LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "cls")
"""Preferred names of the column of labels, if there are several."""

IMAGE_COLUMNS = ("image", "images", "img", "picture", "jpg", "png")
"""Names of columns of bytes that are images, if there are several."""

LABEL_TYPE = re.compile("(large_)?string|u?int[0-9]+|bool")
"""Types of a column of labels without names."""

logger = logging.getLogger("cgan")


class Columns(NamedTuple):
    """The columns of a data set that matter.

    Attributes:
        image: the column of images.
        label: the column of classes.
        names: the names of the classes, or None if the column holds them itself.
    """

    image: str
    label: str
    names: Sequence[str] | None

    def class_of(self, path: Path, label: Any) -> str | None:
        """The class that a value of the column of labels means; None if it is none.

        Raises:
            DataError: it is not among the classes.
        """
        if label is None or self.names is None:
            return None if label is None else str(label)
        if not -1 <= label < len(self.names):
            raise DataError(f"{path} has the label {label}, and {len(self.names)} classes")
        return None if label == -1 else self.names[label]


class HubDataset(FileTree):
    """A data set as a tree ``SPLIT/CLASS/ROW.png``; rows without a class are left out.

    Args:
        path: ``hf-datasets:NAME``, where NAME may also be a local folder of Parquet files.

    Raises:
        DataError: the library is missing, the data set cannot be loaded, or it has no column of
            images or of labels.
    """

    kind = "a data set of the Hub"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.tables, self.columns = load_tables(path)
        for split, table in self.tables.items():
            columns = self.columns[split]
            labels = [columns.class_of(path, label) for label in table[columns.label]]
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
        cell = self.tables[split][member.offset][self.columns[split].image]
        return read_cell(self.path, cell, member.name)


def read_cell(path: Path, cell: Mapping[str, Any] | None, row: str) -> bytes:
    """The encoded image of a cell, which holds it or names a file.

    Args:
        path: ``hf-datasets:NAME``.
        cell: ``bytes`` and ``path``, one of them None; None is no image.
        row: what a message calls the row.

    Raises:
        OSError: there is no image. A cell can name any file, so those of others are refused.
        DataError: it names a file on the Hub, as in streaming of image files.
    """
    import datasets
    from huggingface_hub import constants

    content, name = (cell or {}).get("bytes"), (cell or {}).get("path")
    if content is not None:
        return bytes(content)
    if name is None:
        raise OSError(errno.EIO, "it is empty", str(path / row))
    if "://" in name:
        raise DataError(f"{path} names its images as files: load it without data.streaming")
    caches = datasets.config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE
    own = (str(path).removeprefix(HUB_PREFIX), *caches)
    if not any(Path(name).resolve().is_relative_to(Path(root).resolve()) for root in own):
        raise OSError(errno.EACCES, "it is a file outside of the data set", name)
    return Path(name).read_bytes()


def load_tables(path: Path, streaming: bool = False) -> tuple[dict[str, Any], dict[str, Columns]]:
    """The table of each split and its columns. Images stay encoded: ``open_image`` has limits.

    Args:
        path: ``hf-datasets:NAME``.
        streaming: read the rows in order when they are asked for, and download nothing before.

    Raises:
        DataError: the library is missing, the data set cannot be loaded, or it has no split
            ``train`` or no column of images or of labels.
    """
    name = str(path).removeprefix(HUB_PREFIX)
    if not name:
        raise DataError(f"{HUB_PREFIX} needs a name after it, like {HUB_PREFIX}ylecun/mnist")
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{path} needs the library datasets: pip install 'cgan[hf]'") from error
    try:
        tables = dict(datasets.load_dataset(name, streaming=streaming))
        if "train" not in tables:
            raise DataError(f"{path} has no split train: it has {first_few(list(tables))}")
        for split in tables.keys() - set(SPLITS):
            warn("%s: the split %s is left out", path, split)
            del tables[split]
        columns = {split: _find_columns(path, table) for split, table in tables.items()}
        encoded = datasets.Image(decode=False)
        for split, table in tables.items():
            for column, feature in table.features.items():
                if isinstance(feature, datasets.Image) or column == columns[split].image:
                    tables[split] = tables[split].cast_column(column, encoded)
    except DataError:
        raise
    except Exception as error:  # exceptions of the network, of files and of its own
        raise DataError(f"{path} cannot be loaded ({one_line(error)})") from error
    return tables, columns


def _is_image(feature: Any) -> bool:
    """Whether a column holds images; a Parquet file of others has their files in plain columns."""
    import datasets

    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return _is_bytes(feature) or isinstance(feature, datasets.Image)


def _is_bytes(feature: Any) -> bool:
    return getattr(feature, "dtype", "") in ("binary", "large_binary")


def _find_columns(path: Path, table: Any) -> Columns:
    """The first column of images, and the column of labels.

    Raises:
        DataError: one of them is missing.
    """
    import datasets

    features = table.features or {}
    images = [column for column, feature in features.items() if _is_image(feature)]
    # Another column may be a mask, and other columns of bytes hashes.
    images.sort(key=lambda one: (one not in IMAGE_COLUMNS, _is_bytes(features[one])))
    if not images:
        raise DataError(f"{path} has no column of images: it has {', '.join(features)}")
    labels = [
        column
        for column, feature in features.items()
        if isinstance(feature, datasets.ClassLabel)
        or (column in LABEL_COLUMNS and LABEL_TYPE.fullmatch(str(getattr(feature, "dtype", ""))))
    ]
    if not labels:
        raise DataError(f"{path} has no column of labels: it has {', '.join(features)}")
    label = min(labels, key=lambda one: [*LABEL_COLUMNS, one].index(one))
    if others := [column for column in features if column not in (images[0], label)]:
        inform("%s: columns that are not used: %s", path, first_few(others))
    return Columns(images[0], label, getattr(features[label], "names", None))
