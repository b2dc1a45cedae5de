"""Does it help? On data where the answer is known, and from the shell."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

import cgan
from cgan.data import ImageDataset
from cgan.errors import ConfigError, MeasureError
from cgan.evaluation import augment_test as module
from cgan.evaluation import classifier_training
from cgan.evaluation.augment_test import check_same_images, to_code
from cgan.evaluation.classifier_training import (
    RECIPES,
    Recipe,
    can_be_tried,
    draw_dataset,
    make_material,
)
from cgan.evaluation.judge import Judge, JudgeHeader, JudgeNetwork, Judges
from tests.conftest import make_pets


def make_patterns() -> Tensor:
    """Two patterns of each of two classes, (2, 2, 1, 8, 8). The second one is the first one of the
    other class with a mark, so who has not seen it takes it for the other class."""
    plain = torch.randint(0, 2, (2, 1, 8, 8), generator=torch.Generator().manual_seed(3)) * 255
    marked = plain.flip(0).clone()
    marked[:, :, :4, :4] = 255 - marked[:, :, :4, :4]
    return torch.stack([plain, marked], 1)


PATTERNS = make_patterns()
KNOWN = 1
"""Patterns of a class that real training images show."""
FEW = tuple(RECIPES[index] for index in (0, 5, 7))
"""Real images, with generated ones, and with twice as many that judges recognise."""


def show(patterns: int, count: int, seed: int) -> ImageDataset:
    """``count`` images of each class, of its first patterns, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(2 * count) % 2
    chosen = torch.randint(0, patterns, (2 * count,), generator=generator)
    noise = torch.randint(-60, 60, (2 * count, 1, 8, 8), generator=generator)
    images = (PATTERNS[labels, chosen] + noise).clamp(0, 255)
    return ImageDataset("patterns", images.to(torch.uint8), labels, ("a", "b"))


class Draws(nn.Module):
    """A generator of the first patterns of a class; z chooses."""

    def __init__(self, patterns: int) -> None:
        super().__init__()
        shown = PATTERNS[:, :patterns].flatten(2) / 127.5 - 1
        self.patterns = nn.Parameter(shown, requires_grad=False)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        count = self.patterns.shape[1]
        share = torch.special.ndtr(z[:, 0])
        chosen = self.patterns[labels, (share * count).long().clamp_max(count - 1)]
        return chosen.view(-1, 1, 8, 8)


