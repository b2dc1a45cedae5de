"""Endless shuffled batches on the training device, a function of how many pictures were seen."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cgan.data.folder import PictureFolder
from cgan.data.sources import Pictures
from cgan.distributed import ALONE, World
from cgan.images import to_signed

Batches = Generator[tuple[Tensor, Tensor], None, None]
"""Endless (images, labels); closing it ends the worker processes behind it."""


def epoch_order(labels: Tensor, seed: int, epoch: int, balanced: bool = False) -> Tensor:
    """The order in which an epoch visits its pictures: (N,) indices, by seed and epoch alone.

    Balanced, every class comes equally often (N / classes, rounded up): the pictures of a small
    one are repeated, each as often as the other give or take once, and a large one is cut.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    if not balanced:
        return torch.randperm(len(labels), generator=generator)
    members = [(labels == label).nonzero().squeeze(1) for label in labels.unique().tolist()]
    share = -(-len(labels) // len(members))
    drawn = []
    for indices in members:
        rounds = -(-share // len(indices))
        shuffled = [
            indices[torch.randperm(len(indices), generator=generator)] for _ in range(rounds)
        ]
        drawn.append(torch.cat(shuffled)[:share])
    everything = torch.cat(drawn)
    return everything[torch.randperm(len(everything), generator=generator)]


class Loader:
    """Batches of (images in [-1, 1] float32 (B, C, H, W), labels (B,) int64) without an end.

    Pictures in memory lie on the device as uint8 where they fit, and a batch is one gather and one
    multiplication there. A folder too large for memory is read by worker processes.

    Of several processes that learn together, each gets its part of the same batches.

    The position is a number: batches after ``images_seen`` pictures are the same in whichever
    process they are drawn, so a run that goes on needs to remember nothing else.
    """

    def __init__(
        self,
        pictures: Pictures | PictureFolder,
        batch_size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        balanced: bool = False,
        workers: int = 2,
        world: World = ALONE,
    ) -> None:
        self.pictures, self.batch_size, self.seed = pictures, batch_size, seed
        self.device, self.balanced, self.workers = torch.device(device), balanced, workers
        self.world = world

    def batches(self, images_seen: int = 0) -> Batches:
        """The batches that follow after so many pictures."""
        if isinstance(self.pictures, Pictures):
            return self._gather(self.pictures, images_seen)
        return self._read(self.pictures, images_seen)

    def _indices(self, images_seen: int, home: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Indices of this process's part of each batch; a batch may span two epochs.

        They lie at ``home``: an epoch's order goes there once, not a piece with every batch.
        """

        def order(epoch: int) -> Tensor:
            return epoch_order(self.pictures.labels, self.seed, epoch, self.balanced).to(home)

        epoch, offset = divmod(images_seen, len(order(0)))
        rest = order(epoch)[offset:]
        while True:
            while len(rest) < self.batch_size:
                epoch += 1
                rest = torch.cat([rest, order(epoch)])
            yield self.world.part(rest[: self.batch_size])
            rest = rest[self.batch_size :]

    def _gather(self, pictures: Pictures, images_seen: int) -> Batches:
        home = self.device if fits(pictures.images, self.device) else torch.device("cpu")
        images, labels = pictures.images.to(home), pictures.labels.to(home)
        for indices in self._indices(images_seen, home):
            batch = images[indices].to(self.device, non_blocking=True)
            yield to_signed(batch), labels[indices].to(self.device, non_blocking=True)

    def _read(self, folder: PictureFolder, images_seen: int) -> Batches:
        reader = DataLoader(
            folder,
            batch_sampler=(indices.tolist() for indices in self._indices(images_seen)),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=leave_signals,
            generator=torch.Generator(),  # or it would draw from the state that z is drawn from
        )
        for batch, labels in reader:
            yield (
                to_signed(batch.to(self.device, non_blocking=True)),
                labels.to(self.device, non_blocking=True),
            )


def leave_signals(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether the pictures take at most half of the device's free memory."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= free // 2
