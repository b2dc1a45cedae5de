"""The whole report, on generators with planted faults: each must be caught by its own figure."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from cgan.config_io import load_config
from cgan.data import ImageDataset
from cgan.errors import MeasureError, UnknownNameError
from cgan.evaluation import sections
from cgan.evaluation.builder import PAIRS, build_report, closest_pairs
from cgan.evaluation.control import Control
from cgan.evaluation.distances import (
    Nearest,
    expected_minimum,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    moments,
)
from cgan.evaluation.features import FeatureSet, evenly_spaced, find_features, first_of_each_class
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import measure_accuracy, train_judge
from cgan.evaluation.reference import Reference, images_per_class
from cgan.evaluation.report import Figure, Report
from cgan.evaluation.sections import disagreement
from cgan.sampling.sampler import Sampler

CLASSES = ("top", "bottom", "left")
PER_CLASS = 160


def draw_bars(label: int, count: int, seed: int) -> Tensor:
    """A bright bar at one side, of random brightness, place and noise; the last row has no ink."""
    random = torch.Generator().manual_seed(1_000 * seed + label)
    images = 40 * torch.rand(count, 1, 12, 12, generator=random)
    for image in images:
        at = int(torch.randint(0, 3, (), generator=random))
        ink = 120 + 100 * torch.rand(12, generator=random)
        if label == 2:
            image[0, :, at] += ink
        else:
            image[0, at if label == 0 else 10 - at] += ink
    images[:, :, 11] = 0
    return images.round().clamp(0, 255).to(torch.uint8)


def make_bars(count: int, seed: int) -> ImageDataset:
    images = torch.cat([draw_bars(label, count, seed) for label in range(3)])
    return ImageDataset("bars", images, torch.arange(3).repeat_interleave(count), CLASSES)


TRAIN, TEST, NEVER_SEEN = make_bars(400, 1), make_bars(160, 2), make_bars(PER_CLASS, 3)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return train_judge(TRAIN, TEST, "bars", images=15_000)


class Puppet(nn.Module):
    """A generator whose pictures are given: (class asked for, how many it drew) to uint8."""

    def __init__(self, draw: Callable[[int, int], Tensor]) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.draw, self.drawn = draw, [0, 0, 0]

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        pictures = []
        for label in labels.tolist():
            pictures.append(self.draw(label, self.drawn[label]))
            self.drawn[label] = (self.drawn[label] + 1) % PER_CLASS
        return torch.stack(pictures).float() / 127.5 - 1


def puppet(draw: Callable[[int, int], Tensor]) -> Sampler:
    config = load_config("digits-mlp").model_dump(mode="json")
    header = {
        "config": config, "classes": list(CLASSES), "image_shape": [1, 12, 12], "data": "bars",
        "images_seen": 1, "seconds": 1.0, "measured": {},
    }  # fmt: skip
    return Sampler(Puppet(draw), header, Path("puppet"))


def of(pictures: ImageDataset, label: int, index: int) -> Tensor:
    return pictures.images[pictures.labels == label][index]


def honest(label: int, index: int) -> Tensor:
    return of(NEVER_SEEN, label, index)


def report_on(sampler: Sampler, judge: Judge, **options: object) -> Report:
    features = str(options.pop("features", "judge"))
    reference = Reference(judge, TRAIN, TEST, per_class=PER_CLASS, features=features)
    return build_report(sampler, reference, **options)  # type: ignore[arg-type]


def figures(report: Report) -> dict[str, Figure]:
    return {figure.key: figure for figure in report.figures}


def value(report: Report, key: str) -> float:
    found = figures(report)[key].value
    assert found is not None
    return found


@pytest.fixture(scope="module")
def sound(judge: Judge) -> Report:
    return report_on(puppet(honest), judge)


def test_a_sound_generator_is_as_good_as_real(sound: Report) -> None:
    assert sound.warnings == []
    assert sound.left_out == []
    assert next(iter(figures(sound))) == "control_accuracy"
    for figure in sound.figures:
        assert figure.value is not None
        assert figure.real is not None
    assert value(sound, "control_accuracy") > 0.98
    for key in ("precision", "recall", "coverage"):
        assert value(sound, key) == pytest.approx(figures(sound)[key].real or 0, abs=0.1)
    assert value(sound, "diversity_least") == pytest.approx(1, abs=0.2)
    assert value(sound, "copied_share") < 0.06
    assert value(sound, "background_ink") == 0
    assert figures(sound)["control_accuracy"].chance == pytest.approx(1 / 3)
    chance = figures(sound)["intra_fid_mean"].chance
    assert chance is not None
    assert value(sound, "intra_fid_mean") < 0.2 * chance


def test_one_that_ignores_its_label(judge: Judge, sound: Report) -> None:
    seen = iter(range(10**6))

    def deaf(label: int, index: int) -> Tensor:
        step = next(seen)
        return of(NEVER_SEEN, step % 3, step // 3 % PER_CLASS)

    report = report_on(puppet(deaf), judge)
    assert value(report, "control_accuracy") == pytest.approx(1 / 3, abs=0.08)
    assert "ignores its label" in report.warnings[0]
    # Its pictures are as good as ever; only the figures by class know.
    assert value(report, "fid") < 2 * value(sound, "fid") + 0.1
    chance = figures(report)["intra_fid_mean"].chance
    assert value(report, "intra_fid_mean") == pytest.approx(chance or 0, rel=0.3)


def test_one_that_draws_a_single_picture_a_class(judge: Judge) -> None:
    report = report_on(puppet(lambda label, index: of(NEVER_SEEN, label, 0)), judge)
    assert value(report, "control_accuracy") == 1.0
    assert value(report, "diversity_least") == 0.0
    assert value(report, "recall") == 0.0
    assert value(report, "coverage") < 0.3
    (warning,) = [line for line in report.warnings if "mode collapse" in line]
    assert all(name in warning for name in CLASSES)


def test_one_class_that_collapsed_is_named(judge: Judge) -> None:
    def draw(label: int, index: int) -> Tensor:
        return honest(label, 0 if label == 1 else index)

    report = report_on(puppet(draw), judge)
    (warning,) = [line for line in report.warnings if "mode collapse" in line]
    assert "bottom" in warning
    assert "top" not in warning
    assert "left" not in warning


def test_a_collapse_that_a_few_images_of_other_classes_would_hide(judge: Judge) -> None:
    """One image, and every tenth image of another class."""

    def draw(label: int, index: int) -> Tensor:
        return honest((label + 1) % 3, index) if index % 10 == 0 else honest(label, 0)

    report = report_on(puppet(draw), judge)
    assert value(report, "diversity_least") < 0.05
    assert any("mode collapse" in line for line in report.warnings)


def test_real_images_are_compared_with_real_images_that_the_judge_has_not_seen(
    judge: Judge,
) -> None:
    """As many generated images as validation images, and these in the column "real"."""
    reference = Reference(judge, TRAIN, TEST, NEVER_SEEN, per_class=1_000)
    report = build_report(puppet(honest), reference)
    assert report.compared == len(NEVER_SEEN)
    fid = figures(report)["fid"]
    wanted = frechet_distance(
        moments(judge.predict(TEST.images / 255).features),
        moments(judge.predict(NEVER_SEEN.images / 255).features),
    )
    assert fid.real == pytest.approx(wanted, rel=1e-4)


def test_validation_images_that_lack_a_class_are_not_compared(judge: Judge) -> None:
    """Training images take their place, as without validation images."""
    for kept in (NEVER_SEEN.labels < 2, NEVER_SEEN.labels < 0):
        few = ImageDataset("few", NEVER_SEEN.images[kept], NEVER_SEEN.labels[kept], CLASSES)
        reference = Reference(judge, TRAIN, TEST, few, per_class=PER_CLASS)
        assert reference.real is reference.trained
        assert (reference.counts > 0).all()


def test_one_that_copies_training_pictures(judge: Judge) -> None:
    report = report_on(puppet(lambda label, index: of(TRAIN, label, index)), judge)
    assert value(report, "control_accuracy") > 0.98
    assert value(report, "copied_share") == 1.0
    assert value(report, "nearest_training_picture") == 0.0
    assert any("memorization" in line for line in report.warnings)
    assert report.pair_distances.eq(0).all()
    assert report.pairs[:, 0].equal(report.pairs[:, 1])


def test_the_closest_pairs_of_many_classes() -> None:
    """More classes than pairs: those with the closest pairs are shown."""
    count = 2 * PAIRS
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    drawn = FeatureSet(
        torch.arange(count), torch.zeros(count), torch.zeros(count, 1), torch.zeros(count),
        torch.zeros(count), images, torch.arange(count),
    )  # fmt: skip
    nowhere = torch.zeros(count, dtype=torch.int64)
    closest = Nearest(torch.arange(count, 0, -1.0), nowhere, nowhere.bool())
    data = ImageDataset("many", images, torch.arange(count), tuple(map(str, range(count))))
    reference = SimpleNamespace(labels=range(count), train=data, trained_on=data)
    pairs, distances = closest_pairs(drawn, closest, reference)  # type: ignore[arg-type]
    assert distances.tolist() == list(range(1, PAIRS + 1))
    assert pairs[:, 0].flatten().tolist() == list(range(count - 1, count - 1 - PAIRS, -1))


def test_noise_where_there_is_no_ink(judge: Judge) -> None:
    def noisy(label: int, index: int) -> Tensor:
        image = honest(label, index).clone()
        image[:, 11] = 51  # 0.2 of 255; the last row is the only one without ink
        return image

    report = report_on(puppet(noisy), judge)
    assert value(report, "background_ink") == pytest.approx(0.2, abs=1e-6)
    assert any("noise" in line for line in report.warnings)


def test_dots_that_stand_anywhere_are_counted(judge: Judge, sound: Report) -> None:
    """They are at no fixed place, so the count alone shows them."""

    def dotted(label: int, index: int) -> Tensor:
        image = honest(label, index).clone()
        image[:, 3 + index % 5, 3 + index // 5 % 5] = 255
        return image

    report = report_on(puppet(dotted), judge)
    before, after = value(sound, "spots_per_image"), value(report, "spots_per_image")
    assert before == pytest.approx(figures(sound)["spots_per_image"].real or 0, rel=0.2)
    assert after > before + 0.4
    assert value(report, "spots_at_one_place") < 0.1


def test_one_class_drawn_as_another(judge: Judge) -> None:
    def confused(label: int, index: int) -> Tensor:
        return honest(1 if label == 0 else label, index)

    report = report_on(puppet(confused), judge)
    assert value(report, "control_accuracy_worst_class") < 0.05
    (warning,) = [line for line in report.warnings if "control accuracy of" in line]
    assert "control accuracy of top is only" in warning
    assert "bottom" in warning


def test_cas_of_good_and_of_mislabelled_images(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classifier of generated images is trained for fewer images than by default."""
    monkeypatch.setattr(sections, "train_judge", partial(train_judge, images=10_000))
    good = report_on(puppet(honest), judge, cas=True)
    assert value(good, "cas") > 0.95
    wrong = report_on(puppet(lambda label, index: honest((label + 1) % 3, index)), judge, cas=True)
    assert value(wrong, "cas") < 0.05
    assert figures(wrong)["cas"].chance == pytest.approx(1 / 3)


