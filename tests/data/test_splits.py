"""Which split an image belongs to."""

import hashlib

import torch

from cgan.data.splits import SPLITS, image_digests, split_indices


def digest(fraction: float) -> bytes:
    """A digest that is this fraction of the way from the lowest to the highest."""
    return int(fraction * 2**64).to_bytes(8, "big") + b"rest is ignored"


def test_the_digest_alone_decides() -> None:
    digests = [digest(fraction) for fraction in (0.95, 0.05, 0.15, 0.25, 0.19, 0.21)]
    labels = torch.zeros(6, dtype=torch.int64)
    parts = {s: split_indices(digests, labels, s, test=0.1).tolist() for s in SPLITS}
    assert parts == {"train": [0, 3, 5], "validation": [2, 4], "test": [1]}
    parts = {s: split_indices(digests, labels, s, test=0).tolist() for s in SPLITS}
    assert parts == {"train": [0, 2, 3, 4, 5], "validation": [1], "test": []}


def test_a_class_without_training_images_keeps_all_for_training() -> None:
    digests = [digest(fraction) for fraction in (0.05, 0.15, 0.06, 0.5)]
    labels = torch.tensor([1, 1, 0, 0])
    parts = {s: split_indices(digests, labels, s, test=0.1).tolist() for s in SPLITS}
    assert parts == {"train": [0, 1, 3], "validation": [], "test": [2]}


def test_copies_of_such_a_class_are_training_images_too() -> None:
    """The only image of class 1 is also in class 0, and without a class."""
    digests = [digest(fraction) for fraction in (0.05, 0.05, 0.05, 0.06, 0.5)]
    labels = torch.tensor([1, 0, -1, 0, 0])
    parts = {s: split_indices(digests, labels, s, test=0.1).tolist() for s in SPLITS}
    assert parts == {"train": [0, 1, 2, 4], "validation": [], "test": [3]}


def test_expected_fractions() -> None:
    digests = [hashlib.sha256(str(number).encode()).digest() for number in range(10_000)]
    labels = torch.arange(10_000) % 10
    sizes = [len(split_indices(digests, labels, split, test=0.1)) for split in SPLITS]
    assert sum(sizes) == 10_000
    assert abs(sizes[1] - 1_000) < 100  # three standard deviations
    assert abs(sizes[2] - 1_000) < 100


def test_images_are_hashed_by_content() -> None:
    images = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2)
    assert image_digests(images) == [
        hashlib.sha256(bytes([0, 1, 2, 3])).digest(),
        hashlib.sha256(bytes([4, 5, 6, 7])).digest(),
    ]
