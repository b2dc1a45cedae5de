"""Batches: every picture once an epoch, balanced on wish, a function of images seen."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from cgan.data import ImageDataset, ImageFolder, Loader, epoch_order, load_pictures
from cgan.runtime.device import Purpose

LABELS = torch.tensor([0] * 90 + [1] * 9 + [2] * 1)


def numbered(count: int = 100) -> ImageDataset:
    """Picture i has the value i everywhere, so a batch tells which pictures it holds."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    return ImageDataset("numbered", images.contiguous(), LABELS[:count], ("a", "b", "c"))


def names(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 255 / 2).round().int().tolist()


def test_every_picture_once_an_epoch_and_another_order_the_next() -> None:
    batches = [names(images) for images, _ in islice(Loader(numbered(), 30).batches(), 10)]
    flat = [name for batch in batches for name in batch]
    for epoch in range(3):
        assert sorted(flat[100 * epoch : 100 * (epoch + 1)]) == list(range(100))
    assert flat[:100] != flat[100:200]


def test_labels_belong_to_their_pictures() -> None:
    for images, labels in islice(Loader(numbered(), 32).batches(), 5):
        assert labels.tolist() == LABELS[names(images)].tolist()
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64


def test_seed_decides_the_order() -> None:
    def order(seed: int) -> list[int]:
        return names(next(Loader(numbered(), 100, seed=seed).batches())[0])

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_seeds_of_any_size_are_different_orders() -> None:
    """torch uses 32 bits of a seed on a CPU, so 1 and 1 + 2^32 were the same."""
    seeds = [0, 1, 2**32, 2**32 + 1, 2**63 - 1]
    orders = {tuple(epoch_order(LABELS, seed, 0).tolist()) for seed in seeds}
    assert len(orders) == len(seeds)
    unlabelled = epoch_order(LABELS, 0, 0, purpose=Purpose.UNLABELLED_ORDER)
    assert tuple(unlabelled.tolist()) not in orders


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("seen", [0, 32, 96, 320])
def test_position_is_images_seen(seen: int, balanced: bool) -> None:
    loader = Loader(numbered(), 32, seed=3, balanced=balanced)
    whole = list(islice(loader.batches(), 12))
    for (image, label), (again, label_again) in zip(
        whole[seen // 32 :], loader.batches(seen), strict=False
    ):
        assert torch.equal(image, again)
        assert torch.equal(label, label_again)


def test_balanced_epoch_holds_each_class_equally_often() -> None:
    order = epoch_order(LABELS, seed=0, epoch=0, balanced=True)
    assert torch.bincount(LABELS[order]).tolist() == [34, 34, 34]
    rare = torch.bincount(order)[90:99]
    assert rare.max() - rare.min() <= 1  # 34 draws of 9 pictures: each 3 or 4 times
    large = torch.bincount(order[LABELS[order] == 0])
    assert large.max() == 1


def test_batch_larger_than_the_data() -> None:
    images, _ = next(Loader(numbered(10), 25).batches())
    counts = torch.bincount(torch.tensor(names(images)))
    assert sorted(counts.tolist()) == [2] * 5 + [3] * 5


def test_processes_share_half_of_the_memory(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = load_pictures(str(pets))
    assert isinstance(held, ImageDataset)
    needed = held.images.nbytes
    for free, processes, kind in (
        (None, 1, ImageDataset),
        (2 * needed, 1, ImageDataset),
        (2 * needed - 2, 1, ImageFolder),
        (6 * needed, 3, ImageDataset),
        (6 * needed - 6, 3, ImageFolder),
    ):
        monkeypatch.setattr("cgan.data.load.free_memory", lambda free=free: free)
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.setenv(name, str(processes))
        monkeypatch.setenv("RANK", "0")
        assert isinstance(load_pictures(str(pets)), kind)


def test_folder_too_large_for_memory_gives_the_same_batches(pets: Path) -> None:
    held = load_pictures(str(pets))
    read = load_pictures(str(pets), memory_bytes=0)
    assert isinstance(held, ImageDataset)
    assert isinstance(read, ImageFolder)
    for (a, la), (b, lb) in zip(
        islice(Loader(held, 8, seed=1).batches(16), 4),
        Loader(read, 8, seed=1).batches(16),
        strict=False,
    ):
        assert torch.equal(a, b)
        assert torch.equal(la, lb)


def test_targets_stand_in_for_labels(pets: Path) -> None:
    """In memory and from disk, in batches of equally many images of each class."""
    for memory in (None, 0):
        dataset = load_pictures(str(pets), **({} if memory is None else {"memory_bytes": memory}))
        targets = torch.arange(2 * len(dataset)).view(-1, 2).float()
        own = Loader(dataset, 8, seed=1, balanced=True, targets=targets).batches()
        for (images, labels), (same, found) in zip(
            islice(Loader(dataset, 8, seed=1, balanced=True).batches(), 4), own, strict=False
        ):
            assert torch.equal(images, same)
            index = (found[:, 0] / 2).long()
            assert torch.equal(found[:, 1], 2.0 * index + 1)
            assert torch.equal(dataset.labels[index], labels)
