"""Generated images for DataLoaders and for torchmetrics."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

import cgan
from cgan.data import GeneratedDataset
from cgan.errors import ConfigError, UnconditionalError
from cgan.sampling.generated_dataset import TorchmetricsGenerator

Make = Callable[..., cgan.Sampler]


def test_an_image_depends_on_its_index_alone(make_generator: Make) -> None:
    sampler = make_generator(("a", "b", "c"))
    data = GeneratedDataset(sampler, 50, seed=7)
    assert len(data) == 50
    image, label = data[10]  # class 10 mod 3, seed 7 + 10
    assert label == 1
    assert torch.equal(image, sampler.sample("b", 1, seed=17)[0])
    assert torch.equal(data[-1][0], data[49][0])
    for workers in (0, 2):
        loader = DataLoader(data, batch_size=16, num_workers=workers)
        images, labels = (torch.cat(part) for part in zip(*loader, strict=True))
        assert images.shape == (50, 1, 8, 8)
        assert labels.tolist() == [index % 3 for index in range(50)]
        assert torch.equal(images[10], image)
        assert torch.equal(images[41], data[41][0])
    part = Subset(data, [-1, 10])  # it asks for a list of indices itself
    assert torch.equal(part.__getitems__([0])[0][0], data[49][0])
    for wrong in (50, -51):
        with pytest.raises(IndexError):
            data[wrong]
        with pytest.raises(IndexError):
            data.__getitems__([0, wrong])


def test_unbalanced_classes_are_drawn_at_random(make_generator: Make) -> None:
    sampler = make_generator(("a", "b", "c"))
    data = GeneratedDataset(sampler, 600, balanced=False)
    labels = [data._plan(index)[0] for index in range(600)]
    counts = Counter(labels)
    assert len(set(counts.values())) > 1
    assert all(150 < count < 250 for count in counts.values())
    assert labels == [data._plan(index)[0] for index in range(600)]
    assert torch.equal(data[5][0], sampler.sample(labels[5 : 5 + 1][0], 1, seed=5)[0])


class Picky:
    """Accepts an image of class 1 only if its first pixel is brighter than that of most."""

    classes = ("a", "b", "c")

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def classify(self, images: Tensor) -> Tensor:
        return torch.where(images[:, 0, 0, 0] > self.limit, 1, 0)

    def soft_labels(self, images: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(labels, 3) * 0.75 + images[:, 0, 0, :1]


def test_judges_reject_images_and_soften_labels(make_generator: Make) -> None:
    sampler = make_generator(("a", "b", "c"))
    limit = float(sampler.sample("b", 40)[:, 0, 0, 0].median())
    assert (sampler.sample("b", 40)[:, 0, 0, 0] <= limit).any()
    data = GeneratedDataset(sampler, 9, judges=Picky(limit))
    data.balanced = False
    data._plan = lambda index: (1, index)  # type: ignore[method-assign]
    items = data.__getitems__(list(range(9)))
    verified = sampler.sample("b", 9, verify=Picky(limit))
    for (image, target), own in zip(items, verified, strict=True):
        assert torch.equal(image, own)
        assert image[0, 0, 0] > limit
        expected = torch.tensor([0.0, 0.75, 0.0]) + image[0, 0, 0]
        assert torch.equal(torch.as_tensor(target), expected)
    plain = make_generator(conditional=False)
    with pytest.raises(UnconditionalError, match="nothing to judge"):
        GeneratedDataset(plain, 4, judges=Picky(limit))


def test_a_plain_gan_has_no_labels(make_generator: Make) -> None:
    sampler = make_generator(conditional=False)
    image, label = GeneratedDataset(sampler, 4)[2]
    assert label == -1
    assert torch.equal(image, sampler.sample(None, 1, seed=2)[0])
    with pytest.raises(ConfigError, match="at least one image, not 0"):
        GeneratedDataset(sampler, 0)
    assert GeneratedDataset(sampler, 4).__getitems__([]) == []
    with pytest.raises(ConfigError, match="a seed is a whole number"):
        GeneratedDataset(sampler, 4, seed=-1)


class MeanDifference(nn.Module):
    """A distance of images, in place of LPIPS, whose weights would be downloaded."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).abs().flatten(1).mean(1)


@pytest.mark.parametrize("conditional", [True, False])
def test_torchmetrics_path_length(make_generator: Make, conditional: bool) -> None:
    from torchmetrics.functional.image.perceptual_path_length import perceptual_path_length

    sampler = make_generator(conditional=conditional)
    generator = TorchmetricsGenerator(sampler)
    z = generator.sample(3)
    assert torch.equal(z, TorchmetricsGenerator(sampler).sample(4)[:3])
    assert not torch.equal(z, generator.sample(3))
    labels = torch.tensor([0, 1, 0]) if conditional else None
    images = generator(z, labels)
    assert images.shape == (3, 3, 8, 8)
    assert torch.equal(
        images[:1, :1] / 255, sampler.generate(z[:1], None if labels is None else labels[:1])
    )
    generator.train()
    assert not sampler.generator.training
    mean, _, distances = perceptual_path_length(
        generator, num_samples=64, conditional=conditional, batch_size=32, resize=None,
        epsilon=1e-2, sim_net=MeanDifference(), lower_discard=None, upper_discard=None,
    )  # fmt: skip
    assert distances.shape == (64,)
    assert mean > 0
