"""Named data sets, splits and warnings."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets as official

import cgan
from cgan.attributes import split_classes
from cgan.augment import choose_augmentations
from cgan.config import DataConfig
from cgan.config_io import load_config
from cgan.data import DATASETS, SPLITS, ImageDataset, load_pictures, warn_about_classes
from cgan.data.datasets import needs_download
from cgan.data.load import TEST_SET, describe_split
from cgan.errors import ConfigError, DataError, UnknownNameError
from cgan.storage.paths import safe_file_names
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


def upright(classes: int, each: int = 1) -> np.ndarray:
    """Pictures of an L, with dots that tell them apart: all classes, ``each`` times."""
    numbers = np.arange(classes * each)
    pictures = np.zeros((len(numbers), 28, 28), np.uint8)
    pictures[:, 4:24, 6] = pictures[:, 23, 6:16] = 255
    pictures[numbers, 0, numbers % 28] = pictures[numbers, 1, numbers // 28] = 100
    return pictures


def write_emnist(
    root: Path, part: str, classes: int, first: int, each: int = 1
) -> dict[str, np.ndarray]:
    """EMNIST's files: each picture column by column, with the labels ``first``, ``first`` + 1, …

    Returns the upright pictures (N, 28, 28).
    """
    raw = root / "EMNIST/raw"
    raw.mkdir(parents=True, exist_ok=True)
    found = {"train": 255 - upright(classes, each), "test": upright(classes)}
    for split, shown in found.items():
        labels = (first + np.arange(len(shown)) % classes).astype(np.uint8)
        prefix = f"emnist-{part}-{split}"
        head = np.array([0x803, len(shown), 28, 28], dtype=">u4").tobytes()
        columns = head + shown.transpose(0, 2, 1).tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(columns)
        head = np.array([0x801, len(shown)], dtype=">u4").tobytes()
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return found


BALANCED_CODES = {0: 48, 9: 57, 10: 65, 35: 90, 36: 97, 37: 98, 38: 100, 41: 103, 43: 110, 46: 116}
"""Some lines of ``emnist-balanced-mapping.txt``: a label and the code of its character."""


@pytest.mark.parametrize(("part", "classes", "first"), [("letters", 26, 1), ("balanced", 47, 0)])
def test_emnist_is_upright_and_its_labels_are_right(
    part: str, classes: int, first: int, tmp_path: Path
) -> None:
    stored = write_emnist(tmp_path, part, classes, first)
    test = load_pictures(f"emnist-{part}", "test", data_dir=tmp_path)
    assert np.array_equal(test.images.numpy()[:, 0], stored["test"])
    assert test.images.is_contiguous()
    assert test.labels.tolist() == list(range(classes))
    assert test.name == f"EMNIST {part}"
    assert (test.image_shape, test.classes) == DATASETS[f"emnist-{part}"][1:]
    assert len(set(test.classes)) == classes
    theirs = official.EMNIST(tmp_path, part, train=False)
    assert [theirs.classes[label] for label in theirs.targets] == list(test.classes)
    if part == "letters":
        assert (test.classes[0], test.classes[2], test.classes[25]) == ("a", "c", "z")
    else:
        assert {label: ord(test.classes[label]) for label in BALANCED_CODES} == BALANCED_CODES


@pytest.mark.parametrize(("part", "first"), [("letters", 0), ("letters", 2), ("balanced", 1)])
def test_labels_that_are_no_class_are_damage(part: str, first: int, tmp_path: Path) -> None:
    write_emnist(tmp_path, part, 26 if part == "letters" else 47, first)
    with pytest.raises(DataError, match=rf"EMNIST {part} in .* damaged \(a label is out of range"):
        load_pictures(f"emnist-{part}", "test", data_dir=tmp_path)


def test_folders_of_a_and_capital_a_differ_on_every_disk() -> None:
    names = safe_file_names(DATASETS["emnist-balanced"].classes)
    assert len({name.casefold() for name in names}) == 47


@pytest.fixture
def any_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision takes every file for the official one."""

    def is_there(path: str, md5: str | None = None) -> bool:
        return os.path.isfile(path)

    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", is_there)
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", is_there)


def write_svhn(root: Path, count: int = 200) -> dict[str, np.ndarray]:
    """SVHN's files: (32, 32, 3, N), with the labels 1 to 9, and 10 for the digit 0."""
    random, found = np.random.default_rng(0), {}
    for split in ("train", "test"):
        found[split] = random.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = (1 + np.arange(count) % 10).astype(np.uint8)[:, None]
        scipy.io.savemat(root / f"{split}_32x32.mat", {"X": found[split], "y": labels})
    return found