class Oracle(JudgeNetwork):
    """Knows all patterns of both classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten())
        self.head = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> Tensor:
        patterns = PATTERNS.flatten(0, 1).flatten(1) / 127.5 - 1
        nearest = torch.cdist(images.flatten(1), patterns).argmin(1) // 2
        return 20.0 * nn.functional.one_hot(nearest, 2)


def oracle() -> Judges:
    header = JudgeHeader("patterns", "digest", ("a", "b"), (1, 8, 8), 1.0, 100)
    return Judges([Judge(Oracle(), header)])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_training, "MIN_IMAGES", 1)
    monkeypatch.setattr(classifier_training, "TIMED_STEPS", 1)
    monkeypatch.setattr(classifier_training, "LEAST_DRAWN", 40)
    monkeypatch.setattr(classifier_training, "default_images", lambda _: 128)


@pytest.fixture
def ask(
    quick: None, make_generator: Callable[..., cgan.Sampler], monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, int], module.AugmentTest]:
    """The test of a generator that draws so many patterns of each class."""
    splits = {"train": show(KNOWN, 100, 0), "validation": show(2, 50, 1), "test": show(2, 150, 2)}
    monkeypatch.setattr(module, "data_config_of", lambda *_: None)
    monkeypatch.setattr(module, "load_split", lambda _, split: splits[split])
    monkeypatch.setattr(module, "get_or_train_judges", lambda *_: oracle())
    monkeypatch.setattr(classifier_training, "default_images", lambda _: 10 * 128)
    monkeypatch.setattr(module, "RECIPES", FEW)

    def run(patterns: int, seeds: int) -> module.AugmentTest:
        made = make_generator(("a", "b"))
        header = {**made.header, "data_digest": splits["train"].digest()}
        return cgan.augment_test(cgan.Sampler(Draws(patterns), header, made.path), seeds=seeds)

    return run


def test_images_that_hold_what_real_ones_lack_must_help(
    ask: Callable[[int, int], module.AugmentTest],
) -> None:
    """Real training images show one of two patterns of a class."""
    found = ask(2, 3)
    assert found.verdict.answer == "yes"
    by_name = {row.name: row for row in found.rows}
    assert max(by_name["real"].test) < 0.6
    assert min(by_name[found.verdict.best].test) > 0.9
    assert found.left_out == 0
    assert all(one.test.low > 0.05 for one in found.verdict.comparisons)
    assert [row.name for row in found.rows] == [one.name for one in FEW]
    assert found.notes[0].startswith("there is no linear head")
    assert found.grid.shape == (2, 10, 1, 8, 8)
    page = module.render_augment_test(found)
    assert '<p class="answer">they help</p>' in page
    assert page.count("<svg") == 1 + len(found.rows)
    assert "\nimport cgan\nfrom cgan.data import GeneratedDataset\n" in page
    assert not re.search(r"nan|inf[^o]", " ".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL)))


def test_copies_must_not_help(ask: Callable[[int, int], module.AugmentTest]) -> None:
    found = ask(KNOWN, 2)
    assert found.verdict.answer != "yes"
    best = next(row for row in found.rows if row.name == found.verdict.best)
    assert max(best.test) < 0.9


class Confused(Draws):
    """Draws the other class in about half of its images, and in all of one class."""

    def __init__(self, always: int | None = None) -> None:
        super().__init__(2)
        self.always = always

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        wrong = (z[:, 1] > 0) | (labels == self.always)
        return super().forward(z, torch.where(wrong, 1 - labels, labels))


def test_what_no_judge_recognises(make_generator: Callable[..., cgan.Sampler]) -> None:
    made, train = make_generator(("a", "b")), show(KNOWN, 40, 0)
    drawn = draw_dataset(cgan.Sampler(Confused(), made.header, made.path), 400)
    material = make_material(drawn, train, oracle())
    assert material.left_out == pytest.approx(0.5, abs=0.08)
    assert material.recognised is not None
    assert len(material.recognised) == round(400 * (1 - material.left_out))
    judged = oracle().classify(material.recognised.images / 255)
    assert torch.equal(judged, material.recognised.labels)
    certain = nn.functional.one_hot(material.recognised.labels, 2).float()
    assert material.soft == pytest.approx(certain, abs=1e-6)
    assert material.real_soft.shape == (80, 2)
    tried = [one.name for one in RECIPES if can_be_tried(one, material)]
    assert tried == [one.name for one in RECIPES if not one.head]  # there is no reader


def test_a_class_that_is_never_recognised(make_generator: Callable[..., cgan.Sampler]) -> None:
    made, train = make_generator(("a", "b")), show(KNOWN, 5, 0)
    drawn = draw_dataset(cgan.Sampler(Confused(always=1), made.header, made.path), 100)
    material = make_material(drawn, train, oracle())
    assert material.recognised is None
    assert material.left_out == pytest.approx(0.75, abs=0.1)
    names = [one.name for one in RECIPES if can_be_tried(one, material)]
    assert not any("recognised" in name for name in names)
    assert "real + 1× generated" in names
    assert "the judges recognise no image of some class" in " ".join(
        module.notes_about(made, material)
    )


def test_each_row_of_the_grid_shows_its_class() -> None:
    """Also where some images were left out, so that the classes do not come in turn."""
    labels = torch.tensor([1, 0, 0, 1, 0])
    images = (10 * labels + torch.arange(5)).byte().view(5, 1, 1, 1)
    dataset = ImageDataset("x", images, labels, ("a", "b"))
    assert module.make_grid_of(dataset).flatten().tolist() == [1, 2, 10, 13]


def test_soft_labels_are_half_the_label() -> None:
    class Even(Oracle):
        def forward(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), 2)

    (sure,) = oracle().judges
    judges = Judges([sure, Judge(Even(), sure.header)])
    images = PATTERNS[0, :1] / 255  # of class a
    # p(y|x) is the mean of (1, 0) and (½, ½).
    assert judges.soft_labels(images, torch.tensor([1]))[0].tolist() == [0.375, 0.625]
    assert judges.classify(images).tolist() == [0]


def test_the_generator_must_have_seen_the_same_images(
    make_generator: Callable[..., cgan.Sampler],
) -> None:
    train, made = show(KNOWN, 5, 0), make_generator(("a", "b"))

    def check(**header: object) -> None:
        check_same_images(cgan.Sampler(Draws(1), {**made.header, **header}, made.path), train)

    same = train.digest()
    check(data_digest=same)
    other = show(KNOWN, 6, 0).digest()
    for header in ({"data_digest": other}, {}, {"data_digest": same, "steered": {"data": "x"}}):
        with pytest.raises(MeasureError, match=r"was trained on images that are not the training "):
            check(**header)
    with pytest.raises(MeasureError, match="so it may have seen test images: train"):
        check(data_digest=same, data_changed=True)


@pytest.mark.parametrize("recipe", [one for one in RECIPES if one.generated])
def test_the_code_of_a_recipe_is_python(
    recipe: Recipe, make_generator: Callable[..., cgan.Sampler]
) -> None:
    made = make_generator(("a", "b"))
    code = to_code(recipe, made, 10_000)
    compile(code, "recipe", "exec")
    assert 10 <= len(code.splitlines()) <= 15
    assert ("judges=find_judges(sampler))" in code) == recipe.judged
    assert ("LogisticRegression(C=2.5, max_iter=500)" in code) == recipe.head  # 5 / 2 classes
    if recipe.judged:
        assert "find_judges(sampler, data='pets')" in to_code(recipe, made, 10_000, "pets")


@pytest.mark.usefixtures("quick")
def test_from_the_shell(shell: Callable[..., Result], small_run: cgan.Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = shell("augment-test", small_run.folder, "--seeds", 2, "--json", "--html", page)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verdict"]["answer"] in ("yes", "no", "no difference")
    assert found["shown_images"] == 128
    assert [len(one["test"]) for one in found["rows"]] == [2] * 8
    assert found["rarest_class"] is None
    assert found["verdict"]["reason"].startswith(("they", "do not"))
    assert found["verdict"]["comparisons"][0]["test"].keys() == {"mean", "low", "high"}
    text = page.read_text()
    for part in (found["verdict"]["reason"], *(one["name"] for one in found["rows"])):
        assert part in text


@pytest.mark.usefixtures("quick")
def test_a_rare_class_of_photographs(
    shell: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder whose generator has no control yet; stdout holds nothing but the recipe."""
    monkeypatch.setattr(module, "RECIPES", [RECIPES[0], *(one for one in RECIPES if one.head)])
    make_pets(tmp_path / "pets", count=60)
    for index in (*range(0, 60, 2), *range(1, 20, 2)):
        (tmp_path / "pets" / "dog" / f"{index:02}.png").unlink()
    quiet = ("--images", 32, "--size", 8, "--device", "cpu", "--set", "control_per_class=0")
    assert shell("train", "--data", tmp_path / "pets", *quiet, "--out", "run").exit_code == 0
    done = shell("augment-test", "run", "--seeds", 2, "--recipe", "--html", "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# cgan augment-test run: ")
    compile(done.stdout, "recipe", "exec")
    assert "dog" in done.stderr
    assert "verdict: " in done.stderr
    assert "linear head on pretrained features" in done.stderr
    assert Path("page.html").read_text().count('aria-label="differences') == 2