def test_pictures_that_are_no_numbers(judge: Judge) -> None:
    class DivergedError(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, z: Tensor, labels: Tensor) -> Tensor:
            return torch.full((len(z), 1, 12, 12), float("nan"))

    sampler = puppet(honest)
    sampler.generator = DivergedError()
    with pytest.raises(MeasureError, match="not finite"):
        report_on(sampler, judge)


def test_listening_is_told_from_chance_with_few_classes() -> None:
    for confusion, deaf in (
        ([[505, 495], [490, 510]], True),
        ([[740, 260], [260, 740]], False),
        ([[400, 300, 300], [300, 400, 300], [300, 300, 400]], True),
        ([[600, 200, 200], [200, 600, 200], [200, 200, 600]], False),
    ):
        classes = CLASSES[: len(confusion)]
        assert Control(classes, torch.tensor(confusion), True, 0.99, 100).ignores_label == deaf, (
            confusion
        )
    plain = Control(CLASSES[:2], torch.tensor([[1, 1], [1, 1]]), False, 0.99, 100)
    assert not plain.ignores_label


def test_one_that_obeys_half_heartedly(judge: Judge) -> None:
    def draw(label: int, index: int) -> Tensor:
        return honest(label if index % 10 < 7 else (label + 1) % 3, index)

    report = report_on(puppet(draw), judge)
    assert value(report, "control_accuracy") == pytest.approx(0.7, abs=0.03)
    assert any("far below the judge's accuracy" in line for line in report.warnings)


