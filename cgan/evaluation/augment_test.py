"""Do generated images help a classifier of the real ones? ``cgan augment-test``.

Classifiers are trained by the recipes of ``cgan.evaluation.classifier_training``, each with several
seeds. The validation images choose the best recipe with generated images; the test images compare
it with every recipe without them: a gain counts only if it beats all of those.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgan import __version__
from cgan.attributes import display_order
from cgan.data import SPLITS, ImageDataset, ImageFolder, Split, load_split
from cgan.data.dataset import class_indices
from cgan.errors import ConfigError, MeasureError, UnconditionalError
from cgan.evaluation.api import data_config_of
from cgan.evaluation.classifier_training import (
    LONGEST,
    RECIPES,
    ClassifierTrainer,
    Material,
    Recipe,
    by_class,
    can_be_tried,
    count_to_draw,
    draw_dataset,
    is_right,
    make_material,
)
from cgan.evaluation.control import check_fit
from cgan.evaluation.judge import JudgeNetwork
from cgan.evaluation.judge_training import BATCH, get_or_train_judges
from cgan.evaluation.pretrained import STRENGTH
from cgan.evaluation.report import (
    CHART,
    Chart,
    format_share,
    grid_picture,
    page_environment,
    page_style,
)
from cgan.evaluation.verdict import (
    WORDS,
    Row,
    Verdict,
    format_difference,
    judge_rows,
    rarest_class,
)
from cgan.runtime.device import explain_out_of_memory, find_device, torch_defaults
from cgan.runtime.progress import CountProgress
from cgan.sampling.sampler import Sampler, as_sampler
from cgan.storage.paths import StrPath

SHOWN = 10
"""Generated images of each class on the page."""

TEMPLATE = Path(__file__).with_name("augment_test.html.j2")

logger = logging.getLogger("cgan")


@dataclass(frozen=True)
class AugmentTest:
    """The result of ``augment_test``.

    Attributes:
        model: the generator.
        train_images, test_images: numbers of real images.
        drawn_images: generated images.
        left_out: share of them that the judges assign to another class.
        shown_images: real images that each classifier sees.
        classes: the class names.
        rarest_class: the class with the fewest training images; None if all are equally rare.
        rows: one per recipe.
        verdict: whether generated images help.
        recipe: the best recipe with generated images, as lines of Python.
        notes: what a reader of the figures should know.
        seconds: how long it took.
        grid: generated images of that recipe, uint8 (K, columns, C, H, W), a row per class.
    """

    model: str
    train_images: int
    test_images: int
    drawn_images: int
    left_out: float
    shown_images: int
    classes: tuple[str, ...]
    rarest_class: str | None
    rows: list[Row]
    verdict: Verdict
    recipe: str
    notes: list[str]
    seconds: float
    grid: Tensor

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON."""
        return {key: value for key, value in asdict(self).items() if key != "grid"}


@torch_defaults()
def augment_test(
    model: StrPath | Sampler,
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    minutes: float = 30.0,
    seeds: int = 3,
    device: str = "auto",
    progress: bool = False,
) -> AugmentTest:
    """Measure whether generated images help a classifier of the generator's training data.

    Args:
        model: a run folder, a generator file, or a sampler.
        data: where the generator's data is now, if it is not where the run's config says.
        data_dir: where data sets are stored.
        minutes: about the longest training time of all classifiers together.
        seeds: classifiers per recipe, at least 2.
        device: the device to use.
        progress: show progress on the terminal.

    Raises:
        UnconditionalError: the generator has no classes.
        MeasureError: there are no validation or no test images, the generator was trained on other
            images than these training images, or photographs have no pretrained reader.
        ConfigError: ``minutes`` or ``seeds`` are too few.
    """
    if not isfinite(minutes) or minutes < 0 or seeds < 2:
        raise ConfigError("augment_test needs a number of minutes, and at least two seeds")
    torch_device, sampler = find_device(device), as_sampler(model)
    if not sampler.conditional:
        raise UnconditionalError("a plain GAN draws no labelled images, so it cannot help")
    if "data_digest" not in sampler.header:
        raise MeasureError(
            f"{sampler.name} does not say on which images it was trained: train a generator on "
            "your data first"
        )
    source = data_config_of(sampler, data, data_dir)
    splits = {split: load_split(source, split) for split in SPLITS}
    train = splits["train"]
    check_fit(sampler, f"{train.name} has", train.classes, train.image_shape)
    for name in ("validation", "test"):
        if not len(splits[name]):
            raise MeasureError(f"{train.name} has no {name} images: add more images")
    check_same_images(sampler, train)
    home = sampler.device
    try:
        with explain_out_of_memory("training classifiers", "use smaller images"):
            return _measure(
                sampler.to(torch_device), splits, data, minutes, seeds, torch_device, progress
            )
    finally:
        sampler.to(home)


