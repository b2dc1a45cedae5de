"""The judge and what it says: on data where the truth is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cgan
from cgan.config_io import load_config
from cgan.data import ImageDataset
from cgan.errors import ConfigError, DataError, FileError, MeasureError
from cgan.evaluation.api import data_config_of
from cgan.evaluation.builder import draw_grid
from cgan.evaluation.control import Control, confusion_matrix, measure_control
from cgan.evaluation.distances import wilson_interval
from cgan.evaluation.features import draw_by_class
from cgan.evaluation.judge import Classifier, Judge, JudgeHeader
from cgan.evaluation.judge_training import (
    get_or_train_judge,
    measure_accuracy,
    random_shift,
    train_judge,
)
from cgan.sampling.sampler import Sampler


def stripes(count: int, seed: int = 0) -> ImageDataset:
    """Class 0 is bright on the left, class 1 on the right, noise everywhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randint(0, 80, (count, 1, 8, 8), generator=generator)
    images[labels == 0, :, :, :3] += 150
    images[labels == 1, :, :, 5:] += 150
    return ImageDataset("stripes", images.to(torch.uint8), labels, ("left", "right"))


@pytest.fixture(scope="module")
def judge() -> Judge:
    return train_judge(stripes(400), stripes(100, seed=1), "digest", images=6_400)


def test_confusion_by_hand() -> None:
    named = torch.tensor([0, 0, 1, 2, 2, 2])
    asked = torch.tensor([0, 0, 0, 2, 1, 2])
    counts = confusion_matrix(asked, named, 3)
    assert counts.tolist() == [[2, 1, 0], [0, 0, 1], [0, 0, 2]]


def test_figures_by_hand() -> None:
    confusion = torch.tensor([[3, 1], [3, 3]])
    control = Control(("x", "y"), confusion, True, 0.9, 10)
    assert control.accuracy == 0.6
    assert control.per_class == {"x": 0.75, "y": 0.5}
    assert control.worst == "y"
    assert control.chance == 0.5
    figures = control.to_dict()
    assert figures["confusion"] == [[3, 1], [3, 3]]
    assert figures["pictures"] == 10
    assert figures["interval"] == pytest.approx([0.3127, 0.8318], abs=1e-4)  # Wilson, 6 of 10
    assert control.intervals[0] == pytest.approx((0.3006, 0.9544), abs=1e-4)  # 3 of 4


def test_judge_learns_and_is_measured_on_held_out_pictures(judge: Judge) -> None:
    assert judge.header.held_out_accuracy == 1.0
    assert judge.header.held_out_pictures == 100
    swapped = stripes(100, seed=2)
    wrong = ImageDataset("wrong", swapped.images, 1 - swapped.labels, swapped.classes)
    assert measure_accuracy(judge, wrong) == 0.0


def test_judge_takes_pictures_from_0_to_1(judge: Judge) -> None:
    pictures = stripes(20, seed=3)
    assert torch.equal(judge.classify(pictures.images / 255), pictures.labels)


def test_judge_comes_back_from_its_file(judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path / "j.safetensors")
    again = Judge.load(tmp_path / "j.safetensors")
    assert again.header == judge.header
    images = torch.rand(8, 1, 8, 8)
    assert torch.equal(again.network(images), judge.network(images))
    (tmp_path / "torn.safetensors").write_bytes(b"x")
    with pytest.raises(FileError):
        Judge.load(tmp_path / "torn.safetensors")


def test_judge_is_trained_once_a_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CGAN_CACHE", str(tmp_path))
    trained: list[str] = []

    def quick(
        pictures: ImageDataset, held_out: ImageDataset, digest: str, device: str, architecture: str
    ) -> Judge:
        trained.append(digest)
        network = Classifier((1, 8, 8), 2)
        header = JudgeHeader("stripes", digest, ("left", "right"), (1, 8, 8), 1.0, 10)
        return Judge(network, header)

    monkeypatch.setattr("cgan.evaluation.judge_training.train_judge", quick)
    first = get_or_train_judge(lambda split: stripes(40))
    assert get_or_train_judge(lambda split: stripes(40)).header == first.header
    assert len(trained) == 1
    get_or_train_judge(lambda split: stripes(42))
    assert len(trained) == 2
    (file,) = [p for p in (tmp_path / "judges").iterdir() if first.header.digest[:16] in p.name]
    file.write_bytes(file.read_bytes()[:50])
    get_or_train_judge(lambda split: stripes(40))
    assert len(trained) == 3


def test_judge_training_leaves_random_state_alone() -> None:
    state = torch.get_rng_state()
    train_judge(stripes(40), stripes(10), "d", images=256)
    assert torch.equal(state, torch.get_rng_state())