def test_what_cannot_be_tested(shell: Callable[..., Result], plain_run: cgan.Run) -> None:
    done = shell("augment-test", plain_run.folder)
    assert done.exit_code == 2
    assert "a plain GAN draws no labelled images" in " ".join(done.output.split())
    done = shell("augment-test", plain_run.folder, "--json", "--recipe")
    assert done.exit_code == 2
    assert "--json holds the recipe" in done.output
    done = shell("augment-test", plain_run.folder, "--html", "page.txt")
    assert done.exit_code == 2
    assert "--html takes a .html file" in done.output


@pytest.mark.parametrize(("minutes", "seeds"), [(float("nan"), 3), (-1.0, 3), (1.0, 1), (1.0, 0)])
def test_arguments_that_make_no_sense(small_run: cgan.Run, minutes: float, seeds: int) -> None:
    with pytest.raises(ConfigError, match="a number of minutes, and at least two seeds"):
        cgan.augment_test(small_run.folder, minutes=minutes, seeds=seeds)


def test_other_data_than_the_generator_was_trained_on(
    shell: Callable[..., Result], tmp_path: Path
) -> None:
    """Its training images may be among the test images now."""
    quiet = ("--images", 32, "--size", 8, "--device", "cpu", "--set", "control_per_class=0")
    pets = make_pets(tmp_path / "pets", count=40)
    assert shell("train", "--data", pets, *quiet, "--out", "run").exit_code == 0
    make_pets(tmp_path / "more", side=20, count=40)
    done = shell("augment-test", "run", "--seeds", 2, "--data", tmp_path / "more")
    assert done.exit_code == 2
    assert "run was trained on images that are not the training images of more" in " ".join(
        done.output.split()
    )


def test_a_generator_that_does_not_say_on_which_images_it_was_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The packaged one, for example. No data is read, or downloaded, before it is told."""
    monkeypatch.setattr("cgan.evaluation.augment_test.load_split", None)
    with pytest.raises(MeasureError, match="does not say on which images it was trained"):
        cgan.augment_test("mnist")