def test_a_weak_class_is_compared_with_another_class() -> None:
    """Its own class is the most frequent prediction, but not the one to name."""
    control = Control(CLASSES, torch.tensor([[45, 30, 25], [0, 100, 0], [0, 0, 100]]), True, 1, 9)
    assert sections._class_warnings(control) == [
        "control accuracy of top is only 45%: 30% of its images show bottom"
    ]


def test_a_class_without_held_out_pictures(judge: Judge) -> None:
    without = TEST.labels != 0
    test = ImageDataset("bars", TEST.images[without], TEST.labels[without], CLASSES)
    report = build_report(puppet(honest), Reference(judge, TRAIN, test, per_class=PER_CLASS))
    assert "metrics of real top: no image is held out" in report.left_out
    assert report.classes[0].control_real is None
    assert report.classes[1].control_real is not None
    assert figures(report)["control_accuracy_worst_class"].real is not None
    json.dumps(report.to_dict(), allow_nan=False)


def test_no_more_are_compared_than_there_are_real_ones(judge: Judge) -> None:
    """FID falls with the number of pictures: a small data set must not make it look better."""
    some = torch.cat([torch.arange(400 * k, 400 * k + 60) for k in range(3)])
    small = ImageDataset("bars", TRAIN.images[some], TRAIN.labels[some], CLASSES)
    report = build_report(puppet(honest), Reference(judge, small, TEST, per_class=PER_CLASS))
    assert report.pictures == 3 * PER_CLASS
    assert report.compared == 180
    fewer = build_report(puppet(honest), Reference(judge, small, TEST, per_class=60))
    assert value(report, "fid") == pytest.approx(value(fewer, "fid"), rel=1e-9)
    assert value(report, "recall") == value(fewer, "recall")