def _measure(
    sampler: Sampler,
    splits: dict[Split, ImageDataset | ImageFolder],
    data: str | None,
    minutes: float,
    seeds: int,
    device: torch.device,
    progress: bool,
) -> AugmentTest:
    begun = time.monotonic()
    train, validation, test = (splits[split] for split in SPLITS)
    trainer = ClassifierTrainer(train, validation, device)
    steps = trainer.steps_for(minutes, seeds * sum(recipe.cost for recipe in RECIPES))
    judges = get_or_train_judges(splits.__getitem__, device)
    count = count_to_draw(sampler, len(train), round((LONGEST - 1) * BATCH * steps))
    logger.info("drawing %s images, and letting %s read them", f"{count:,}", judges.name)
    material = make_material(draw_dataset(sampler, count, progress), train, judges, progress)
    recipes = [recipe for recipe in RECIPES if can_be_tried(recipe, material)]
    rarest = rarest_class(train.labels, test.labels)
    rows, right = [], {}
    total = round(seeds * steps * BATCH * sum(recipe.cost for recipe in recipes))
    with CountProgress(total, progress) as shown:
        for recipe in recipes:
            logger.info("recipe: %s", recipe.name)
            trained = [trainer.train(recipe, steps, s, material, shown) for s in range(seeds)]
            images = round(steps * BATCH * recipe.cost)
            row, right[recipe.name] = make_row(recipe, trained, images, validation, test, rarest)
            rows.append(row)
    rarest_name = "" if rarest is None else train.classes[rarest]
    verdict = judge_rows(rows, right, test.labels, rarest, rarest_name)
    best = next(one for one in recipes if one.name == verdict.best)
    used = material.recognised if best.judged else material.drawn
    assert used is not None
    comment = f"# cgan augment-test {shlex.quote(sampler.name)}: {WORDS[verdict.answer]}\n"
    return AugmentTest(
        sampler.name, len(train), len(test), len(material.drawn), material.left_out, steps * BATCH,
        train.classes, rarest_name or None, rows, verdict,
        comment + to_code(best, sampler, len(used), data), notes_about(sampler, material),
        time.monotonic() - begun, make_grid_of(used),
    )  # fmt: skip


def make_row(
    recipe: Recipe,
    trained: Sequence[tuple[JudgeNetwork, list[tuple[int, float]]]],
    images: int,
    validation: ImageDataset | ImageFolder,
    test: ImageDataset | ImageFolder,
    rarest: int | None,
) -> tuple[Row, Tensor]:
    """The row of a recipe, and whether each test image is right, (seeds, N).

    Args:
        recipe: the recipe.
        trained: networks and their curves, one per seed.
        images: images that each of them saw.
        validation, test: the images to measure on.
        rarest: the rarest class, or None.
    """
    networks, curves = zip(*trained, strict=True)
    answers = {one: (is_right(one, validation), is_right(one, test)) for one in {*networks}}
    on_validation, on_test = (
        torch.stack([answers[one][part] for one in networks]) for part in (0, 1)
    )
    of_rarest = None
    if rarest is not None:
        of_rarest = tuple(on_test[:, test.labels == rarest].double().mean(1).tolist())
    curve = [(points[0][0], sum(one for _, one in points) / len(points))
             for points in zip(*curves, strict=True)]  # fmt: skip
    row = Row(
        recipe.name,
        recipe.generated > 0,
        images,
        tuple(by_class(one, validation.labels) for one in on_validation),
        tuple(by_class(one, test.labels) for one in on_test),
        of_rarest,
        tuple(curve),
    )
    return row, on_test


def check_same_images(sampler: Sampler, train: ImageDataset | ImageFolder) -> None:
    """Raise ``MeasureError`` unless the generator was trained on these images and labels.

    One that has seen test images, or more labels than the classifier, would bring in what the real
    images lack. Unlabelled images may be more: they are what it can add.
    """
    headers = [sampler.header]
    if "steered" in sampler.header:  # the plain generator below
        headers.append(sampler.header["steered"])
    for header in headers:
        if header.get("data_digest") != train.digest() or sampler.config.data.is_streamed:
            raise MeasureError(
                f"{sampler.name} was trained on images that are not the training images of "
                f"{train.name}: train a generator on this data first"
            )
        if header.get("data_changed"):
            raise MeasureError(
                f"the images changed while {sampler.name} was trained, so it may have seen test "
                "images: train a generator on this data first"
            )


def notes_about(sampler: Sampler, material: Material) -> list[str]:
    """What a reader of the figures should know."""
    notes = []
    if material.reader is None:
        notes.append("there is no linear head: pretrained features are those of colour photographs")
    if material.recognised is None:
        notes.append("the judges recognise no image of some class: train the generator longer")
    elif material.left_out > 0.5:
        notes.append("the judges recognise less than half of what is drawn")
    if "teacher" in sampler.header:
        notes.append(
            "a network that was trained on ImageNet taught the generator, so what it adds to "
            "networks without that knowledge may come from there: compare with the linear head"
        )
    if sampler.config.warm_start:
        notes.append(
            "the generator began with the weights of another one, whose images may be what it adds"
        )
    return notes


