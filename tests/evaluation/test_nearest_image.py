"""The nearest training image of generated images, over pixels."""

import pytest
import torch
from torch import Tensor

from cgan.data import ImageDataset
from cgan.evaluation import features
from cgan.evaluation.features import nearest_image, take_flipped


def noise(count: int, seed: int, shape: tuple[int, int, int] = (3, 8, 12)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def dataset(images: Tensor) -> ImageDataset:
    return ImageDataset("noise", images, torch.zeros(len(images), dtype=torch.int64), ("a",))


@pytest.mark.parametrize("mirrored", [False, True])
def test_distances_are_those_of_all_pairs(mirrored: bool) -> None:
    queries, train = noise(50, 0), noise(40, 1)
    variants = [train, train.flip(3)] if mirrored else [train]
    pairs = torch.stack([
        (queries[:, None].double() - variant[None]).flatten(2).norm(dim=2) / 255
        for variant in variants
    ])  # fmt: skip
    expected = pairs.amin(0).min(1)
    found = nearest_image(queries, dataset(train), mirrored)
    assert found.index.tolist() == expected.indices.tolist()
    torch.testing.assert_close(found.distance, expected.values, rtol=1e-12, atol=0)
    mirror = pairs[-1].min(1).values == expected.values
    assert torch.equal(found.flipped, mirror if mirrored else torch.zeros(50, dtype=torch.bool))
    shown = take_flipped(dataset(train), found.index, found.flipped).double()
    torch.testing.assert_close((queries - shown).flatten(1).norm(dim=1) / 255, expected.values)


@pytest.mark.parametrize("base", [0, 250])
def test_a_copy_is_at_distance_exactly_0_and_names_its_original(base: int) -> None:
    train = noise(300, 0, (1, 8, 8)) % 6 + base  # all images are nearly the same
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    found = nearest_image(train[order], dataset(train))
    assert found.distance.tolist() == [0.0] * 300
    assert found.index.tolist() == order.tolist()


@pytest.mark.parametrize("values", [1, 288 * 7, 288 * 50])
def test_chunks_change_nothing(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one image, with a rest, and one for all."""
    queries, train = noise(20, 0), dataset(noise(40, 1))
    expected = nearest_image(queries, train, mirrored=True)
    monkeypatch.setattr(features, "CHUNK_VALUES", values)
    found = nearest_image(queries, train, mirrored=True)
    assert torch.equal(found.index, expected.index)
    assert torch.equal(found.distance, expected.distance)
