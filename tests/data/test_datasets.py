"""Named data sets, splits and warnings."""

from pathlib import Path

import pytest
import torch

from cgan.data import DATASETS, SPLITS, ImageDataset, load_pictures, warn_about_classes
from cgan.errors import DataError, UnknownNameError
from tests.conftest import mnist_folder, write_idx


def test_digits_are_the_real_ones_in_full_range() -> None:
    train, validation, test = (load_pictures("digits", split) for split in SPLITS)
    assert train.image_shape == (1, 8, 8)
    assert train.images.dtype == torch.uint8
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)
    assert [len(train), len(validation), len(test)] == [1206, 206, 385]
    assert train.classes == tuple("0123456789")
    zero = train.images[train.labels == 0].float().mean(0)[0]
    assert zero[3:5, 3:5].mean() < 60  # a zero is hollow
    assert zero.max() > 150


@pytest.mark.mnist
def test_mnist() -> None:
    train, validation, test = (
        load_pictures("mnist", split, data_dir=mnist_folder()) for split in SPLITS
    )
    assert train.images.shape == (54_019, 1, 28, 28)
    assert validation.images.shape == (5_981, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert (train.image_shape, train.classes) == DATASETS["mnist"][1:]


@pytest.mark.parametrize(
    ("name", "kind"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_mnist_family_is_read_from_its_files(name: str, kind: str, tmp_path: Path) -> None:
    pictures = load_pictures(name, "test", data_dir=write_idx(tmp_path, kind))
    assert (pictures.image_shape, pictures.classes) == DATASETS[name][1:]
    assert pictures.labels[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_network_names_the_offline_ways(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.error
    import urllib.request

    def refuse(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match=r"\(.*no network.*\): check the .* --data-dir \(--data"):
        load_pictures(name, data_dir=tmp_path)


def test_damaged_files_are_told(tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST")
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="MNIST in .* is damaged"):
        load_pictures("mnist", data_dir=tmp_path)


def test_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fashion-mnist'"):
        load_pictures("fashion-minst")


def test_digest_tells_pictures_and_labels_apart() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    base = ImageDataset("a", images, labels, ("x", "y")).digest()
    assert base == ImageDataset("b", images.clone(), labels.clone(), ("x", "y")).digest()
    assert base != ImageDataset("a", images + 1, labels, ("x", "y")).digest()
    assert base != ImageDataset("a", images, 1 - labels, ("x", "y")).digest()
    assert base != ImageDataset("a", images, labels, ("x", "z")).digest()


def warnings(counts: list[int], caplog: pytest.LogCaptureFixture, balanced: bool = False) -> str:
    caplog.clear()
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    names = tuple("abcdef"[: len(counts)])
    warn_about_classes(ImageDataset("set", images, labels, names), balanced)
    return caplog.text


def test_warnings(caplog: pytest.LogCaptureFixture) -> None:
    assert "one class only" in warnings([50], caplog)
    assert "fewer than 10 images in: b" in warnings([50, 9], caplog)
    assert "data.balanced=true" in warnings([300, 20], caplog)
    assert warnings([300, 20], caplog, balanced=True) == ""
    assert warnings([100, 11, 60], caplog) == ""
