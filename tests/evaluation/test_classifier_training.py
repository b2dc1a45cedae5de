"""Recipes: what they add to the real images is what their names say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cgan
from cgan.data import ImageDataset
from cgan.errors import ConfigError
from cgan.evaluation import classifier_training as module
from cgan.evaluation.classifier_training import (
    LAST,
    LONGEST,
    RECIPES,
    ClassifierTrainer,
    Material,
    Recipe,
    by_class,
    count_to_draw,
    draw_dataset,
    evenly,
    format_minutes,
    is_right,
)
from cgan.evaluation.judge_training import BATCH, Added, gradient_of, train_classifier
from cgan.runtime.progress import CountProgress

CPU = torch.device("cpu")


def constant(value: int, labels: list[int]) -> ImageDataset:
    images = torch.full((len(labels), 1, 8, 8), value, dtype=torch.uint8)
    return ImageDataset("constant", images, torch.tensor(labels), ("a", "b"))


@pytest.fixture
def material() -> Material:
    """Grey images, and black ones that judges recognise, with a soft label of 0.9."""
    drawn, recognised = constant(128, [0, 1] * 100), constant(0, [0, 1] * 100)
    soft = torch.where(recognised.labels[:, None] == torch.arange(2), 0.9, 0.1)
    return Material(drawn, recognised, soft, torch.full((36, 2), 0.5), 0.2)


@pytest.fixture
def trainer() -> ClassifierTrainer:
    """White real images, of which one class has five times as many."""
    return ClassifierTrainer(constant(255, [0] * 30 + [1] * 6), constant(255, [0, 1]), CPU)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is given to ``train_classifier``, which reads all its batches here."""
    found: list[dict[str, Any]] = []

    def record(
        network: nn.Module, batches: Any, steps: int, augment: Any, decay: float, added: Any
    ) -> None:
        real = [batch for _, batch in zip(range(steps), batches, strict=False)]
        others = [next(added.batches) for _ in range(added.steps)] if added else []
        found.append({"real": real, "added": added, "others": others, "augment": augment})

    monkeypatch.setattr(module, "train_classifier", record)
    return found


def test_real_batches_are_the_same_whatever_is_added(
    trainer: ClassifierTrainer, material: Material, trainings: list[dict[str, Any]]
) -> None:
    for recipe in RECIPES:
        if not recipe.head:
            trainer.train(recipe, 10, 3, material)
    first = trainings[0]["real"]
    assert len(first) == 10
    by_name = {
        r.name: t for r, t in zip((r for r in RECIPES if not r.head), trainings, strict=True)
    }
    for recipe in RECIPES:
        if recipe.head:
            continue
        real = by_name[recipe.name]["real"]
        assert len(real) == round(10 * recipe.length)
        for (images, labels), (own, targets) in zip(first, real, strict=False):
            assert images.shape == own.shape == (BATCH, 1, 8, 8)
            if not recipe.strong:
                assert torch.equal(images, own)
            if recipe.soft:
                assert torch.equal(targets, torch.full((BATCH, 2), 0.5))
            elif recipe.strong:
                assert targets.sum(1) == pytest.approx(torch.ones(BATCH))
            else:
                assert torch.equal(labels, targets)
    counts = torch.stack([torch.bincount(labels, minlength=2) for _, labels in first]).sum(0)
    assert (counts[0] - counts[1]).abs() <= 36  # no whole number of epochs


@pytest.mark.parametrize(
    ("recipe", "value", "count", "weight"),
    [
        (Recipe("x", generated=1), 128, BATCH, 1.0),
        (Recipe("x", generated=2, weight=0.25, judged=True), 0, 2 * BATCH, 0.5),
    ],
)
def test_what_is_added(
    trainer: ClassifierTrainer, material: Material, trainings: list[dict[str, Any]],
    recipe: Recipe, value: int, count: int, weight: float,
) -> None:  # fmt: skip
    trainer.train(recipe, 10, 0, material)
    (found,) = trainings
    assert found["added"].weight == weight  # of their mean: each image counts as recipe.weight says
    assert len(found["others"]) == round(10 * (1 - LAST)) == 8
    for images, targets in found["others"]:
        assert images.shape == (count, 1, 8, 8)
        assert images.unique().item() == pytest.approx(value / 127.5 - 1, abs=1e-6)
        if recipe.judged:
            assert targets.shape == (count, 2)
            assert sorted(targets[0].tolist()) == pytest.approx([0.1, 0.9])
        else:
            assert set(targets.tolist()) == {0, 1}


def test_controls_see_as_many_images_as_the_longest_recipe() -> None:
    longest = max(recipe.cost for recipe in RECIPES if recipe.generated)
    controls = [recipe for recipe in RECIPES if not recipe.generated and not recipe.head]
    assert longest == pytest.approx(LONGEST)
    assert [recipe.cost for recipe in controls] == pytest.approx([1] + [LONGEST] * 3)
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)


class Linear(nn.Module):
    """One weight per class, on the mean of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.5]))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * self.weight


def test_the_added_loss_has_its_weight_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three steps the first two add images; the gradient of each step is seen."""
    ones, labels = torch.ones(8, 1, 2, 2), torch.tensor([0, 1] * 4)
    soft = torch.tensor([[0.25, 0.75]] * 8)
    network, seen = Linear(), []

    class Recorder:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def step(self) -> None:
            assert network.weight.grad is not None
            seen.append(network.weight.grad.clone())

    monkeypatch.setattr(torch.optim, "AdamW", Recorder)
    nothing = SimpleNamespace(step=lambda: None)
    monkeypatch.setattr(torch.optim.lr_scheduler, "OneCycleLR", lambda *_, **__: nothing)
    added = Added(iter([(2 * ones, soft)] * 3), 0.3, 2)
    train_classifier(network, [(ones, labels)] * 3, 3, lambda one: one, 0.0, added=added)
    own = gradient_of(network, network, ones, labels)[0]
    other = gradient_of(network, network, 2 * ones, soft)[0]
    assert own.abs().min() > 0
    assert seen[0] == pytest.approx(own + 0.3 * other)
    assert seen[1] == pytest.approx(own + 0.3 * other)
    assert seen[2] == pytest.approx(own)


