"""Data sets of the Hugging Face Hub, from local Parquet files: nothing is downloaded."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

import cgan
from cgan.data import ImageDataset, load_pictures
from cgan.data.hub import Columns, read_cell
from cgan.data.image_folder import scan_folder
from cgan.data.load import resolve_source
from cgan.errors import CganError, DataError
from tests.conftest import columns_of, make_pets, write_parquet

datasets = pytest.importorskip("datasets")


def content(data: Any) -> list[tuple[str, bytes]]:
    labels = [data.classes[label] for label in data.labels.tolist()]
    return sorted(zip(labels, (image.numpy().tobytes() for image in data.images), strict=True))


def test_the_same_as_a_folder(tmp_path: Path) -> None:
    for split, side in (("train", 18), ("test", 24)):
        make_pets(tmp_path / "pets" / split, side=side)
        write_parquet(tmp_path / "hub", columns_of(tmp_path / "pets" / split), split)
    for split in ("train", "validation", "test"):
        hub = load_pictures(f"hf-datasets:{tmp_path / 'hub'}", split)
        folder = load_pictures(str(tmp_path / "pets"), split)
        assert isinstance(hub, ImageDataset)
        assert isinstance(folder, ImageDataset)
        assert hub.classes == folder.classes == ("cat", "dog")
        assert content(hub) == content(folder)
    assert hub.name == "hub"


def test_names_as_labels_and_rows_without_a_class(pets: Path, tmp_path: Path) -> None:
    columns = columns_of(pets)
    images = columns["img"]
    names: list[str | None] = ["a/b"] * 12 + ["c"] * 12
    names[0] = None
    source = write_parquet(
        tmp_path / "hub", {"image": images, "label": (datasets.Value("string"), names)}
    )
    found = scan_folder(Path(source))
    assert found.classes == ("a-b", "c")
    assert torch.bincount(found.labels).tolist() == [11, 12]


def test_plain_integers_as_labels(pets: Path, tmp_path: Path) -> None:
    images = columns_of(pets)["img"]
    labels = (datasets.Value("int64"), [7] * 12 + [11] * 12)
    found = scan_folder(Path(write_parquet(tmp_path / "hub", {"image": images, "label": labels})))
    assert found.classes == ("11", "7")
    assert torch.bincount(found.labels).tolist() == [12, 12]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((".net", "c"), "a class '.net', and no folder can have that name"),
        (("", "c"), "a class '', and no folder"),
        (("_unlabelled", "c"), "a class '_unlabelled', and no folder"),
        (("a/b", "a-b"), "the classes 'a-b' and 'a/b', and the folders of both"),
    ],
)
def test_names_that_are_no_folders(
    pets: Path, tmp_path: Path, names: tuple[str, str], sentence: str
) -> None:
    images = columns_of(pets)["img"]
    labels = (datasets.ClassLabel(names=list(names)), [0] * 12 + [1] * 12)
    source = write_parquet(tmp_path / "hub", {"image": images, "label": labels})
    with pytest.raises(DataError, match=sentence):
        scan_folder(Path(source))


def test_backslashes_are_no_folders(pets: Path, tmp_path: Path) -> None:
    labels = (datasets.ClassLabel(names=["a\\b", "c"]), [0] * 12 + [1] * 12)
    columns = {"image": columns_of(pets)["img"], "label": labels}
    assert scan_folder(Path(write_parquet(tmp_path / "hub", columns))).classes == ("a-b", "c")


def test_without_training_images(pets: Path, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "hub", columns_of(pets), "test")
    with pytest.raises(DataError, match="has no split train: it has test"):
        scan_folder(Path(source))


def test_the_class_of_a_value() -> None:
    named = Columns("image", "label", ["a", "b"])
    found = [named.class_of(Path("hub"), label) for label in (0, None, -1, 1)]
    assert found == ["a", None, None, "b"]
    for wrong in (2, -2):
        with pytest.raises(DataError, match=f"has the label {wrong}, and 2 classes"):
            named.class_of(Path("hub"), wrong)
    assert Columns("image", "label", None).class_of(Path("hub"), -1) == "-1"


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_files_of_others_hold_files_in_plain_columns(
    pets: Path, tmp_path: Path, as_struct: bool
) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = columns_of(pets)
    (label, labels), (_, images) = columns["label"], columns["img"]
    if not as_struct:
        images = [one["bytes"] for one in images]
    table = {"image": images, "label": [label.names[one] for one in labels]}
    (tmp_path / "hub").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "hub" / "train.parquet")
    assert content(load_pictures(f"hf-datasets:{tmp_path / 'hub'}")) == content(
        load_pictures(str(pets))
    )


def test_worker_processes_read_it(pets: Path, tmp_path: Path) -> None:
    folder = scan_folder(Path(write_parquet(tmp_path / "hub", columns_of(pets))))
    other = pickle.loads(pickle.dumps(folder))
    assert torch.equal(other.take(torch.arange(3)), folder.take(torch.arange(3)))


def test_the_shell(shell: Callable[..., Result], pets: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "hub", columns_of(pets))
    words = ("--images", 64, "--size", 16, "--device", "cpu", "--set", "control_per_class=0")
    assert shell("train", "--data", "hf-datasets:data/hub", *words, "--out", "run").exit_code == 0
    assert cgan.load_config("run/config.yaml").data.source == f"hf-datasets:{tmp_path}/data/hub"
    # The file of a generator only names its data set.
    (tmp_path / "run" / "generator.safetensors").rename(tmp_path / "alone.safetensors")
    found = shell("evaluate", "alone.safetensors")
    assert found.exit_code == 2
    assert "the training data hub was not found: give its location with --data" in found.output


def test_a_header_does_not_download(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cgan.load_config(
        "folder-dcgan", {"images": 64, "data.source": str(pets), "control_per_class": 0}
    )
    run = cgan.train(config, tmp_path / "run")
    sampler = cgan.load(run.folder / "generator.safetensors")
    sampler.path = tmp_path / "alone.safetensors"
    sampler.config.data.__dict__["source"] = "hf-datasets:evil"
    monkeypatch.setattr(datasets, "load_dataset", lambda name: pytest.fail("downloads"))
    with pytest.raises(CganError, match="was not found"):
        cgan.evaluate(sampler)


@pytest.mark.parametrize(
    ("left_out", "answer"), [("img", "no column of images"), ("label", "no column of labels")]
)
def test_a_missing_column(left_out: str, answer: str, pets: Path, tmp_path: Path) -> None:
    columns = columns_of(pets, text=(datasets.Value("string"), ["x"] * 24))
    del columns[left_out]
    with pytest.raises(DataError, match=f"{answer}: it has .*text"):
        load_pictures(write_parquet(tmp_path / "hub", columns))


def test_a_broken_and_an_empty_image(pets: Path, tmp_path: Path) -> None:
    columns = columns_of(pets)
    columns["img"][1][0] = {"bytes": b"no image", "path": None}
    columns["img"][1][1] = None
    source = write_parquet(tmp_path / "hub", columns)
    with pytest.raises(DataError, match="1 more cannot be read either"):
        load_pictures(source)
    assert len(scan_folder(Path(source), skip_broken=True)) == 22


def test_a_mask_before_the_images(
    pets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cgan")
    columns = columns_of(pets)
    kind, images = columns["img"]
    first = {"annotation": (kind, [images[0]] * len(images)), "image": (kind, images)}
    source = write_parquet(tmp_path / "hub", {**first, "label": columns["label"]})
    assert len(set(content(load_pictures(source)))) > 10
    assert "columns that are not used: annotation" in caplog.text


def test_files_of_others_are_not_read(pets: Path, tmp_path: Path) -> None:
    columns = columns_of(pets)
    columns["img"][1][0] = {"bytes": None, "path": str(pets / "cat" / "00.png")}
    source = write_parquet(tmp_path / "hub", columns)
    with pytest.raises(DataError, match="outside of the data set"):
        load_pictures(source)


def test_names_of_files_on_the_hub_are_not_broken_images() -> None:
    """Streaming a repository of image files gives them, and no content."""
    cell = {"bytes": None, "path": "hf://datasets/owner/pets@main/cat/1.jpg"}
    with pytest.raises(DataError, match=r"its images as files: load it without data\.streaming"):
        read_cell(Path("hf-datasets:owner/pets"), cell, "train/00000-000000000.png")


def test_a_folder_of_images(pets: Path) -> None:
    """``datasets`` stores the path of each image, and names the classes by the folders."""
    found = load_pictures(f"hf-datasets:{pets}")
    assert content(found) == content(load_pictures(str(pets)))


def test_what_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hf-datasets:.*nothing cannot be loaded \("):
        load_pictures(f"hf-datasets:{tmp_path / 'nothing'}")
    with pytest.raises(DataError, match="needs a name after it"):
        load_pictures("hf-datasets:")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'cgan\[hf\]'"):
        load_pictures("hf-datasets:user/name")


def test_a_local_folder_becomes_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub").mkdir()
    assert resolve_source("hf-datasets:hub") == f"hf-datasets:{tmp_path / 'hub'}"
    assert resolve_source("hf-datasets:user/name") == "hf-datasets:user/name"
