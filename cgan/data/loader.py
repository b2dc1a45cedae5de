"""Endless shuffled batches on the training device, a function of seed and images seen."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cgan.data.dataset import ImageDataset, class_indices
from cgan.data.image_folder import ImageFolder
from cgan.errors import DataError
from cgan.runtime.cpu import count_cores
from cgan.runtime.distributed import SINGLE_PROCESS, World
from cgan.storage.images import to_signed

Batches = Generator[tuple[Tensor, Tensor], None, None]
"""Endless (images, labels). Closing it stops its worker processes."""


def epoch_order(labels: Tensor, seed: int, epoch: int, balanced: bool = False) -> Tensor:
    """The order of an epoch's images: (N,) indices, determined by seed and epoch.

    With ``balanced``, every class occurs equally often (N / classes, rounded up): images of
    small classes are repeated, large classes are subsampled.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
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


class Loader:
    """Endless batches of images in [-1, 1], float32 (B, C, H, W), and labels, int64 (B,).

    ``workers`` is the number of reading processes, at most one per core.
    An ``ImageDataset`` is kept on the device as uint8 if it fits; a batch is then
    gathered and scaled there. An ``ImageFolder`` is read by worker processes. Each of several
    training processes gets its shard of the same batches.

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
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.device, self.balanced, self.world = torch.device(device), balanced, world
        self.workers = min(workers, count_cores())  # torch warns if there are more

    def batches(self, images_seen: int = 0) -> Batches:
        """The batches that follow after this many images."""
        if isinstance(self.dataset, ImageDataset):
            return self._gather(self.dataset, images_seen)
        return self._read(self.dataset, images_seen)

    def _indices(self, images_seen: int, home: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Indices of this process's shard of each batch; a batch may span two epochs.

        They are on the device ``home``: an epoch's order is copied there once, not per batch.
        """

        def order(epoch: int) -> Tensor:
            return epoch_order(self.dataset.labels, self.seed, epoch, self.balanced).to(home)

        epoch, offset = divmod(images_seen, len(order(0)))
        rest = order(epoch)[offset:]
        while True:
            while len(rest) < self.batch_size:
                epoch += 1
                rest = torch.cat([rest, order(epoch)])
            yield self.world.shard(rest[: self.batch_size])
            rest = rest[self.batch_size :]

    def _gather(self, dataset: ImageDataset, images_seen: int) -> Batches:
        home = self.device if fits(dataset.images, self.device) else torch.device("cpu")
        images, labels = dataset.images.to(home), dataset.labels.to(home)
        for indices in self._indices(images_seen, home):
            yield to_signed(self._send(images[indices])), self._send(labels[indices])

    def _read(self, folder: ImageFolder, images_seen: int) -> Batches:
        reader = DataLoader(
            _BatchReader(folder),
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

    def _send(self, tensor: Tensor) -> Tensor:
        """Copy to the device. Only CUDA needs no wait: MPS would read memory that is free again."""
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")


class _BatchReader(Dataset[tuple[Tensor, Tensor] | str]):
    """Reads one batch of a folder: images, uint8 (B, C, H, W), and labels, int64 (B,).

    If an image is broken, it returns the error's message: the loader would put the traceback of
    an exception into the message.
    """

    def __init__(self, folder: ImageFolder) -> None:
        self.folder = folder

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor] | str:
        chosen = torch.tensor(indices)
        try:
            return self.folder.take(chosen), self.folder.labels[chosen]
        except DataError as error:
            return str(error)


def ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the main process handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether the images take at most half of a GPU's free memory; always True on a CPU."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= free // 2