def test_one_class_cannot_be_judged() -> None:
    pictures = ImageDataset("one", torch.zeros(4, 1, 8, 8).byte(), torch.zeros(4).long(), ("a",))
    with pytest.raises(DataError, match="one class only"):
        get_or_train_judge(lambda split: pictures)


def test_shift_moves_and_never_mirrors() -> None:
    torch.manual_seed(0)
    image = torch.full((1, 1, 8, 8), -1.0)
    image[0, 0, 3, 4] = 1.0
    places = set()
    for _ in range(60):
        moved = random_shift(image, 1)
        assert moved.shape == image.shape
        assert (moved > 0).sum() == 1
        row, column = (moved[0, 0] > 0).nonzero()[0].tolist()
        places.add((row - 3, column - 4))
    assert places == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}


class Painter(torch.nn.Module):
    """A generator that obeys its label, or ignores its label."""

    def __init__(self, obeys: bool) -> None:
        super().__init__()
        self.obeys = obeys
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        shown = labels if self.obeys else (z[:, 0] > 0).long()
        images = torch.full((len(z), 1, 8, 8), -0.7)
        images[shown == 0, :, :, :3] = 0.6
        images[shown == 1, :, :, 5:] = 0.6
        return images


def paint(obeys: bool, conditional: bool = True, classes: tuple[str, ...] = ("left", "right")):  # type: ignore[no-untyped-def]
    config = cgan.load_config("digits-mlp", {"model.conditional": conditional})
    header = {
        "config": config.model_dump(mode="json"),
        "classes": list(classes),
        "image_shape": [1, 8, 8],
    }
    return cgan.Sampler(Painter(obeys), header, Path("none"))


def test_obedience_and_deafness_are_told_apart(judge: Judge) -> None:
    obedient = measure_control(paint(True), judge, 200)
    assert obedient.accuracy == 1.0
    assert obedient.confusion.tolist() == [[200, 0], [0, 200]]
    deaf = measure_control(paint(False), judge, 200)
    assert abs(deaf.accuracy - 0.5) < 0.1


def test_a_plain_gan_gets_chance_and_each_class_pictures_of_its_own(judge: Judge) -> None:
    plain = measure_control(paint(False, conditional=False), judge, 200)
    assert not plain.conditional
    assert plain.confusion.sum() == 400
    assert abs(plain.accuracy - 0.5) < 0.1
    assert plain.confusion[0].tolist() != plain.confusion[1].tolist()


def test_judge_of_other_classes_is_refused(judge: Judge) -> None:
    with pytest.raises(MeasureError) as caught:
        measure_control(paint(True, classes=("left", "top")), judge, 10)
    assert str(caught.value) == (
        "the generator has the class 'top' where the judge knows 'right': give the generator's "
        "training data with --data"
    )
    with pytest.raises(MeasureError, match="the generator has 3 classes and the judge knows 2: gi"):
        measure_control(paint(True, classes=("left", "right", "top")), judge, 10)


def test_paths_in_the_header_of_a_single_file_are_not_followed(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = {"source": str(pets.resolve()), "data_dir": "/somewhere", "size": 16}
    config = cgan.load_config("digits-mlp").model_dump(mode="json") | {"data": hostile}
    header = {"config": config, "classes": ["cat", "dog"], "image_shape": [3, 16, 16]}
    sampler = cgan.Sampler(Painter(True), header, tmp_path / "elsewhere" / "g.safetensors")
    assert data_config_of(sampler, data="digits").source == "digits"
    found = data_config_of(sampler)  # a folder of that name lies in the current folder
    assert (found.source, found.data_dir) == ("pets", None)
    for name in ("..", "x/.."):  # the last part of these is a folder too
        config["data"] = hostile | {"source": name}
        with pytest.raises(ConfigError, match="the training data .. was not found"):
            data_config_of(cgan.Sampler(Painter(True), header, sampler.path))
    config["data"] = hostile
    pets.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="the training data pets was not found.*--data"):
        data_config_of(sampler)