@pytest.mark.usefixtures("any_md5")
def test_svhn(tmp_path: Path) -> None:
    stored = write_svhn(tmp_path)
    test = load_pictures("svhn", "test", data_dir=tmp_path)
    assert (test.name, test.num_attributes) == ("SVHN", 1)
    assert (test.image_shape, test.classes) == DATASETS["svhn"][1:] == ((3, 32, 32), DIGITS)
    assert [test.classes[label] for label in test.labels[:11].tolist()] == list("12345678901")
    assert int(test.images[7, 2, 30, 5]) == stored["test"][30, 5, 2, 7]
    assert np.array_equal(test.images.numpy(), np.einsum("hwcn->nchw", stored["test"]))


DIGITS = tuple("0123456789")
FINE_NAMES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch "
    "crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
    "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse "
    "mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy "
    "porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television "
    "tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
FINE = FINE_NAMES.split()
"""``fine_label_names`` of CIFAR-100's file ``meta``."""


def write_cifar100(root: Path, train: int = 300) -> dict[str, np.ndarray]:
    """CIFAR-100's pickles: rows of 1,024 red, green and blue values, and the fine labels."""
    folder = root / "cifar-100-python"
    folder.mkdir()
    random, found = np.random.default_rng(0), {}
    for split, count in (("train", train), ("test", 100)):
        found[split] = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        content = {"data": found[split], "fine_labels": [index % 100 for index in range(count)]}
        (folder / split).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": FINE}, protocol=2))
    return found


@pytest.mark.usefixtures("any_md5")
def test_cifar100_has_both_labels(tmp_path: Path) -> None:
    stored = write_cifar100(tmp_path)
    test = load_pictures("cifar100", "test", data_dir=tmp_path)
    assert (test.name, test.num_attributes) == ("CIFAR100", 2)
    assert (test.image_shape, test.classes) == DATASETS["cifar100"][1:]
    assert load_pictures("cifar100", data_dir=tmp_path).num_attributes == 2
    named = [test.classes[label].split(" + ") for label in test.labels.tolist()]
    assert [fine for _, fine in named] == FINE
    assert named[4] == ["aquatic_mammals", "beaver"]
    assert named[92] == ["flowers", "tulip"]
    assert int(test.images[4, 1, 2, 3]) == stored["test"][4, 1024 + 2 * 32 + 3]
    assert np.array_equal(test.images.numpy().reshape(100, 3072), stored["test"])


def test_superclasses_of_cifar100() -> None:
    classes = DATASETS["cifar100"].classes
    assert list(classes) == sorted(classes)
    rows = split_classes(classes, 2) or []
    assert len({row[1] for row in rows}) == len(rows) == 100
    counts = {coarse: [row[0] for row in rows].count(coarse) for coarse, _ in rows}
    assert len(counts) == 20
    assert set(counts.values()) == {5}
    assert not set(counts) & {fine for _, fine in rows}  # or a value would be of two attributes
    coarse_of = {fine: coarse for coarse, fine in rows}
    official_ones = {
        "beaver": "aquatic_mammals", "trout": "fish", "tulip": "flowers", "cup": "food_containers",
        "mushroom": "fruit_and_vegetables", "lamp": "household_electrical_devices",
        "wardrobe": "household_furniture", "cockroach": "insects", "bear": "large_carnivores",
        "road": "large_man-made_outdoor_things", "sea": "large_natural_outdoor_scenes",
        "kangaroo": "large_omnivores_and_herbivores", "fox": "medium_mammals",
        "worm": "non-insect_invertebrates", "baby": "people", "turtle": "reptiles",
        "rabbit": "small_mammals", "willow_tree": "trees", "pickup_truck": "vehicles_1",
        "train": "vehicles_1", "streetcar": "vehicles_2", "lawn_mower": "vehicles_2",
        "wolf": "large_carnivores", "skunk": "medium_mammals", "crab": "non-insect_invertebrates",
        "seal": "aquatic_mammals", "orange": "fruit_and_vegetables", "squirrel": "small_mammals",
    }  # fmt: skip
    assert {fine: coarse_of[fine] for fine in official_ones} == official_ones


