"""What the evaluation of photographs does differently: the judge, and mirrored copies."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from cgan.augment import Augment
from cgan.data import ImageDataset
from cgan.evaluation import judge_training as judges
from cgan.evaluation.features import nearest_image
from cgan.evaluation.judge import FEATURE_DIM, ResNet9, build_classifier
from cgan.evaluation.judge_training import default_architecture, get_or_train_judge, train_judge
from cgan.evaluation.reference import Reference
from cgan.storage.paths import cache_folder

CLASSES = ("cat", "dog")


def left_or_top(count: int, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> ImageDataset:
    """Noise with a bright left half (class 0) or upper half (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 128, (count, 3, 8, 8), generator=generator)
    labels = torch.arange(count) % 2
    images[labels == 0, :, :, :4] += 100
    images[labels == 1, :, :4] += 100
    return ImageDataset("halves", images.to(torch.uint8), labels, classes)


def test_the_data_chooses_the_network() -> None:
    colour = left_or_top(4)
    grey = ImageDataset("grey", colour.images[:, :1], colour.labels, CLASSES)
    digits = ImageDataset("digits", colour.images, colour.labels, ("0", "1"))
    assert default_architecture(colour) == "resnet9"
    assert default_architecture(grey) == default_architecture(digits) == "cnn"


def test_photographs_are_mirrored_and_digits_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Recorded(Augment):
        def __init__(self, names: list[str]) -> None:
            seen.append(names)
            super().__init__(names)

    monkeypatch.setattr("cgan.evaluation.judge_training.Augment", Recorded)
    data = left_or_top(40)
    assert train_judge(data, data, "a", images=256).header.architecture == "resnet9"
    assert seen == [["mirror", "translation"]]
    train_judge(left_or_top(40, ("0", "1")), data, "b", images=256)
    assert len(seen) == 1


def test_the_judge_learns() -> None:
    judge = train_judge(left_or_top(400), left_or_top(100, seed=1), "a", images=7_680)
    assert judge.header.held_out_accuracy is not None
    assert judge.header.held_out_accuracy > 0.95


def test_the_cached_judge_of_another_network_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    data = left_or_top(40)
    old = train_judge(data, data, data.digest(), images=256, architecture="cnn")
    old.save(cache_folder() / "judges" / f"halves-{data.digest()[:16]}.safetensors")
    monkeypatch.setattr(judges, "train_judge", partial(train_judge, images=256))
    assert get_or_train_judge(lambda split: data).header.architecture == "resnet9"


@pytest.mark.parametrize("side", [8, 12, 32, 64, 128])
def test_resnet9_at_every_size(side: int) -> None:
    network = build_classifier("resnet9", (3, side, side), 2).eval()
    assert isinstance(network, ResNet9)
    features = network.features(torch.zeros(2, 3, side, side))
    assert features.shape == (2, FEATURE_DIM)
    positions = [module for module in network.features if isinstance(module, nn.MaxPool2d)]
    assert side >> len(positions) in {2, 3, 4}


def test_mirrored_copies_are_copies() -> None:
    data = left_or_top(30)
    assert nearest_image(data.images.flip(3), data).distance.min() > 1
    closest = nearest_image(data.images.flip(3), data, mirrored=True)
    assert closest.index.tolist() == list(range(30))
    assert closest.distance.tolist() == [0.0] * 30

    judge = train_judge(data, data, "halves", images=256)
    reference = Reference(judge, data, left_or_top(200, seed=2), per_class=2)
    assert reference.copied_share(data.images.flip(3)) == 1.0
    assert reference.copied_share(left_or_top(200, seed=3).images) < 0.1  # type: ignore[operator]
    nothing = ImageDataset("none", data.images[:0], data.labels[:0], CLASSES)
    assert Reference(judge, data, nothing, per_class=2).copied_share(data.images) is None