class Coin(nn.Module):
    """White images where z is above a limit, for every class alike."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.limit = limit

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return 2.0 * (z[:, :1, None, None] > self.limit).expand(-1, 1, 8, 8) - 1


def test_the_interval_of_control_covers_the_truth_as_often_as_it_says() -> None:
    """Images of different classes do not share a z, so all of them are independent trials."""
    classes = tuple("0123456789")
    config = load_config("digits-mlp").model_dump(mode="json")
    header = {"config": config, "classes": list(classes), "image_shape": [1, 8, 8]}
    sampler = Sampler(Coin(-0.84), header, Path("coin"))  # P(z > −0.84) = 0.79955
    covered = []
    for repeat in range(600):
        white = torch.cat(
            [images[:, 0, 0, 0] for images, _ in draw_by_class(sampler, 20, seed=200 * repeat)]
        )
        low, high = wilson_interval(int(white.sum()), len(white))
        covered.append(low <= 0.79955 <= high)
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.02)


def test_grids_show_one_z_a_column_and_figures_do_not() -> None:
    classes = tuple("abc")
    config = load_config("digits-mlp").model_dump(mode="json")
    header = {"config": config, "classes": list(classes), "image_shape": [1, 8, 8]}
    sampler = Sampler(Coin(0.0), header, Path("coin"))
    grid = draw_grid(sampler)
    assert torch.equal(grid[0], grid[1])
    assert torch.equal(grid[0], grid[2])
    measured = torch.cat([images for images, _ in draw_by_class(sampler, 10)])
    assert not torch.equal(measured[:10], measured[10:20])


def test_a_judge_that_is_almost_never_right_has_no_ratio() -> None:
    control = Control(("a", "b", "c"), torch.ones(3, 3, dtype=torch.int64), True, 1 / 24, 10)
    assert control.relative_interval is None
    assert control.to_dict()["relative_interval"] is None


@pytest.mark.parametrize(
    ("truth", "least", "most"),
    # Classes that differ vary less together than the same share of one class would.
    [([0.9] * 10, 0.94, 0.96), ([0.2, 0.5, 0.85, 0.6, 0.4], 0.94, 0.99)],
)
def test_the_interval_of_control_covers_the_truth(
    truth: list[float], least: float, most: float
) -> None:
    """Simulated: 200 images of each class, each with a z of its own."""
    random = np.random.default_rng(0)
    covered = []
    for right in random.binomial(200, truth, (2_000, len(truth))):
        confusion = torch.zeros(len(truth), len(truth), dtype=torch.int64)
        confusion.diagonal().copy_(torch.from_numpy(right))
        confusion[:, 0] += 200 - confusion.sum(1)
        confusion[0] = torch.tensor([right[0], 200 - right[0], *[0] * (len(truth) - 2)])
        control = Control(tuple(map(str, range(len(truth)))), confusion, True, None, 0)
        covered.append(control.interval.low <= np.mean(truth) <= control.interval.high)
    assert least < np.mean(covered) < most


@pytest.mark.parametrize(
    ("sizes", "shares", "most"),
    [
        ([1_000, 10], [0.8, 0.8], 0.99),
        ([1_000] * 9 + [10], [0.999] * 9 + [0.9], 0.99),  # the small class is the hard one
        ([1_000] * 4 + [20], [0.6] * 4 + [0.99], 1),  # few images do not show that it is easy
        ([50] * 10, [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95], 0.98),
        ([10] * 40, [0.95] * 40, 0.97),
    ],
)
def test_control_relative_to_real_images_covers_the_truth(
    sizes: list[int], shares: list[float], most: float
) -> None:
    """Simulated: the judge's accuracy is a mean over classes of many and of few real images."""
    random, classes = np.random.default_rng(0), tuple(map(str, range(len(sizes))))
    drawn, truth = torch.zeros(len(sizes), len(sizes), dtype=torch.int64), float(np.mean(shares))
    drawn.diagonal().fill_(round(100_000 * truth))
    drawn += torch.diag_embed(100_000 - drawn.diagonal()).roll(1, 1)
    covered = []
    for right in random.binomial(sizes, shares, (2_000, len(sizes))):
        counts = torch.diag_embed(torch.from_numpy(right))
        counts += torch.diag_embed(torch.tensor(sizes) - torch.from_numpy(right)).roll(1, 1)
        real = Control(classes, counts, True, None, 0)
        control = Control(
            classes, drawn, True, real.balanced_accuracy, sum(sizes),
            judge_trials=real.effective_trials,
        )  # fmt: skip
        interval = control.relative_interval
        assert interval is not None
        covered.append(interval.low <= 1 <= interval.high)
    assert 0.93 < np.mean(covered) <= most


def test_effective_trials_by_hand() -> None:
    """Of equal classes they are the images; else 99 of 99 and 2 of 4 count as 0.995 and 0.5."""
    equal = Control(("a", "b"), torch.tensor([[800, 200], [200, 800]]), True, None, 0)
    assert equal.effective_trials == 2_000
    hard = Control(("a", "b"), torch.tensor([[99, 0], [2, 2]]), True, None, 0)
    mean = (0.995 + 0.5) / 2  # 0.189 of variance; of equally hard classes, 15 trials
    assert hard.effective_trials == round(mean * (1 - mean) * 4 / (0.995 * 0.005 / 99 + 0.25 / 4))
    assert hard.effective_trials == 12
    easy = Control(("a", "b"), torch.tensor([[5, 4], [0, 4]]), True, None, 0)
    assert easy.effective_trials == round(4 / (1 / 9 + 1 / 4))