def test_label_proportions_are_those_of_the_held_out_data(judge: Judge) -> None:
    """Ten times as many held-out bars at the top: a sound generator is still as good as real."""
    few = torch.cat([torch.arange(160), torch.arange(160, 176), torch.arange(320, 336)])
    unbalanced = ImageDataset("bars", TEST.images[few], TEST.labels[few], CLASSES)
    reference = Reference(judge, TRAIN, unbalanced, per_class=PER_CLASS)
    assert reference.counts.tolist() == [160, 16, 16]
    report = build_report(puppet(honest), reference)
    assert report.compared == 192
    fid, real = figures(report)["fid"].value, reference.fid
    assert fid is not None
    assert real is not None
    assert fid < 3 * real  # the judge was trained on the real ones
    # With equal numbers of all classes, the proportions alone would make the distance large.
    everything = reference.draw(puppet(honest)).features
    held_out = moments(reference.held_out.features)
    assert frechet_distance(held_out, moments(everything)) > 5 * fid
    # All images that are compared for memorization are in these proportions too.
    assert reference.draw(puppet(honest)).kept.tolist() == [
        *range(160), *range(160, 176), *range(320, 336)
    ]  # fmt: skip


def test_equal_label_proportions_of_equal_sets_are_at_distance_zero(judge: Judge) -> None:
    """Held-out images that repeat the first training images, ten times fewer of two classes."""
    chosen = torch.cat([torch.arange(150), torch.arange(400, 415), torch.arange(800, 815)])
    copies = ImageDataset("bars", TRAIN.images[chosen], TRAIN.labels[chosen], CLASSES)
    reference = Reference(judge, TRAIN, copies, per_class=150)
    assert reference.counts.tolist() == [150, 15, 15]
    report = build_report(puppet(lambda label, index: of(TRAIN, label, index)), reference)
    assert value(report, "fid") == pytest.approx(0, abs=1e-9)


