"""Endless shuffled batches on the training device, a function of seed and images seen."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cgan.data.dataset import ImageDataset, class_indices
from cgan.data.image_folder import ImageFolder
from cgan.data.stream import ImageStream, LaneReader
from cgan.errors import DataError
from cgan.runtime.cpu import count_cores
from cgan.runtime.device import Purpose, derive_seed
from cgan.runtime.distributed import SINGLE_PROCESS, World
from cgan.storage.images import to_signed

Batches = Generator[tuple[Tensor, Tensor], None, None]
"""Endless (images, labels). Closing it stops its worker processes."""


def epoch_order(
    labels: Tensor,
    seed: int,
    epoch: int,
    balanced: bool = False,
    purpose: Purpose = Purpose.ORDER,
) -> Tensor:
    """The order of an epoch's images: (N,) indices, determined by seed and epoch.

    With ``balanced``, every class occurs equally often (N / classes, rounded up): images of
    small classes are repeated, large classes are subsampled.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, purpose, epoch))
    if not balanced:
        return torch.randperm(len(labels), generator=generator)
    members = list(class_indices(labels).values())
    per_class = -(-len(labels) // len(members))
    drawn = []
    for indices in members:
        rounds = -(-per_class // len(indices))
        shuffled = [
            indices[torch.randperm(len(indices), generator=generator)] for _ in range(rounds)
        ]
        drawn.append(torch.cat(shuffled)[:per_class])
    everything = torch.cat(drawn)
    return everything[torch.randperm(len(everything), generator=generator)]


def alternate(first: int, second: int) -> Tensor:
    """An index that spreads ``second`` items evenly among ``first`` items that precede them.

    No two items of the second kind are neighbours, unless they are more than half.
    """
    total = first + second
    position = torch.arange(total)
    is_second = (position + 1) * second // total > position * second // total
    return torch.where(is_second, first + is_second.cumsum(0) - 1, (~is_second).cumsum(0) - 1)


class Joined:
    """Labelled and unlabelled images, one after the other, without a copy."""

    def __init__(
        self, labelled: ImageDataset | ImageFolder, unlabelled: ImageDataset | ImageFolder
    ) -> None:
        self.labelled, self.unlabelled = labelled, unlabelled
        self.labels = torch.cat([labelled.labels, unlabelled.labels])
        self.image_shape = labelled.image_shape

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, (len(indices), C, H, W)."""
        is_labelled = indices < len(self.labelled)
        images = torch.empty(len(indices), *self.labelled.image_shape, dtype=torch.uint8)
        images[is_labelled] = self.labelled.take(indices[is_labelled])
        images[~is_labelled] = self.unlabelled.take(indices[~is_labelled] - len(self.labelled))
        return images


class Loader:
    """Endless batches of images in [-1, 1], float32 (B, C, H, W), and labels, int64 (B,).

    ``workers`` is the number of reading processes, at most one per core.
    An ``ImageDataset`` is kept on the device as uint8 if it fits; a batch is then
    gathered and scaled there. An ``ImageFolder`` is read by worker processes. Each of several
    training processes gets its shard of the same batches.

    With a ``stream``, the batches are those of the stream, and the data set is only its sample.

    With ``targets`` (N, …), a batch has those of its images in place of their labels.

    Unlabelled images have the label -1. They are half of each batch, or as many as their share of
    all images if that is less, and alternate with the labelled ones.

    The loader has no state: the seed and ``images_seen`` determine all following batches, so a
    resumed run needs nothing else.
    """

    def __init__(
        self,
        dataset: ImageDataset | ImageFolder,
        batch_size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        balanced: bool = False,
        workers: int = 2,
        world: World = SINGLE_PROCESS,
        unlabelled: ImageDataset | ImageFolder | None = None,
        stream: ImageStream | None = None,
        targets: Tensor | None = None,
    ) -> None:
        self.stream, self.targets = stream, targets
        self.batch_size, self.seed = batch_size, seed
        self.dataset: ImageDataset | ImageFolder | Joined = dataset
        self.device, self.balanced, self.world = torch.device(device), balanced, world
        self.workers = min(workers, count_cores())  # torch warns if there are more
        self.num_labelled, self.num_unlabelled = len(dataset), 0
        if unlabelled is not None:
            self.num_unlabelled = len(unlabelled)
            self.dataset = Joined(dataset, unlabelled)

    def batches(self, images_seen: int = 0) -> Batches:
        """The batches that follow after this many images."""
        if self.stream is not None:
            return self._read_lanes(self.stream, images_seen)
        parts = [self.dataset]
        if isinstance(self.dataset, Joined):
            parts = [self.dataset.labelled, self.dataset.unlabelled]
        in_memory = [part for part in parts if isinstance(part, ImageDataset)]
        if len(in_memory) == len(parts):
            return self._gather(in_memory, images_seen)
        return self._read(self.dataset, images_seen)

    def _indices(self, images_seen: int, home: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Indices of this process's shard of each batch, on the device ``home``."""
        labels, batch = self.dataset.labels, self.batch_size
        if not self.num_unlabelled:
            for indices in self._stream(labels, batch, images_seen, home, self.balanced):
                yield self.world.shard(indices)
            return
        share = self.num_unlabelled / (self.num_labelled + self.num_unlabelled)
        others = min(max(round(share * batch), 1), batch // 2)
        place = alternate(batch - others, others).to(home)
        before, rest = images_seen // batch, labels[self.num_labelled :]
        labelled = labels[: self.num_labelled]
        streams = (
            self._stream(labelled, batch - others, before * (batch - others), home, self.balanced),
            self._stream(rest, others, before * others, home, purpose=Purpose.UNLABELLED_ORDER),
        )
        for own, other in zip(*streams, strict=True):
            yield self.world.shard(torch.cat([own, other + self.num_labelled])[place])

    def _stream(
        self,
        labels: Tensor,
        count: int,
        seen: int,
        home: torch.device | str,
        balanced: bool = False,
        purpose: Purpose = Purpose.ORDER,
    ) -> Iterator[Tensor]:
        """``count`` indices at a time, after ``seen`` of them; they may span two epochs.

        An epoch's order is copied to ``home`` once, not per batch.
        """

        def order(epoch: int) -> Tensor:
            return epoch_order(labels, self.seed, epoch, balanced, purpose).to(home)

        epoch, offset = divmod(seen, len(order(0)))
        rest = order(epoch)[offset:]
        while True:
            while len(rest) < count:
                epoch += 1
                rest = torch.cat([rest, order(epoch)])
            yield rest[:count]
            rest = rest[count:]

    def _gather(self, parts: list[ImageDataset], images_seen: int) -> Batches:
        home = self.device
        if not fits(sum(part.images.nbytes for part in parts), self.device):
            home = torch.device("cpu")
        first, *others = (part.images.to(home) for part in parts)
        labels = torch.cat([part.labels for part in parts])
        targets = (labels if self.targets is None else self.targets).to(home)
        for indices in self._indices(images_seen, home):
            images = first[indices.clamp_max(len(first) - 1)]
            for other in others:
                is_other = (indices >= len(first)).view(-1, 1, 1, 1)
                images = torch.where(is_other, other[(indices - len(first)).clamp_min(0)], images)
            yield to_signed(self._send(images)), self._send(targets[indices])

    def _read(self, dataset: ImageDataset | ImageFolder | Joined, images_seen: int) -> Batches:
        reader = DataLoader(
            _BatchReader(dataset, dataset.labels if self.targets is None else self.targets),
            sampler=(indices.tolist() for indices in self._indices(images_seen)),
            batch_size=None,  # the reader returns whole batches
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_interrupts,
            generator=torch.Generator(),  # otherwise it uses torch's global random state, like z
        )
        for batch in reader:
            if isinstance(batch, str):
                raise DataError(batch)
            images, labels = batch
            yield to_signed(self._send(images)), self._send(labels)

    def _read_lanes(self, stream: ImageStream, images_seen: int) -> Batches:
        lanes = LaneReader(stream, self.batch_size, self.seed, images_seen, self.world)
        workers = min(self.workers, len(lanes.own))
        reader = DataLoader(
            lanes,
            batch_size=None,  # each worker reads its lanes of a batch
            num_workers=workers,
            worker_init_fn=yield_to_training,
            generator=torch.Generator(),
        )
        parts = iter(reader)
        while True:
            found = [next(parts) for _ in range(max(workers, 1))]  # in the order of the workers
            if broken := [one for one in found if isinstance(one, str)]:
                raise DataError(broken[0])
            images, labels = (torch.cat(list(one), dim=1) for one in zip(*found, strict=True))
            for batch in zip(images, labels, strict=True):
                yield to_signed(self._send(batch[0])), self._send(batch[1])

    def _send(self, tensor: Tensor) -> Tensor:
        """Copy to the device. Only CUDA needs no wait: MPS would read memory that is free again."""
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")


class _BatchReader(Dataset[tuple[Tensor, Tensor] | str]):
    """Reads one batch from disk: images, uint8 (B, C, H, W), and their targets (B, …).

    If an image is broken, it returns the error's message: the loader would put the traceback of
    an exception into the message.
    """

    def __init__(self, dataset: ImageDataset | ImageFolder | Joined, targets: Tensor) -> None:
        self.dataset, self.targets = dataset, targets

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor] | str:
        chosen = torch.tensor(indices)
        try:
            return self.dataset.take(chosen), self.targets[chosen]
        except DataError as error:
            return str(error)


def ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the main process handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def yield_to_training(worker: int) -> None:
    """The threads of a step wait for each other, so a worker that interrupts one delays both: on
    two cores, lower priority made training on a stream 1.1 times as fast."""
    ignore_interrupts(worker)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether images take at most half of a GPU's free memory; always True on a CPU."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return nbytes <= free // 2
