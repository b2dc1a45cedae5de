"""Does it help? The batches are what their names say, and the verdict follows from the figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import Result

import cgan
from cgan.data import ImageDataset
from cgan.errors import ConfigError, MeasureError
from cgan.evaluation import augment_test as module
from cgan.evaluation.augment_test import (
    ClassifierTrainer,
    Row,
    TrainingSet,
    accuracy_by_class,
    decide,
    draw_dataset,
    make_training_sets,
    rarest_class,
)
from tests.conftest import make_pets

CPU = torch.device("cpu")


def constant(value: int, labels: list[int]) -> ImageDataset:
    images = torch.full((len(labels), 1, 8, 8), value, dtype=torch.uint8)
    return ImageDataset("constant", images, torch.tensor(labels), ("a", "b"))


@pytest.mark.parametrize(("share", "real"), [(1.0, 24), (0.5, 12), (1 / 6, 4), (0.0, 0)])
def test_batches_have_the_share_of_real_images_and_all_classes_equally(
    share: float, real: int
) -> None:
    """Real images are white and unbalanced, generated ones black."""
    white, black = constant(255, [0] * 30 + [1] * 6), constant(0, [0, 1] * 30)
    drawn = None if share == 1 else black
    batches = TrainingSet("x", share, drawn).batches(white, 24, CPU, seed=0)
    counts = torch.zeros(2, 2)
    for _ in range(60):
        images, labels = next(batches)
        assert images.shape == (24, 1, 8, 8)
        is_real = images[:, 0, 0, 0] == 1
        assert is_real.sum() == real
        for kind in (False, True):
            counts[int(kind)] += torch.bincount(labels[is_real == kind], minlength=2)
    # 60 batches are no whole number of epochs, so a few images more of one class.
    assert torch.equal(counts.sum(1), torch.tensor([60.0 * (24 - real), 60.0 * real]))
    assert ((counts[:, 0] - counts[:, 1]).abs() <= 36).all()


def test_generated_images_are_in_the_order_of_their_seeds(small_run: cgan.Run) -> None:
    sampler = cgan.load(small_run.folder)
    drawn = draw_dataset(sampler, 4)
    assert len(drawn) == 20  # five times as many as there are real ones
    assert drawn.labels.tolist() == [*range(10), *range(10)]
    for index, name in ((0, "0"), (3, "3"), (13, "3")):
        own = sampler.sample(name, seed=index)[0]
        assert torch.equal(drawn.images[index], (own * 255).round().to(torch.uint8))


def test_training_sets_are_named_after_what_they_hold(
    small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, digits = cgan.load(small_run.folder), cgan.load_pictures("digits")
    assert isinstance(digits, ImageDataset)
    few = ImageDataset("few", digits.images[:40], digits.labels[:40], digits.classes)
    sets, left_out = make_training_sets(sampler, few)
    assert [(one.name, one.real_share, one.drawn and len(one.drawn)) for one in sets] == [
        ("real, not augmented", 1.0, None),
        ("real", 1.0, None),
        ("real + 1× generated", 0.5, 40),
        ("real + 5× generated", 1 / 6, 200),
        ("real + 1× verified", 0.5, 40),
        ("real + 5× verified", 1 / 6, 200),
        ("5× generated alone", 0.0, 200),
    ]
    assert not left_out
    verified = sets[4].drawn
    assert verified is not None
    judge = module.find_judge_of(sampler)
    assert torch.equal(judge.classify(verified.images / 255), verified.labels)
    monkeypatch.setattr(module, "MAX_DRAWN", 100)
    names = [one.name for one in make_training_sets(sampler, few)[0]]
    assert names[3] == "real + 2.5× generated"
    assert names[-1] == "2.5× generated alone"
    monkeypatch.setattr(module, "MAX_BYTES", 20 * 64)  # 20 images of 8×8
    names = [one.name for one in make_training_sets(sampler, few)[0]]
    assert names[2:4] == ["real + 0.5× generated", "real + 0.5× verified"]


def test_without_control_there_are_no_verified_images(
    small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, digits = cgan.load(small_run.folder), cgan.load_pictures("digits")

    def never(*_: object) -> object:
        raise MeasureError("the judge rejected all 100 draws")

    monkeypatch.setattr(module.RejectionSampler, "resample", never)
    sets, left_out = make_training_sets(sampler, digits)
    assert not any("verified" in one.name for one in sets)
    assert left_out == ["verified images: the judge rejected all 100 draws"]


def row(name: str, generated: bool, validation: list[float], test: list[float]) -> Row:
    return Row(name, generated, tuple(validation), tuple(test), None)


def test_the_verdict_needs_every_seed() -> None:
    real = row("real", False, [0.80, 0.82], [0.80, 0.82])
    for test, verdict in (
        ([0.83, 0.84], "yes"),
        ([0.82, 0.90], "no difference"),
        ([0.70, 0.80], "no difference"),
        ([0.70, 0.79], "no"),
    ):
        assert decide([real, row("drawn", True, [0.8, 0.8], test)])[0] == verdict


def test_validation_images_choose_and_test_images_decide() -> None:
    """The row that is best on test images by luck is not the one that is compared."""
    rows = [
        row("plain", False, [0.5], [0.9]),
        row("real", False, [0.8], [0.7]),
        row("lucky", True, [0.6], [0.99]),
        row("chosen", True, [0.7], [0.6]),
    ]
    verdict, reason = decide(rows)
    assert verdict == "no"
    assert reason == (
        "do not use them (chosen: 60.0 % (60.0 to 60.0) of test images are right; "
        "real: 70.0 % (70.0 to 70.0))"
    )


def test_the_rarest_class_has_a_verdict_of_its_own() -> None:
    real = Row("real", False, (0.9,), (0.96, 0.98), (0.7, 0.8))
    drawn = Row("drawn", True, (0.9,), (0.97, 0.99), (0.82, 0.9))
    assert decide([real, drawn]) == (
        "no difference",
        "they make no difference that these seeds can show (drawn: 98.0 % (97.0 to 99.0) of test "
        "images are right; real: 97.0 % (96.0 to 98.0)); in the rarest class they help "
        "(86.0 % (82.0 to 90.0) against 75.0 % (70.0 to 80.0))",
    )


def test_accuracy_by_class() -> None:
    class Bright(nn.Module):
        """Class 1 for bright images."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            mean = images.mean((1, 2, 3))
            return torch.stack([-mean, mean], 1)

    images = (
        torch.tensor([0, 0, 255, 255, 0], dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    )
    dataset = ImageDataset("x", images, torch.tensor([0, 0, 1, 1, 1]), ("a", "b", "c"))
    found = accuracy_by_class(Bright(), dataset)  # type: ignore[arg-type]
    assert found[:2].tolist() == [1.0, 2 / 3]
    assert found[2].isnan()


def test_rarest_class() -> None:
    equal, rare = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
    assert rarest_class(equal, equal) is None
    assert rarest_class(rare, equal) == 1
    assert rarest_class(rare, torch.tensor([0])) is None


def test_the_same_seed_trains_the_same_classifier() -> None:
    digits = cgan.load_pictures("digits")
    trainer = ClassifierTrainer(digits, CPU)
    one, two, other = (trainer.train(TrainingSet("real", 1.0), 2, seed) for seed in (0, 0, 1))
    assert torch.equal(one.head.weight, two.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_too_little_time() -> None:
    trainer = ClassifierTrainer(cgan.load_pictures("digits"), CPU)
    with pytest.raises(
        ConfigError, match=r"0.0001 minutes are too few for 21 classifiers: .* raise"
    ):
        trainer.steps_for(1e-4, 21)


def test_a_short_budget_is_not_enough_for_a_verdict(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = ClassifierTrainer(cgan.load_pictures("digits"), CPU)
    monkeypatch.setattr(module, "MIN_IMAGES", 128)
    monkeypatch.setattr(module, "TIMED_STEPS", 1)
    monkeypatch.setattr(module, "default_images", lambda _: 10**9)
    assert trainer.steps_for(1.0, 2) >= 1
    assert "a judge of this data sees 1,000,000,000 images: with --minutes" in caplog.text
    caplog.clear()
    monkeypatch.setattr(module, "default_images", lambda _: 256)
    assert trainer.steps_for(10.0, 2) == 2
    assert "may differ" not in caplog.text


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_IMAGES", 1)
    monkeypatch.setattr(module, "TIMED_STEPS", 1)
    monkeypatch.setattr(module, "default_images", lambda _: 128)


@pytest.mark.usefixtures("quick")
def test_from_the_shell(shell: Callable[..., Result], small_run: cgan.Run) -> None:
    done = shell("augment-test", small_run.folder, "--seeds", 2, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verdict"] in ("yes", "no", "no difference")
    assert found["shown_images"] == 128
    assert [len(one["test"]) for one in found["rows"]] == [2] * 7
    assert found["rarest_class"] is None
    assert found["reason"].startswith(("they", "do not"))


@pytest.mark.usefixtures("quick")
def test_a_rare_class_has_a_column(shell: Callable[..., Result], tmp_path: Path) -> None:
    """Of a folder whose generator has no control yet."""
    make_pets(tmp_path / "pets", count=60)
    for index in range(0, 60, 2):
        (tmp_path / "pets" / "dog" / f"{index:02}.png").unlink()
    for index in range(1, 20, 2):
        (tmp_path / "pets" / "dog" / f"{index:02}.png").unlink()
    quiet = ("--images", 32, "--size", 8, "--device", "cpu", "--set", "control_per_class=0")
    assert shell("train", "--data", tmp_path / "pets", *quiet, "--out", "run").exit_code == 0
    done = shell("augment-test", "run", "--seeds", 2)
    assert done.exit_code == 0, done.output
    assert "dog" in done.stdout
    assert "verdict" in done.stdout


def test_what_cannot_be_tested(shell: Callable[..., Result], plain_run: cgan.Run) -> None:
    done = shell("augment-test", plain_run.folder)
    assert done.exit_code == 2
    assert "a plain GAN draws no labelled images" in " ".join(done.output.split())


@pytest.mark.parametrize(("minutes", "seeds"), [(float("nan"), 3), (-1.0, 3), (1.0, 1), (1.0, 0)])
def test_arguments_that_make_no_sense(small_run: cgan.Run, minutes: float, seeds: int) -> None:
    with pytest.raises(ConfigError, match="a number of minutes, and at least two seeds"):
        cgan.augment_test(small_run.folder, minutes=minutes, seeds=seeds)


@pytest.mark.usefixtures("quick")
def test_other_data_than_the_generator_was_trained_on(
    shell: Callable[..., Result], tmp_path: Path
) -> None:
    """Its training images may be among the test images now."""
    quiet = ("--images", 32, "--size", 8, "--device", "cpu", "--set", "control_per_class=0")
    pets = make_pets(tmp_path / "pets", count=40)
    assert shell("train", "--data", pets, *quiet, "--out", "run").exit_code == 0
    make_pets(tmp_path / "more", side=20, count=40)
    done = shell("augment-test", "run", "--seeds", 2, "--data", tmp_path / "more", "--json")
    assert done.exit_code == 0, done.output
    (warning,) = json.loads(done.stdout)["warnings"]
    assert warning.startswith("some test images may be among its training images")