def test_real_control_weighs_classes_equally(judge: Judge) -> None:
    """The judge is wrong on every one of ten mislabelled images, which are a class of their own."""
    labels = torch.cat([torch.zeros(160), torch.ones(10), torch.full((160,), 2)]).long()
    images = torch.cat([TEST.images[:160], TEST.images[:10], TEST.images[320:]])
    held_out = ImageDataset("bars", images, labels, CLASSES)
    report = build_report(puppet(honest), Reference(judge, TRAIN, held_out, per_class=PER_CLASS))
    assert figures(report)["control_accuracy"].real == pytest.approx(2 / 3, abs=0.01)
    assert measure_accuracy(judge, held_out) == pytest.approx(2 / 3, abs=0.01)


def test_coverage_compares_sets_of_equal_size(judge: Judge) -> None:
    """With three test images of each class, 160 generated ones would cover all of them."""
    few = ImageDataset("bars", TEST.images[::53], TEST.labels[::53], CLASSES)
    reference = Reference(judge, TRAIN, few, per_class=PER_CLASS)
    assert len(reference.held_out) == 10
    drawn = reference.draw(puppet(honest))
    own = evenly_spaced(drawn.features[first_of_each_class(drawn.target, reference.counts)], 10)
    assert reference.manifold_of(drawn) == manifold_scores(reference.held_out.features, own)


def test_second_judge(judge: Judge) -> None:
    """It is wrong about one class: its control and the agreement lack that class."""
    second = train_judge(TRAIN, TEST, "bars", images=6_000, architecture="residual")
    assert second.header.architecture == "residual"
    swapped = second.network.head.weight.data[[1, 0, 2]], second.network.head.bias.data[[1, 0, 2]]
    second.network.head.weight.data, second.network.head.bias.data = swapped
    reference = Reference(judge, TRAIN, TEST, per_class=PER_CLASS, second_judge=second)
    report = build_report(puppet(honest), reference)
    assert value(report, "control_accuracy") > 0.98
    assert value(report, "control_accuracy_second_judge") == pytest.approx(1 / 3, abs=0.02)
    assert value(report, "judge_agreement") == pytest.approx(1 / 3, abs=0.02)
    assert figures(report)["judge_agreement"].real == pytest.approx(1 / 3, abs=0.02)
    titles = [figure.title for figure in report.figures]
    assert f"control accuracy by judge {second.weights_digest[:8]} of bars" in titles
    # As it is wrong about real images too, control relative to them is right.
    assert value(report, "control_relative_second_judge") == pytest.approx(1, abs=0.05)
    assert not any("disagree" in warning for warning in report.warnings)


def test_readers_that_disagree_by_more_than_chance_are_named_first(judge: Judge) -> None:
    """The second reader takes the drawn class 2 for class 0, and reads real images rightly."""

    def tinted(label: int, index: int) -> Tensor:
        return honest(label, index) if label != 2 else honest(0, index)

    second = Judge(judge.network, replace(judge.header, data="other bars"))
    reference = Reference(judge, TRAIN, TEST, per_class=PER_CLASS, second_judge=second)
    drawn = reference.draw(puppet(tinted))
    fooled = replace(drawn, predicted=drawn.target)
    (warning,) = disagreement(reference.control_of(fooled), reference.second_control_of(fooled))
    assert warning.startswith("two readers disagree by more than chance: control relative to real")
    assert "0.67 (0." in warning
    assert warning.endswith("of other bars; the first one counts")
    assert disagreement(reference.control_of(drawn), reference.second_control_of(drawn)) == []