def test_batch_norm_evaluates_with_the_statistics_of_real_images() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=1.0), nn.Flatten(), nn.Linear(4, 2))
    real = torch.randn(8, 1, 2, 2)
    added = Added(iter([(torch.full((8, 1, 2, 2), 50.0), torch.zeros(8, dtype=torch.int64))]), 1, 1)
    batches = [(real, torch.tensor([0, 1] * 4))]
    train_classifier(network, batches, 1, lambda one: one, 0.0, added=added)
    mean = network[0].running_mean
    assert mean.item() == pytest.approx(real[:4].mean().item(), abs=1e-6)  # of the first stream


def test_generated_images_are_in_the_order_of_their_seeds(small_run: cgan.Run) -> None:
    sampler = cgan.load(small_run.folder)
    drawn = draw_dataset(sampler, 15)
    assert len(drawn) == 20  # whole turns of the ten classes
    assert drawn.labels.tolist() == [*range(10), *range(10)]
    for index, name in ((0, "0"), (3, "3"), (13, "3")):
        own = sampler.sample(name, seed=index)[0]
        assert torch.equal(drawn.images[index], (own * 255).round().to(torch.uint8))


def test_how_many_are_drawn(small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = cgan.load(small_run.folder)
    assert count_to_draw(sampler, 400, 10**6) == 10_000
    assert count_to_draw(sampler, 8_000, 10**6) == 16_000
    assert count_to_draw(sampler, 80_000, 10**6) == 100_000
    assert count_to_draw(sampler, 80_000, 5_000) == 5_000
    monkeypatch.setattr(module, "MAX_BYTES", 20 * 64)  # 20 images of 8×8
    assert count_to_draw(sampler, 400, 10**6) == 20


def test_right_answers_by_class() -> None:
    class Bright(nn.Module):
        """Class 1 for bright images."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            mean = images.mean((1, 2, 3))
            return torch.stack([-mean, mean], 1)

    images = (
        torch.tensor([0, 0, 255, 255, 0], dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    )
    dataset = ImageDataset("x", images, torch.tensor([0, 0, 1, 1, 1]), ("a", "b", "c"))
    right = is_right(Bright(), dataset)  # type: ignore[arg-type]
    assert right.tolist() == [True, True, True, True, False]
    assert by_class(right, dataset.labels) == pytest.approx((1 + 2 / 3) / 2)


def test_the_same_seed_trains_the_same_classifier() -> None:
    digits = cgan.load_pictures("digits")
    trainer = ClassifierTrainer(digits, digits, CPU)
    one, two, other = (trainer.train(RECIPES[0], 2, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one.head.weight, two.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_the_curve_counts_every_image(trainer: ClassifierTrainer, material: Material) -> None:
    recipe = Recipe("x", generated=1)
    with CountProgress(0, enabled=False) as shown:
        network, curve = trainer.train(recipe, 20, 0, material, shown)
    seen = [images // BATCH for images, _ in curve]
    assert seen == [4, 8, 12, 16, 20, 24, 28, 32, 34, 36]  # the last four steps add nothing
    assert shown.done == BATCH * 36 == round(BATCH * 20 * recipe.cost)
    assert not network.training
    assert all(0 <= accuracy <= 1 for _, accuracy in curve)


def test_too_little_time(trainer: ClassifierTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMED_STEPS", 1)
    with pytest.raises(ConfigError, match=r"^0.0001 minutes are too few: each .* raise --minutes$"):
        trainer.steps_for(1e-4, 21)


def test_a_short_budget_is_not_enough_for_a_verdict(
    trainer: ClassifierTrainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MIN_IMAGES", 128)
    monkeypatch.setattr(module, "TIMED_STEPS", 1)
    monkeypatch.setattr(module, "default_images", lambda _: 10**9)
    assert trainer.steps_for(1.0, 2) >= 1
    assert "a judge of this data sees 1,000,000,000 images: with --minutes" in caplog.text
    caplog.clear()
    monkeypatch.setattr(module, "default_images", lambda _: 256)
    assert trainer.steps_for(10.0, 2) == 2
    assert "may differ" not in caplog.text


def test_each_class_has_the_same_weight() -> None:
    weights = evenly(torch.tensor([0, 0, 0, 2]))  # class 1 has no image
    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_minutes_are_plain_numbers() -> None:
    assert [format_minutes(one) for one in (0.345, 9.94, 123.4)] == [
        "0.34 minutes", "9.9 minutes", "123 minutes",
    ]  # fmt: skip


def test_a_strong_crop_keeps_the_aspect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wide images too: crops that do not fit would always be the same one."""
    images = torch.arange(96.0).expand(2, 1, 32, 96)
    wide = ImageDataset("wide", images.byte(), torch.tensor([0, 1]), ("a", "b"))
    trainer = ClassifierTrainer(wide, wide, CPU)
    torch.manual_seed(0)
    found = [trainer._strong()(images, torch.tensor([0, 1])) for _ in range(20)]
    assert {one.shape for one, _ in found} == {(2, 1, 32, 96)}
    assert len({float(one[0, 0, 0, 0]) for one, _ in found}) > 10
    assert all(targets.shape == (2, 2) for _, targets in found)
