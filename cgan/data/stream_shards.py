"""The shards of a stream, which are read in order, and the sample of them.

shards/{000..099}.tar   WebDataset's shards by a pattern, or shards/*.tar
hf-datasets:NAME        the shards of a data set of the Hub
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from glob import escape, glob
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np

from cgan.data.archive import HUB_PREFIX, FileTree, Member, class_folders, is_end_of_tar
from cgan.data.facts import warn
from cgan.data.hub import Columns, load_tables, read_cell
from cgan.data.image_file import MAX_FILE_BYTES
from cgan.data.shard_trees import LABEL, class_names, image_of_sample, sample_key
from cgan.data.splits import SPLITS, Split
from cgan.errors import ConfigError, DataError, first_few, one_line

SAMPLE_IMAGES, SAMPLE_BYTES = 20_000, 256 * 2**20
"""What the sample holds: the smaller of both,"""
SAMPLE_SHARDS = 64
"""from the beginning of at most this many shards."""
ROWS = 16
"""Rows of a table that are read at once."""

logger = logging.getLogger("cgan")


class Row(NamedTuple):
    """An image of a shard: where it is, for messages, its file, and its class."""

    name: str
    content: bytes
    label: str


class Shards(Protocol):
    """Shards that are read in order; rows without a class are left out."""

    def __len__(self) -> int: ...

    def read(self, shard: int) -> Iterator[Row]:
        """The rows of a shard."""
        ...


class TarShards:
    """WebDataset's shards: samples of an image and a file ``.cls`` with its class.

    Args:
        pattern: paths with ``{000..099}``, ``*`` or ``?``.

    Raises:
        DataError: the library is missing, or a shard.
    """

    def __init__(self, pattern: str) -> None:
        try:
            from webdataset.shardlists import expand_urls
        except ImportError as error:
            raise DataError(
                f"{pattern} needs the library webdataset: pip install 'cgan[streaming]'"
            ) from error
        patterns = map(os.path.expanduser, expand_urls(pattern))
        found = [path for one in patterns for path in sorted(glob(one, recursive=True)) or [one]]
        found = list(dict.fromkeys(found))
        if missing := [path for path in found if not os.path.isfile(path)]:
            raise DataError(f"there is no shard {first_few(missing)}")
        self.paths = [Path(path) for path in found]
        self.names = class_names(self.paths[0].parent)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, shard: int) -> Iterator[Row]:
        """The rows of a shard.

        Raises:
            DataError: it is damaged or compressed, or an image has no class.
        """
        from webdataset.tariterators import group_by_keys

        path = self.paths[shard]
        try:
            for sample in group_by_keys(_files_of_tar(path), keys=sample_key):
                files = [one for one in sample if one[:2] != "__"]
                if (suffix := image_of_sample(files, path, sample["__key__"])) is None:
                    continue
                name = f"{path.name}/{sample['__key__']}.{suffix}"
                if (label := sample.get(LABEL)) is None:
                    raise DataError(
                        f"{name} has no class: there is no file .{LABEL} of it beside it (files of "
                        "a sample must follow each other)"
                    )
                yield Row(name, sample[suffix], self._name(label, name))
        except (OSError, tarfile.TarError, ValueError) as error:
            raise DataError(
                f"{path} cannot be read as a TAR file without compression ({one_line(error)})"
            ) from error

    def _name(self, label: bytes, where: str) -> str:
        """The class of a file ``.cls``: its text, or that line of ``classes.txt``."""
        text = label.decode("utf-8", "replace").strip()
        if not self.names or (text in self.names and not text.isdecimal()):
            return text
        if text.isdecimal() and int(text) < len(self.names):
            return self.names[int(text)]
        raise DataError(
            f"{where} has the class {text!r}, and classes.txt has {len(self.names)} lines, which "
            "are numbered from 0: mend it, or remove it"
        )


def _files_of_tar(path: Path) -> Iterator[dict[str, Any]]:
    """The regular files, in order, in the form in which webdataset groups them.

    webdataset's own reader would decompress a file to any size.
    """
    with path.open("rb") as file, tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # they would add up
            if not member.isreg() or member.issparse():
                continue
            if not 0 <= member.size <= MAX_FILE_BYTES:
                raise ValueError(f"{member.name} has {member.size:,} bytes")
            file.seek(member.offset_data)
            if len(content := file.read(member.size)) < member.size:
                raise ValueError(f"it ends in {member.name}")
            yield {"fname": member.name, "data": content, "__url__": str(path)}
        if not is_end_of_tar(file, archive.offset):
            raise ValueError("it is damaged in the middle")


class HubShards:
    """The shards of a split of a data set of the Hub, read while they are downloaded.

    Args:
        path: ``hf-datasets:NAME``; messages name it.
        split: the split.
        table: an ``IterableDataset``.
        columns: those that matter.
    """

    def __init__(self, path: Path, split: str, table: Any, columns: Columns) -> None:
        self.path, self.split, self.table, self.columns = path, split, table, columns

    def __len__(self) -> int:
        return int(self.table.num_shards)

    def read(self, shard: int) -> Iterator[Row]:
        """The rows of a shard.

        Raises:
            DataError: the data set cannot be read.
        """
        table, columns = self.table.shard(len(self), shard), self.columns
        row = 0
        try:
            # Not iter(table): in a worker of a DataLoader it yields that worker's share.
            for rows in table.iter(ROWS):
                for cell, value in zip(rows[columns.image], rows[columns.label], strict=True):
                    if (label := columns.class_of(self.path, value)) is not None:
                        name = f"{self.split}/{shard:05}-{row:09}.png"
                        content = b""  # a broken image
                        with suppress(OSError):
                            content = read_cell(self.path, cell, name)
                        yield Row(f"{self.path}/{name}", content, label)
                    row += 1
        except DataError:
            raise
        except Exception as error:  # exceptions of the network, of files and of its own
            raise DataError(f"{self.path} cannot be read ({one_line(error)})") from error


class Contents(FileTree):
    """Files in memory as a tree.

    Args:
        path: where they come from; messages name it.
        files: the content of each file, by its path in the tree.
    """

    kind = "shards"

    def __init__(self, path: Path, files: Mapping[str, bytes]) -> None:
        super().__init__(path)
        self.contents = files
        for name, content in files.items():
            self._add(Member(name, len(content)))

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.contents)  # for worker processes

    def read(self, member: Member) -> bytes:
        """The content of a file."""
        return self.contents[member.name]


def open_shards(source: str) -> dict[Split | None, Shards]:
    """The shards of each split; with None as the split if there are none.

    Args:
        source: ``hf-datasets:NAME``, a pattern of tar files, or a folder of them.

    Raises:
        ConfigError: it is neither.
        DataError: a library or a shard is missing.
    """
    if source.startswith(HUB_PREFIX):
        tables, columns = load_tables(Path(source), streaming=True)
        return {
            split: HubShards(Path(source), split, tables[split], columns[split])
            for split in SPLITS
            if split in tables
        }
    if os.path.isdir(source):
        return {None: TarShards(os.path.join(escape(source), "*.[tT][aA][rR]"))}
    if source.lower().endswith(".tar"):
        return {None: TarShards(source)}
    raise ConfigError(
        f"data.streaming needs {HUB_PREFIX}NAME, tar files, or a folder of them, not {source}"
    )


def read_sample(shards: Mapping[Split | None, Shards], path: Path) -> Contents:
    """The first rows of some shards as a tree ``SPLIT/CLASS/SHARD-ROW.png``.

    Args:
        shards: of each split; None if there are no splits.
        path: what messages name.

    Raises:
        DataError: a shard cannot be read.
    """
    rows: list[tuple[str, Row]] = []
    for split, of_split in shards.items():
        places = np.linspace(0, len(of_split) - 1, min(len(of_split), SAMPLE_SHARDS)).astype(int)
        most = SAMPLE_IMAGES // len(shards) // len(places)
        most_bytes = SAMPLE_BYTES // len(shards) // len(places)
        first = []
        for shard in places.tolist():
            size, several = 0, set()
            for row in islice(of_split.read(shard), max(most, 1)):
                rows.append((f"{split}/" if split else "", row))
                several.add(row.label)
                if (size := size + len(row.content)) > most_bytes:
                    break
            first.append(several)
        if split in (None, "train") and max(map(len, first)) == 1 < len(set().union(*first)):
            warn(
                "each shard of %s begins with images of one class, so a batch holds few classes: "
                "write the images in random order", path,
            )  # fmt: skip
    folders = class_folders(path, [row.label for _, row in rows])
    return Contents(
        path,
        {
            f"{above}{folders[row.label]}/{index:06}{PurePosixPath(row.name).suffix}": row.content
            for index, (above, row) in enumerate(rows)
        },
    )