def test_the_report_says_which_networks_took_part(sound: Report) -> None:
    assert sound.taught_by == (
        "a discriminator (mlp) with a classifier of the same training images"
    )
    assert sound.reader == "a small network trained on the same images, as a discriminator is"
    assert sound.to_dict()["taught_by"] == sound.taught_by


def test_distances_of_each_class(sound: Report, judge: Judge) -> None:
    reference = Reference(judge, TRAIN, TEST, NEVER_SEEN, per_class=PER_CLASS)
    drawn = reference.draw(puppet(honest))
    one = build_report(puppet(honest), reference).classes[1]
    real, own = reference.held_out.of_class(1), drawn.of_class(1)[: len(reference.real.of_class(1))]
    assert one.kid == kernel_distance(real, own)
    size = min(len(real), len(own))
    scores = manifold_scores(evenly_spaced(real, size), evenly_spaced(own, size))
    assert one.coverage == scores.coverage
    assert one.kid_real is not None
    assert one.coverage_real is not None


def test_chance_of_the_worst_class_is_below_chance(sound: Report) -> None:
    chance = figures(sound)["control_accuracy_worst_class"].chance
    assert chance is not None
    assert chance == expected_minimum(3, PER_CLASS, 1 / 3)
    assert 0.25 < chance < 0.32


def test_another_judge_is_refused() -> None:
    other = make_bars(20, 5)
    renamed = ImageDataset("bars", other.images, other.labels, ("a", "b", "c"))
    with pytest.raises(MeasureError, match="--data"):
        report_on(puppet(honest), train_judge(renamed, renamed, "x", images=256))


def test_too_few_held_out_leave_figures_out_and_say_why(judge: Judge) -> None:
    few = ImageDataset("bars", TEST.images[::40], TEST.labels[::40], CLASSES)  # four of each
    none = ImageDataset("bars", TEST.images[:0], TEST.labels[:0], CLASSES)

    def report(test: ImageDataset) -> Report:
        return build_report(puppet(honest), Reference(judge, TRAIN, test, per_class=PER_CLASS))

    small = report(few)
    assert value(small, "control_accuracy") > 0.98
    assert figures(small)["fid"].value is None
    assert any("FID: 12 images are too few for a covariance of 128" in x for x in small.left_out)
    assert any("intra-class FID of top, bottom, left" in line for line in small.left_out)
    bare = report(none)
    assert figures(bare)["control_accuracy"].real is None
    assert any("held out" in line for line in bare.left_out)
    for whole in (small, bare):
        json.dumps(whole.to_dict(), allow_nan=False)


def test_training_images_in_place_of_validation_images_are_named(judge: Judge) -> None:
    lacking = ImageDataset("bars", TEST.images[:320], TEST.labels[:320], CLASSES)  # no left
    reference = Reference(judge, TRAIN, TEST, lacking, per_class=PER_CLASS)
    note = "validation images, because none shows left: the figures of real images are those of"
    assert any(note in line for line in build_report(puppet(honest), reference).left_out)
    assert Reference(judge, TRAIN, TEST, NEVER_SEEN, per_class=PER_CLASS).notes == []
    assert Reference(judge, TRAIN, TEST, per_class=PER_CLASS).notes == []  # in looks


def test_copies_of_unlabelled_training_images_are_found(judge: Judge) -> None:
    hidden = replace(make_bars(PER_CLASS, 5), labels=torch.full((3 * PER_CLASS,), -1))
    sampler = puppet(lambda label, index: hidden.images[label * PER_CLASS + index])
    reference = Reference(judge, TRAIN, TEST, per_class=PER_CLASS, unlabelled=hidden)
    report = build_report(sampler, reference)
    assert value(report, "copied_share") == 1.0
    assert report.train_images == len(TRAIN) + len(hidden)
    assert torch.equal(report.pairs[:, 0], report.pairs[:, 1])
    blind = Reference(judge, TRAIN, TEST, per_class=PER_CLASS)
    assert value(build_report(sampler, blind), "copied_share") < 0.1