@pytest.mark.usefixtures("any_md5")
def test_values_of_cifar100_choose_classes(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    changes: dict[str, object] = {
        "data.source": "cifar100", "data.data_dir": str(tmp_path), "images": 64, "batch_size": 32,
        "model.width": 4, "augment": (), "control_per_class": 0, "device": "cpu",
    }  # fmt: skip
    run = cgan.train(load_config("folder-dcgan", changes), tmp_path / "run")
    sampler = cgan.load(run.folder)

    def chosen(*names: str) -> list[str]:
        return [sampler.classes[index] for index in sampler.class_indices(list(names))]

    assert chosen("beaver") == ["aquatic_mammals + beaver"]
    assert chosen("people") == [
        f"people + {one}" for one in ("baby", "boy", "girl", "man", "woman")
    ]
    assert chosen("trees", "oak_tree") == ["trees + oak_tree"]
    assert sampler.sample("beaver", n=2).shape == (2, 3, 32, 32)
    with pytest.raises(ConfigError, match=r"the training data has no 'fish \+ beaver'"):
        sampler.class_indices(["fish", "beaver"])


def write_all(name: str, root: Path) -> dict[str, np.ndarray]:
    """Files of a data set; returns the images (N, C, H, W) of ``train`` and ``test``."""
    if name == "svhn":
        return {key: np.einsum("hwcn->nchw", one) for key, one in write_svhn(root).items()}
    if name == "cifar100":
        return {key: one.reshape(-1, 3, 32, 32) for key, one in write_cifar100(root).items()}
    part = name.removeprefix("emnist-")
    classes, first = (26, 1) if part == "letters" else (47, 0)
    stored = write_emnist(root, part, classes, first, each=12)
    return {key: one[:, None] for key, one in stored.items()}


NEW = ["emnist-letters", "emnist-balanced", "svhn", "cifar100"]


@pytest.mark.usefixtures("any_md5")
@pytest.mark.parametrize("name", NEW)
def test_training_images_are_split_by_their_content(name: str, tmp_path: Path) -> None:
    stored = write_all(name, tmp_path)
    train, validation, test = (load_pictures(name, split, data_dir=tmp_path) for split in SPLITS)
    assert np.array_equal(test.images.numpy(), stored["test"])
    held_out = np.array([by_hash(image) for image in stored["train"]])
    assert held_out.any()
    assert np.array_equal(validation.images.numpy(), stored["train"][held_out])
    assert np.array_equal(train.images.numpy(), stored["train"][~held_out])
    data = DataConfig(source=name)
    assert describe_split(data, "test") == TEST_SET
    assert describe_split(data, "validation").startswith("about 10 % of the training set")


def by_hash(image: np.ndarray) -> bool:
    """Whether the first 8 bytes of the SHA-256, as a fraction, are in the tenth for validation."""
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big") < 2**64 // 10


@pytest.mark.parametrize("name", ["mnist", "cifar10", *NEW])
def test_no_network_names_the_offline_ways(
    name: str, tmp_path: Path, no_network: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cgan")
    with pytest.raises(DataError, match=r"\(.*no network.*\): check the .* --data-dir \(--data"):
        load_pictures(name, data_dir=tmp_path)
    assert "downloading" in caplog.text
    assert ("all parts of EMNIST" in caplog.text) == name.startswith("emnist")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request

    def refuse(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_other_pickles_than_the_official_ones_are_not_opened(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar100(tmp_path)
    opened: list[object] = []
    monkeypatch.setattr(pickle, "load", lambda *args, **options: opened.append(args))
    with pytest.raises(DataError, match="CIFAR100 is not in .* and could not be downloaded"):
        load_pictures("cifar100", data_dir=tmp_path)
    assert not opened


def test_what_needs_a_download(tmp_path: Path) -> None:
    names = ["mnist", "cifar10", *NEW]
    assert all(needs_download(name, tmp_path) for name in names)
    assert not needs_download("digits", tmp_path)
    write_emnist(tmp_path, "letters", 26, 1)
    write_svhn(tmp_path)
    write_cifar100(tmp_path)
    still = [name for name in names if needs_download(name, tmp_path)]
    assert still == ["mnist", "cifar10", "emnist-balanced"]


@pytest.mark.parametrize("name", [*NEW, "cifar10"])
def test_characters_are_not_mirrored(name: str) -> None:
    _, shape, classes = DATASETS[name]
    found = choose_augmentations(["auto"], classes, shape, 2 if name == "cifar100" else 1)
    photographs = ("mirror", "hue", "translation")
    assert found == (photographs if name in ("cifar10", "cifar100") else ())


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
