"""Shards that are read in order: what a batch holds, and what is said of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import re
import sys
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

import cgan
from cgan.config import DataConfig, is_shard_pattern
from cgan.data import Loader, describe_split, load_pictures, load_training_split, stream
from cgan.data.image_file import read_image
from cgan.data.load import resolve_source
from cgan.data.shard_trees import sample_key
from cgan.data.splits import is_below
from cgan.data.stream import ImageStream, open_stream, shuffle
from cgan.data.stream_shards import HubShards, Row
from cgan.errors import CganError, ConfigError, DataError
from cgan.runtime.distributed import World
from tests.conftest import columns_of, make_pets, write_parquet, write_shards, write_tar

pytest.importorskip("webdataset")


@pytest.fixture
def pattern(tmp_path: Path) -> str:
    return write_shards(tmp_path / "shards", make_pets(tmp_path / "pets", count=40))


def pieces(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def loader(pattern: str, batch: int = 8, **others: Any) -> Loader:
    data = load_training_split(DataConfig(source=pattern, size=8))
    return Loader(data.labelled, batch, stream=data.stream, **{"workers": 0, **others})


def batches(found: Loader, count: int, seen: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    endless = found.batches(seen)
    taken = list(islice(endless, count))
    endless.close()
    return taken


def test_the_sample_is_split_as_a_folder_is(pattern: str, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        sample = load_pictures(pattern, split, size=8)
        folder = load_pictures(str(tmp_path / "pets"), split, size=8)
        assert sample.classes == folder.classes == ("cat", "dog")
        every = torch.arange(len(sample)), torch.arange(len(folder))
        assert sorted(pieces(sample.take(every[0]))) == sorted(pieces(folder.take(every[1])))
    assert sample.name == "shards"
    assert describe_split(DataConfig(source=pattern), "test") == (
        "about 10 % of a sample of the shards, chosen by a hash of the content"
    )


def test_an_epoch_holds_every_training_image_once_and_no_other(
    pattern: str, tmp_path: Path
) -> None:
    """The labels are right, too: of every image, by its content."""
    expected = {}
    for path in (tmp_path / "pets").glob("*/*"):
        if not is_below(hashlib.sha256(path.read_bytes()).digest(), 0.2):
            image = read_image(path, (3, 8, 8)).numpy().tobytes()
            expected[image] = ["cat", "dog"].index(path.parent.name)
    _, found = open_stream(DataConfig(source=pattern, size=8))
    for lane in range(4):
        for start in (0, len(expected)):  # two epochs
            rows = list(islice(found.lane(lane, 4, 0, 0), start, start + len(expected)))
            drawn = [found.decode(row) for row in rows]
            labels = {image.numpy().tobytes(): label for image, label in drawn}
            assert labels == expected
            assert len(drawn) == len(expected)


def test_epochs_and_seeds_have_orders_of_their_own(pattern: str) -> None:
    _, found = open_stream(DataConfig(source=pattern, size=8))
    length = len(found.spare)
    own = [row.name for row in islice(found.lane(0, 4, 0, 0), 2 * length)]
    assert len(set(own)) == length
    assert sorted(own[:length]) == sorted(own[length : 2 * length])
    assert own[:length] != own[length : 2 * length]
    other = [row.name for row in islice(found.lane(0, 4, 1, 0), length)]
    assert sorted(other) == sorted(own[:length])
    assert other != own[:length]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(pattern: str, workers: int) -> None:
    expected = batches(loader(pattern), 6)
    found = batches(loader(pattern, workers=workers), 6)
    for (images, labels), (others, names) in zip(expected, found, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, names)
        assert images.shape == (8, 3, 8, 8)
        assert images.dtype == torch.float32


@pytest.mark.parametrize("size", [2, 4, 8])
def test_processes_share_a_batch(pattern: str, size: int) -> None:
    """Two lanes a process, one, and one for two processes."""
    expected = batches(loader(pattern), 5)
    parts = [batches(loader(pattern, world=World(rank, size)), 5) for rank in range(size)]
    for step, (images, labels) in enumerate(expected):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)


def test_lanes_go_round_one_ring(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They begin at different shards. Shards of any size are drawn as often as they are large."""
    monkeypatch.setattr(stream, "BUFFER_IMAGES", 4)
    _, found = open_stream(DataConfig(source=pattern, size=8))
    first = [next(found.lane(lane, 4, 0, 0)).name.split("/")[0] for lane in range(4)]
    assert len(set(first)) == 4
    one, *others = [[row.name for row in islice(found.lane(k, 4, 0, 0), 60)] for k in range(4)]
    assert all(other != one for other in others)