def test_few_held_out_images_cannot_tell_copies(judge: Judge) -> None:
    few = torch.arange(len(TEST)) % 27 == 0
    few_test = ImageDataset("bars", TEST.images[few], TEST.labels[few], CLASSES)
    assert len(few_test) == 18
    report = build_report(puppet(honest), Reference(judge, TRAIN, few_test, per_class=PER_CLASS))
    assert "copied_share" not in figures(report)
    assert "memorization: 18 real images are held out, and it needs 20" in report.left_out


def test_as_many_images_are_searched_as_are_drawn(judge: Judge) -> None:
    """Few validation images decide how many images FID compares, and nothing else."""
    few = ImageDataset("bars", NEVER_SEEN.images[::32], NEVER_SEEN.labels[::32], CLASSES)
    reference = Reference(judge, TRAIN, TEST, few, per_class=PER_CLASS)
    assert int(reference.counts.sum()) == 15
    assert len(reference.draw(puppet(honest)).images) == 3 * PER_CLASS


def test_images_per_class() -> None:
    assert [images_per_class(count) for count in (1, 50, 100, 99_999)] == [1_000, 1_000, 500, 1]
    assert [images_per_class(count, 5_000) for count in (10, 100)] == [5_000, 500]


def test_every_pixel_inked_leaves_background_out(judge: Judge) -> None:
    images = TRAIN.images.clamp(min=1)
    inked = ImageDataset("bars", images, TRAIN.labels, CLASSES)
    report = build_report(puppet(honest), Reference(judge, inked, TEST, per_class=20))
    assert any("background noise" in line for line in report.left_out)


def test_json_holds_every_figure(sound: Report, judge: Judge) -> None:
    told = json.loads(json.dumps(sound.to_dict(), allow_nan=False))
    assert told["control_accuracy"] == sound.control.accuracy
    assert told["features"] == f"judge {judge.weights_digest[:8]} of bars"
    assert told["judge"] == judge.weights_digest
    assert (told["train_images"], told["test_images"]) == (1_200, 480)
    assert set(told["figures"]) == set(figures(sound))
    assert [one["name"] for one in told["classes"]] == list(CLASSES)
    assert sum(map(sum, told["confusion"])) == 3 * PER_CLASS
    low, high = told["interval"]
    assert low <= told["control_accuracy"] <= high


def fake_fidelity(monkeypatch: pytest.MonkeyPatch, network: Callable[..., object]) -> None:
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)


def test_inception_without_its_package_or_weights(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(MeasureError, match="pip install.*--features judge"):
        find_features("inception", judge)

    def no_network(*arguments: object) -> object:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    fake_fidelity(monkeypatch, no_network)
    with pytest.raises(MeasureError, match="could not be downloaded .*Name or service not known"):
        find_features("inception", judge)
    with pytest.raises(UnknownNameError, match="did you mean 'inception'"):
        find_features("inceptoin", judge)


def test_inception_sees_colour_bytes(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(nn.Module):
        def __init__(self, name: str, layers: list[str]) -> None:
            super().__init__()
            assert layers == ["2048"]

        def forward(self, pixels: Tensor) -> tuple[Tensor]:
            assert pixels.dtype == torch.uint8
            return (pixels.flatten(1)[:, :1].float().expand(-1, 2048) + pixels.shape[1],)

    fake_fidelity(monkeypatch, Network)
    network = find_features("inception", judge)
    assert "Inception" in network.name
    assert network.extract is not None
    features = network.extract(torch.full((2, 1, 12, 12), 0.2))  # grey: 51 of 255, 3 channels
    assert features.shape == (2, network.size)
    assert features[0, 0] == 51 + 3