def make_grid_of(dataset: ImageDataset) -> Tensor:
    """The first images of each class: uint8 (K, ``SHOWN`` or fewer, C, H, W)."""
    members = class_indices(dataset.labels)
    columns = min(SHOWN, *map(len, members.values()))
    return torch.stack([dataset.images[members[one][:columns]] for one in sorted(members)])


NETWORK_CODE = """\
import cgan
from cgan.data import GeneratedDataset{imported}
from itertools import cycle
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
sampler = cgan.load({model!r})
drawn = GeneratedDataset(sampler, {count:_}{judges})  # images in [0, 1]
more = cycle(DataLoader(drawn, {batch_size}, shuffle=True))  # drawn once, then kept
for step, (images, labels) in enumerate(real_batches):  # yours, equally many of each class
    loss = cross_entropy(network(images), labels)
    if step < 0.8 * steps:  # the last fifth sees real images only
        images, labels = next(more)  # augment them like the real ones
        loss += {weight:g} * cross_entropy(network(images), labels)  # not in one batch with them
    loss.backward()  # and the step of your optimizer
"""
HEAD_CODE = """\
import cgan
import torch
from cgan.data import GeneratedDataset{imported}
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader
sampler = cgan.load({model!r})
drawn = GeneratedDataset(sampler, len(real_images){judges})
more, soft = map(torch.cat, zip(*DataLoader(drawn, 500)))  # images in [0, 1]
x = torch.cat([features(real_images), features(more)])  # of your pretrained network: (N, F)
labels = soft.argmax(1)
y = torch.cat([real_labels, labels])
evenly = [1 / real_labels.bincount()[real_labels], {weight:g} / labels.bincount()[labels]]
head = LogisticRegression(C={strength:g}, max_iter=500)
head.fit((x - x.mean(0)) / x.std(0), y, torch.cat(evenly))
"""


def to_code(recipe: Recipe, sampler: Sampler, count: int, data: str | None = None) -> str:
    """A recipe with generated images as lines of Python, for a network of the user's own."""
    given = "" if data is None else f", data={data!r}"
    judges, imported = "", ""
    if recipe.judged:
        judges = f", judges=find_judges(sampler{given})"
        imported = "\nfrom cgan.evaluation.api import find_judges"
    template = HEAD_CODE if recipe.head else NETWORK_CODE
    weight = recipe.weight * (1 if recipe.head else recipe.generated)
    batch_size = "batch_size" if recipe.generated == 1 else f"{recipe.generated} * batch_size"
    return template.format(
        model=sampler.name, count=count, batch_size=batch_size, weight=weight, judges=judges,
        imported=imported, strength=STRENGTH / len(sampler.classes),
    )  # fmt: skip


def render_augment_test(result: AugmentTest) -> str:
    """The result as one HTML page, without a date and a machine name."""
    comparisons = result.verdict.comparisons
    plots = [("all classes", [one.test for one in comparisons])]
    if result.rarest_class:
        plots.append((result.rarest_class, [one.rarest for one in comparisons if one.rarest]))
    ends = [end for _, some in plots for one in some for end in (one.low, one.high, 0.0)]
    low, span = min(ends), (max(ends) - min(ends)) or 1.0
    curves = {row.name: list(row.curve) for row in result.rows if row.curve}
    environment = page_environment()
    environment.filters.update(share=format_share, range=format_range, difference=format_difference)
    order = display_order(result.classes)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        css=page_style(), result=result, words=WORDS, plots=plots, chart_size=CHART,
        charts=make_charts_alike(curves), classes=[result.classes[one] for one in order],
        grid=grid_picture(result.grid[order]), judged="recognised" in result.verdict.best,
        place=lambda value: round(10 + (CHART[0] + 100) * (value - low) / span, 1),
        versions={"cgan": __version__, "torch": torch.__version__},
    )  # fmt: skip


def make_charts_alike(curves: dict[str, list[tuple[int, float]]]) -> list[Chart]:
    """A chart for each curve, all with the same axes."""
    points = [point for curve in curves.values() for point in curve]
    last, heights = max(x for x, _ in points), [y for _, y in points]
    low, high = min(heights), max(heights)
    across, up = CHART[0] / last, CHART[1] / (high - low or 1)
    return [
        Chart(name, low, high, last,
              [(0, " ".join(f"{across * x:.1f},{up * (high - y):.1f}" for x, y in curve))])
        for name, curve in curves.items()
    ]  # fmt: skip


def format_range(shares: Sequence[float]) -> str:
    """Mean and range of fractions in %: ``81.2 (80.7–81.9)``."""
    mean = sum(shares) / len(shares)
    return f"{100 * mean:.1f} ({100 * min(shares):.1f}–{100 * max(shares):.1f})"