def test_a_small_shard_is_not_drawn_more_often(tmp_path: Path) -> None:
    """Writers of shards leave a small last one."""
    content = (make_pets(tmp_path / "pets", count=1) / "cat" / "00.png").read_bytes()
    for shard, count in enumerate((40, 40, 40, 4)):
        files = []
        for index in range(count):
            image = content + bytes([shard, index])
            files += [(f"{index}.png", image), (f"{index}.cls", f"{shard}".encode())]
        write_tar(tmp_path / f"{shard}.tar", files)
    sample, found = open_stream(DataConfig(source=str(tmp_path / "*.tar"), size=8))
    share = sum(not found.known[digest] for digest in sample.digests[-4:]) / len(found.spare)
    rows = [row for lane in range(4) for row in islice(found.lane(lane, 4, 0, 0), 500)]
    assert 0 < share < 0.08
    assert sum(row.label == "3" for row in rows) / len(rows) == pytest.approx(share, rel=0.2)


def test_a_resumed_run_goes_on_with_the_same_image(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the end of an epoch and of a chapter."""
    monkeypatch.setattr(stream, "CHAPTER", 96)
    found = loader(pattern)
    expected = batches(found, 40)
    decoded = 0
    decode = ImageStream.decode

    def counted(self: ImageStream, row: Row) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(self, row)

    monkeypatch.setattr(ImageStream, "decode", counted)
    for step in (1, 11, 12, 13, 33):
        decoded = 0
        ((images, labels),) = batches(found, 1, seen=8 * step)
        assert torch.equal(images, expected[step][0])
        assert torch.equal(labels, expected[step][1])
        assert decoded == 8 * stream.BATCHES  # nothing before them


def test_lanes_divide_a_batch(pattern: str) -> None:
    _, found = open_stream(DataConfig(source=pattern, size=8))
    assert [found.lanes(batch) for batch in (8, 6, 5, 2, 64)] == [4, 3, 1, 2, 4]


def test_the_buffer_is_bounded_by_rows_and_by_bytes() -> None:
    rows = [Row(str(index), bytes(10), "a") for index in range(1_000)]
    for most_rows, most_bytes, held in ((100, 10**9, 100), (10**9, 500, 50)):
        given = 0

        def counted(rows: list[Row] = rows) -> Any:
            nonlocal given
            for row in rows:
                given += 1
                yield row

        drawn, most = [], 0
        for row in shuffle(counted(), random.Random(0), most_rows, most_bytes):
            drawn.append(int(row.name))
            most = max(most, given - len(drawn))
        assert most == held
        assert sorted(drawn) == list(range(1_000))
        # A row waits as long as the buffer is large, on average.
        wait = sum(abs(place - name) for place, name in enumerate(drawn)) / 1_000
        assert 0.5 * held < wait < 1.5 * held


def test_the_hub_is_streamed(tmp_path: Path) -> None:
    """With a split of its own for tests, only validation images are left out of training."""
    pytest.importorskip("datasets")
    make_pets(tmp_path / "pets", count=30)
    make_pets(tmp_path / "held", count=5, side=21)
    write_parquet(tmp_path / "hub", columns_of(tmp_path / "pets"))
    source = write_parquet(tmp_path / "hub", columns_of(tmp_path / "held"), "test")
    data = DataConfig(source=source, size=8, streaming=True)
    sample, found = open_stream(data)
    assert isinstance(found.shards, HubShards)
    assert found.held_out == 0.1
    assert describe_split(data, "test") == "a sample of the split test"
    assert "about 10 % of a sample" in describe_split(data, "validation")
    assert len(load_pictures(source, "test", size=8, streaming=True)) == 10
    whole, part = (
        load_pictures(source, "train", size=8, streaming=streaming) for streaming in (False, True)
    )
    every = torch.arange(len(whole))
    assert sorted(pieces(whole.take(every))) == sorted(pieces(part.take(every)))
    # In workers, iter(table) would give each of them a share.
    split = load_training_split(data)
    training = Loader(split.labelled, 4, stream=split.stream, workers=2)
    seen = {one for images, _ in batches(training, 30) for one in pieces(images)}
    assert len(seen) == len(whole)
    assert len(sample) == 70


def test_integers_are_named_by_classes_txt(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    pets = make_pets(tmp_path / "pets", count=20, classes={"0": 20, "1": 200})
    write_shards(tmp_path / "shards", pets)
    (tmp_path / "shards" / "classes.txt").write_text("black\nwhite\n")
    data = DataConfig(source=str(tmp_path / "shards"), size=8, streaming=True)
    sample, found = open_stream(data)
    assert sample.classes == ("black", "white")
    for row in islice(found.lane(0, 4, 0, 0), 8):
        image, label = found.decode(row)
        assert (image.float().mean() > 100) == label == (row.label == "white")


def test_a_run_and_its_resumption(pattern: str, tmp_path: Path) -> None:
    changes = {
        "data.source": pattern, "data.size": 8, "batch_size": 8, "model.width": 8, "device": "cpu",
        "control_per_class": 20, "lr_final_fraction": 1.0, "penalty.final_fraction": 1.0,
    }  # fmt: skip
    short, long = (cgan.load_config("folder-dcgan", {**changes, "images": n}) for n in (80, 160))
    whole = cgan.train(long, tmp_path / "whole")
    cgan.train(short, tmp_path / "part")
    resumed = cgan.train(long, tmp_path / "part", resume=True)
    one, other = (load_file(run.folder / "state.safetensors") for run in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert cgan.load(whole.folder).header["data"] == "shards"
    report = cgan.evaluate(whole.folder, per_class=20)
    assert "sample of the shards" in report.to_dict()["splits"]["test"]


def scan(source: str, **others: Any) -> None:
    open_stream(DataConfig(source=source, size=8, **others))


def test_what_cannot_be_streamed(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no shard .*004\.tar, .*3 more"):
        scan(str(tmp_path / "shards" / "{002..009}.tar"))
    with pytest.raises(DataError, match="there is no shard"):
        scan(str(tmp_path / "nothing-*.tar"))
    for key in ("balanced", "skip_conflicts"):
        with pytest.raises(ConfigError, match=f"data.{key} needs all images"):
            scan(pattern, **{key: True})
    with pytest.raises(ConfigError, match="needs hf-datasets:NAME, tar files, or a folder"):
        scan("mnist", streaming=True)
    with pytest.raises(CganError, match="streaming"):
        load_pictures("mnist", streaming=True)
    with pytest.raises(DataError, match="there is no shard"):
        scan(str(tmp_path / "pets"), streaming=True)


def test_damaged_shards(pattern: str, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    whole = (shards / "001.tar").read_bytes()
    with gzip.open(shards / "001.tar", "wb") as file:
        file.write(whole)
    with pytest.raises(DataError, match=r"001\.tar cannot be read as a TAR file without compress"):
        scan(pattern)
    (shards / "001.tar").write_bytes(whole[: len(whole) // 2 + 700])
    with pytest.raises(DataError, match=r"001\.tar cannot be read as a TAR file"):
        scan(pattern)
    other = bytearray(whole)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        third = archive.getmembers()[2].offset
    other[third : third + 100] = b"x" * 100  # its checksum is wrong now
    (shards / "001.tar").write_bytes(other)
    with pytest.raises(DataError, match=r"001\.tar cannot be .* \(it is damaged in the middle\)"):
        scan(pattern)
    write_tar(shards / "001.tar", [("a.png", b"1"), ("b.txt", b"2")])
    with pytest.raises(DataError, match=r"001\.tar/a\.png has no class: there is no file \.cls"):
        scan(pattern)
    write_tar(shards / "001.tar", [("a.txt", b"1"), ("a.cls", b"2")])
    with pytest.raises(
        DataError, match=r"001\.tar/a has a class and no image: its files end in cls"
    ):
        scan(pattern)
    write_tar(shards / "001.tar", [("a.txt", b"1")])
    scan(pattern)


def test_a_broken_image_and_an_unknown_class_after_the_sample(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cgan.data.stream_shards.SAMPLE_IMAGES", 20)
    good = (tmp_path / "pets" / "cat" / "00.png").read_bytes()
    assert not is_below(hashlib.sha256(good).digest(), 0.2)
    files = [
        (f"{index}.{end}", one)
        for index in range(9)
        for end, one in (("png", good), ("cls", b"cat"))
    ]
    for wrong, message in (
        (
            ("png", good),
            r"001\.tar/9\.png has the class 'cow', which the sample of 2 classes lacks",
        ),
        (("png", b"nothing" * 9), r"001\.tar/9\.png cannot be read as an image"),
    ):
        label = b"cow" if wrong[1] == good else b"cat"
        write_tar(
            tmp_path / "shards" / "001.tar", [*files, (f"9.{wrong[0]}", wrong[1]), ("9.cls", label)]
        )
        for workers in (0, 1):
            with pytest.raises(DataError, match=message):
                batches(loader(pattern, workers=workers), 40)
    assert not is_below(hashlib.sha256(b"nothing" * 9).digest(), 0.2)
    data = load_training_split(DataConfig(source=pattern, size=8, skip_broken=True))
    batches(Loader(data.labelled, 8, stream=data.stream, workers=0), 40)
    assert "9.png cannot be read as an image" in caplog.text
    assert "an image of the sample takes its place" in caplog.text
    expected = batches(Loader(data.labelled, 8, stream=data.stream, workers=0), 24)
    found = batches(Loader(data.labelled, 8, stream=data.stream, workers=2), 24)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(expected, found, strict=True))
    for step in range(24):  # also if the first one is broken
        ((images, _),) = batches(
            Loader(data.labelled, 8, stream=data.stream, workers=0), 1, 8 * step
        )
        assert torch.equal(images, expected[step][0])


def test_shards_in_the_order_of_the_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (make_pets(tmp_path / "pets", count=2) / "cat" / "00.png").read_bytes()
    for shard, label in enumerate((b"cat", b"dog")):
        files = [
            (f"{index}.{end}", one)
            for index in range(9)
            for end, one in (("png", content), ("cls", label))
        ]
        write_tar(tmp_path / f"{shard}.tar", files)
    scan(str(tmp_path / "*.tar"))
    assert "begins with images of one class, so a batch holds few classes" in caplog.text


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_shard_pattern("a/{000..099}.tar")
    assert is_shard_pattern("a/*.TAR")
    for other in ("a.tar", "a/*.zip", "hf-datasets:{a}.tar", "mnist"):
        assert not is_shard_pattern(other)
    (tmp_path / "what?.tar").touch()
    assert not is_shard_pattern(str(tmp_path / "what?.tar"))
    monkeypatch.chdir(tmp_path)
    assert resolve_source("a/{0..1}.tar") == str(tmp_path / "a" / "{0..1}.tar")


def test_without_the_library(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    with pytest.raises(DataError, match=r"needs the library webdataset: pip install 'cgan\[stre"):
        scan(pattern)


def test_the_shell(shell: Callable[..., Result], pattern: str) -> None:
    words = ("--images", 64, "--size", 8, "--device", "cpu", "--set", "control_per_class=0")
    found = shell("train", "--data", pattern, *words, "--set", "batch_size=8", "--out", "run")
    assert found.exit_code == 0
    said = re.sub(r"\s+", " ", found.output)
    assert "read in order, from 4 shards" in said
    assert "a sample: 80 images from the beginning of every shard" in said
    found = shell("evaluate", "run", "--per-class", 20)
    assert found.exit_code == 0, found.output


def test_names_of_classes_are_those_of_the_sample(tmp_path: Path) -> None:
    """Slashes are no folders, and the decomposed letters of macOS are composed."""
    content = (make_pets(tmp_path / "pets", count=2) / "cat" / "00.png").read_bytes()
    for shard in range(2):
        files = [
            (f"{index}.{end}", one)
            for index, label in enumerate(("a/b", "cafe\u0301", "a b"))
            for end, one in (("png", content + bytes([index, shard])), ("cls", label.encode()))
        ]
        write_tar(tmp_path / f"{shard}.tar", files)
    sample, found = open_stream(DataConfig(source=str(tmp_path / "*.tar"), size=8))
    assert sample.classes == ("a b", "a-b", "caf\u00e9")
    labels = [found.decode(row)[1] for row in found.shards.read(0)]
    assert labels == [1, 2, 0]
    assert sample.facts[0].startswith(f"{tmp_path.name} is read in order, from 2 shards")


def test_a_split_without_labels_counts_for_nothing(tmp_path: Path) -> None:
    """Usual for test sets of the Hub. Validation images were trained on."""
    datasets = pytest.importorskip("datasets")
    make_pets(tmp_path / "pets", count=60)
    make_pets(tmp_path / "held", count=5, side=21)
    write_parquet(tmp_path / "hub", columns_of(tmp_path / "pets"))
    hidden = columns_of(tmp_path / "held")
    hidden["label"] = (datasets.ClassLabel(names=["cat", "dog"]), [-1] * 10)
    source = write_parquet(tmp_path / "hub", hidden, "test")
    data = DataConfig(source=source, size=8, streaming=True)
    _, found = open_stream(data)
    assert found.held_out == 0.2
    validation = load_pictures(source, "validation", size=8, streaming=True)
    trained = {
        found.decode(row)[0].numpy().tobytes() for row in islice(found.lane(0, 1, 0, 0), 300)
    }
    assert len(validation)
    assert not trained & set(pieces(validation.take(torch.arange(len(validation)))))


def test_copies_of_held_out_images_of_the_sample_are_not_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pets = make_pets(tmp_path / "pets", count=40)
    write_parquet(tmp_path / "hub", columns_of(pets))
    for path in pets.glob("*/*"):
        if int(path.stem) > 9:
            path.unlink()
    source = write_parquet(tmp_path / "hub", columns_of(pets), "test")
    _, found = open_stream(DataConfig(source=source, size=8, streaming=True))
    copies = {path.read_bytes() for path in pets.glob("*/*")}
    assert len(copies) == 20
    assert not copies & {row.content for row in islice(found.lane(0, 1, 0, 0), 200)}


def test_a_class_that_would_be_held_out_as_a_whole_is_trained_on(tmp_path: Path) -> None:
    content = (make_pets(tmp_path / "pets", count=1) / "cat" / "00.png").read_bytes()
    many = [content + index.to_bytes(2, "big") for index in range(500)]
    rare = [one for one in many if is_below(hashlib.sha256(one).digest(), 0.2)][:2]
    common = [one for one in many if one not in rare][:40]
    files = []
    for index, image in enumerate([*rare, *common]):
        files += [(f"{index}.png", image), (f"{index}.cls", b"rare" if index < 2 else b"common")]
    write_tar(tmp_path / "0.tar", files)
    _, found = open_stream(DataConfig(source=str(tmp_path / "*.tar"), size=8))
    assert {row.label for row in islice(found.lane(0, 1, 0, 0), 80)} == {"rare", "common"}


def test_lines_of_classes_txt_name_all_labels_or_none(tmp_path: Path) -> None:
    """With labels from 1, two classes became one."""
    content = (make_pets(tmp_path / "pets", count=1) / "cat" / "00.png").read_bytes()
    (tmp_path / "classes.txt").write_text("1\n2\n3\n")
    files = [
        (f"{index}.{end}", one)
        for index in range(9)
        for end, one in (("png", content + bytes([index])), ("cls", str(index % 3 + 1).encode()))
    ]
    write_tar(tmp_path / "0.tar", files)
    with pytest.raises(
        DataError, match=r"has the class '3', and classes\.txt has 3 lines, which are"
    ):
        scan(str(tmp_path / "*.tar"))
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")  # noticed, though the shards are the same
    sample, _ = open_stream(DataConfig(source=str(tmp_path / "*.tar"), size=8))
    assert sample.classes == ("b", "c", "d")


@pytest.mark.parametrize("source", ["0.tar", "*.tar"])
def test_files_of_a_sample(tmp_path: Path, source: str) -> None:
    """A name may have dots, masks are no pictures, and suffixes may be capitals."""
    pets = sorted(make_pets(tmp_path / "pets", count=3).glob("*/*"))
    mask = pets[0].read_bytes() + b"mask"
    files = []
    for index, path in enumerate(pets):
        files += [(f"frame.{index}.v1.PNG", path.read_bytes()), (f"frame.{index}.v1.seg.png", mask)]
        files += [(f"frame.{index}.v1.CLS", path.parent.name.encode())]
    write_tar(tmp_path / "0.tar", files)
    found = load_pictures(str(tmp_path / source), "train", size=8)
    assert len(found) + len(load_pictures(str(tmp_path / source), "test", size=8)) <= 6
    assert set(found.classes) == {"cat", "dog"}
    shown = read_image(pets[0], (3, 8, 8)).numpy().tobytes()
    parts = (
        load_pictures(str(tmp_path / source), one, size=8)
        for one in ("train", "validation", "test")
    )
    every = [image for part in parts for image in pieces(part.take(torch.arange(len(part))))]
    assert len(every) == 6
    assert every.count(shown) == 1


def test_keys_of_samples() -> None:
    assert sample_key("a/0001.png") == ("a/0001", "png")
    assert sample_key("0001.seg.png") == ("0001", "seg.png")
    assert sample_key("frame.0001.png") == ("frame.0001", "png")
    assert sample_key("v1.0_03.cls") == ("v1.0_03", "cls")
    assert sample_key("b.c/x.jp2") == ("b.c/x", "jp2")
    assert sample_key("README") == (None, "README")
    assert sample_key(".hidden") == (None, ".hidden")


def test_changed_local_files_of_the_hub_are_read_again(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pets = make_pets(tmp_path / "pets", count=20)
    source = write_parquet(tmp_path / "hub", columns_of(pets))
    data = DataConfig(source=source, size=8, streaming=True)
    assert open_stream(data)[0].classes == ("cat", "dog")
    make_pets(pets, classes={"elk": 120})
    write_parquet(tmp_path / "hub", columns_of(pets))
    assert open_stream(data)[0].classes == ("cat", "dog", "elk")


def test_a_row_without_an_image(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    columns = columns_of(make_pets(tmp_path / "pets", count=20))
    columns["img"][1][3] = None
    columns["md5"] = (datasets.Value("binary"), [b"hash"] * 40)  # no image, and before them
    source = write_parquet(tmp_path / "hub", dict(reversed(columns.items())))
    with pytest.raises(DataError, match="add --skip-broken to skip it"):
        scan(source, streaming=True)
    scan(source, streaming=True, skip_broken=True)


@pytest.mark.skipif(sys.platform != "linux", reason="workers elsewhere do not inherit the patch")
def test_workers_have_lower_priority(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    monkeypatch.setattr(ImageStream, "decode", lambda *_: (image, os.nice(0)))
    ((_, of_workers),) = batches(loader(pattern, workers=2), 1)
    assert of_workers.unique().tolist() == [min(os.nice(0) + 10, 19)]


def test_a_relative_pattern_is_named_by_its_folder(
    pattern: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path / "shards")
    sample, _ = open_stream(DataConfig(source="*.tar", size=8))
    assert sample.name == "shards"
    assert sample.facts[0].startswith("shards is read in order, from 4 shards")
