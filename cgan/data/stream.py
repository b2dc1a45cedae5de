"""Data larger than memory or disk: shards that are read in order and shuffled by a buffer.

A batch is made of lanes. Each lane reads shards in its own order and has a buffer of its own. So a
process, or a worker of one, reads only for its lanes, and the batches depend neither on the number
of processes nor on that of workers. Everything is a function of the seed and the number
of images seen: a chapter of a million images begins with a new order of the shards, like
WebDataset's resampled shards, and a resumed run reads its chapter again, without decoding it.

What needs all images is computed on a sample: classes, size, colour, splits, judges, reports.
Held-out images are recognised by a hash of their content, so training never sees them.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from cgan.config import DataConfig
from cgan.data.archive import HUB_PREFIX, ArchivePath, folder_name
from cgan.data.facts import collect, inform
from cgan.data.folders import composed
from cgan.data.image_file import EncodedImage, read_image
from cgan.data.image_folder import ImageFolder, scan_folder
from cgan.data.shard_trees import CLASSES
from cgan.data.splits import (
    FOLDER_TEST_FRACTION,
    VALIDATION_FRACTION,
    folder_split_indices,
    is_below,
)
from cgan.data.stream_shards import (
    SAMPLE_SHARDS,
    Row,
    Shards,
    TarShards,
    open_shards,
    read_sample,
)
from cgan.errors import ConfigError, DataError
from cgan.runtime.device import Purpose, derive_seed
from cgan.runtime.distributed import World

LANES = 8
CHAPTER = 1_000_000
"""Images after which the order of the shards is drawn anew."""
BUFFER_IMAGES, BUFFER_BYTES = 8_192, 128 * 2**20
"""What the buffers of all lanes hold: the smaller of both."""

BATCHES = 8
"""Batches that a worker process passes at once."""

logger = logging.getLogger("cgan")


def open_stream(data: DataConfig) -> tuple[ImageFolder, ImageStream]:
    """The sample of a stream, as a scanned folder, and the stream.

    Raises:
        ConfigError: the config asks for what needs all images, or the source is no stream.
        DataError: a shard is missing or cannot be read.
    """
    for key in ("balanced", "skip_conflicts"):
        if getattr(data, key):
            raise ConfigError(f"data.{key} needs all images, and a stream is read in order")
    return _open(data, _stamps(data.source))


def _stamps(source: str) -> tuple[tuple[str, int, int], ...]:
    """What changes if a local file does."""
    if source.startswith(HUB_PREFIX):
        files = list(Path(source.removeprefix(HUB_PREFIX)).glob("**/*"))
    else:
        shards = open_shards(source)[None]
        assert isinstance(shards, TarShards)
        files = [*shards.paths, shards.paths[0].parent / CLASSES]
    found = ((path, path.stat()) for path in files if path.is_file())
    return tuple((str(path), one.st_size, one.st_mtime_ns) for path, one in found)


@lru_cache(maxsize=1)
def _open(data: DataConfig, stamps: tuple[object, ...]) -> tuple[ImageFolder, ImageStream]:
    """Read the sample once for all splits; ``stamps`` only tell whether a shard has changed."""
    shards, path = open_shards(data.source), Path(data.source)
    if None in shards and path.suffix.lower() == ".tar":
        path = next(one for one in path.parents if not set(one.name) & set("{*?["))
    training = shards["train" if "train" in shards else None]
    with collect() as facts:
        tree = read_sample(shards, path)
        inform(
            "%s is read in order, from %s shards. What needs all images is computed on a sample: "
            "%s images from the beginning of %s",
            path.resolve().name, f"{len(training):,}", f"{len(tree.contents):,}",
            "every shard" if len(training) <= SAMPLE_SHARDS else f"{SAMPLE_SHARDS} shards",
        )  # fmt: skip
    folder = scan_folder(
        path, tree=ArchivePath(tree), size=data.size, skip_broken=data.skip_broken,
        background=data.background, fit=data.fit,
    )  # fmt: skip
    # A split of the Hub without labels counts for nothing, in the sample and here.
    held_out = 0.0 if "test" in folder.splits else FOLDER_TEST_FRACTION
    held_out += 0.0 if "validation" in folder.splits else VALIDATION_FRACTION
    stream = ImageStream(path, training, folder, held_out, data.skip_broken)
    return replace(folder, facts=(*facts, *folder.facts)), stream


@dataclass(frozen=True)
class ImageStream:
    """The training images of some shards.

    Attributes:
        path: where they are; messages name it.
        shards: those of the training images.
        sample: it decides the classes, and how files become images.
        held_out: expected fraction of the images that is left out, by a hash of their content.
        skip_broken: whether an image of the sample takes the place of one that cannot be read.
    """

    path: Path
    shards: Shards
    sample: ImageFolder
    held_out: float
    skip_broken: bool = False

    @cached_property
    def labels(self) -> dict[str, int]:
        """The label of each class: of what its folder in the sample is called."""
        return {name: label for label, name in enumerate(self.sample.classes)}

    @cached_property
    def known(self) -> dict[bytes, bool]:
        """By digest, whether an image of the sample is held out: also by a split of its own, and
        not if all images of its class would be."""
        sample = self.sample
        found = dict.fromkeys(sample.digests, False)
        for split in ("validation", "test"):
            rows = folder_split_indices(
                sample.digests, sample.labels, sample.splits, split, test=FOLDER_TEST_FRACTION
            )
            found.update((sample.digests[row], True) for row in rows.tolist())
        return found

    @cached_property
    def spare(self) -> list[int]:
        """The training images of the sample, by index."""
        return [row for row, digest in enumerate(self.sample.digests) if not self.known[digest]]

    def lanes(self, batch_size: int) -> int:
        """How many lanes a batch has: at most ``LANES``, one shard each, and equally long."""
        most = min(LANES, len(self.shards), batch_size)
        return next(count for count in range(most, 0, -1) if batch_size % count == 0)

    def lane(self, lane: int, lanes: int, seed: int, seen: int) -> Iterator[Row]:
        """The rows of a lane without end, after ``seen`` of them.

        All lanes go round the same ring of shards, and begin at different places. So an image is
        drawn as often as any other, whatever the size of its shard, and until the lanes have met,
        no shard is read twice.

        Raises:
            DataError: the shards have no training images.
        """
        length = CHAPTER // lanes
        chapter, skipped = divmod(seen, length)
        while True:
            yield from islice(self._chapter(lane, lanes, seed, chapter), skipped, length)
            chapter, skipped = chapter + 1, 0

    def _chapter(self, lane: int, lanes: int, seed: int, chapter: int) -> Iterator[Row]:
        """All shards in random order, again and again, shuffled by a buffer."""
        ring = random.Random(derive_seed(seed, Purpose.ORDER, chapter))
        draw = random.Random(f"{seed}, {chapter}, {lane}")
        order, anything = list(range(len(self.shards))), True
        while anything:
            ring.shuffle(order)
            start = lane * len(order) // lanes
            anything = False
            rows = (
                row for shard in order[start:] + order[:start] for row in self.shards.read(shard)
            )
            training = (row for row in rows if not self.is_held_out(row.content))
            for row in shuffle(training, draw, BUFFER_IMAGES // lanes, BUFFER_BYTES // lanes):
                anything = True
                yield row
        raise DataError(f"{self.path} has no training images")

    def is_held_out(self, content: bytes) -> bool:
        """Whether a file is a validation or test image."""
        digest = hashlib.sha256(content).digest()
        return self.known.get(digest, is_below(digest, self.held_out))

    def decode(self, row: Row) -> tuple[Tensor, int]:
        """The image of a row, uint8 (C, H, W), and its label.

        Raises:
            DataError: the file is broken, or the sample has no such class.
        """
        if (label := self.labels.get(composed(folder_name(row.label)))) is None:
            raise DataError(
                f"{row.name} has the class {row.label!r}, which the sample of "
                f"{len(self.labels):,} classes lacks: write the images in random order"
            )
        image = EncodedImage(row.name, row.content)
        try:
            return read_image(image, self.sample.image_shape, self.sample.conversion), label
        except DataError as error:
            if not self.skip_broken:
                raise
            logger.warning("%s: an image of the sample takes its place", error)
        # The same one for every number of processes, and after --resume.
        place = int.from_bytes(hashlib.sha256(row.content).digest()[8:16], "big")
        spare = self.spare[place % len(self.spare)]
        return self.sample.read(spare), int(self.sample.labels[spare])


def shuffle(
    rows: Iterator[Row], draw: random.Random, most_rows: int, most_bytes: int
) -> Iterator[Row]:
    """Rows in random order: each is drawn from a buffer that the next one refills."""
    buffer: list[Row] = []
    size = 0
    for row in rows:
        buffer.append(row)
        size += len(row.content)
        while len(buffer) > most_rows or size > most_bytes:
            place = int(draw.random() * len(buffer))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            size -= len(buffer[-1].content)
            yield buffer.pop()
    draw.shuffle(buffer)
    yield from buffer


class LaneReader(IterableDataset[tuple[Tensor, Tensor] | str]):
    """Batches without end, ``BATCHES`` at a time, because passing each alone costs more: images,
    uint8 (BATCHES, B, C, H, W), and labels, int64 (BATCHES, B).

    A worker process yields the part of the batch that its lanes make; the parts of all workers, in
    order, are the batch. If an image is broken, it yields the error's message and ends.

    Args:
        stream: the images.
        batch_size: of all training processes together.
        seed: the seed of the run.
        images_seen: how many images come before the first batch.
        world: the training processes; this one gets its shard of each batch.
    """

    def __init__(
        self, stream: ImageStream, batch_size: int, seed: int, images_seen: int, world: World
    ) -> None:
        self.stream, self.seed, self.images_seen = stream, seed, images_seen
        self.lanes = stream.lanes(batch_size)
        self.per_lane = batch_size // self.lanes
        places = world.shard(torch.arange(batch_size)).tolist()
        self.own: dict[int, list[int]] = {}
        for place in places:
            self.own.setdefault(place // self.per_lane, []).append(place % self.per_lane)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor] | str]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        own = np.array_split(list(self.own), workers)[worker].tolist()
        seen = self.images_seen // self.lanes
        rows = {lane: self.stream.lane(lane, self.lanes, self.seed, seen) for lane in own}
        try:
            while True:
                batches = [self.read(rows) for _ in range(BATCHES)]
                images, labels = zip(*batches, strict=True)
                yield torch.stack(images), torch.stack(labels)
        except DataError as error:
            yield str(error)

    def read(self, rows: Mapping[int, Iterator[Row]]) -> tuple[Tensor, Tensor]:
        """The images of the next batch that come from these lanes, and their labels."""
        parts = {lane: list(islice(of_lane, self.per_lane)) for lane, of_lane in rows.items()}
        chosen = [part[place] for lane, part in parts.items() for place in self.own[lane]]
        images, labels = zip(*map(self.stream.decode, chosen), strict=True)
        return torch.stack(images), torch.tensor(labels)
