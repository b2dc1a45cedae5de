"""Data sets of drawn pictures: balanced, true to their index, the same bytes however drawn."""

import csv
import errno
import json
import os
import shutil
import signal
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

import cgan
from cgan.data import load_pictures
from cgan.errors import ConfigError, FileError, MeasureError, RunError, UnconditionalError
from cgan.sampling import shards
from cgan.sampling import write_dataset as dataset
from cgan.sampling.sampler import Sampler
from cgan.sampling.write_dataset import describe_dataset, write_dataset
from cgan.storage.atomic import lock
from cgan.storage.images import to_pixels
from cgan.storage.safe_reading import file_digest
from tests.conftest import open_image
from tests.processes import Process

Shell = Callable[..., Result]
COUNT = 205
"""Three shards of 70, 70 and 65."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "SHARD_SIZE", 70)
    monkeypatch.setattr(dataset, "start_workers", lambda: ThreadPoolExecutor(1))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sampler(small_run: cgan.Run) -> Sampler:
    return cgan.load(small_run.folder)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in it, hidden files too."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def index(folder: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted(folder.glob("shard-*.csv")):
        with path.open(newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


def pixels(sampler: Sampler, label: str | None, seed: int) -> np.ndarray:
    """The one picture of this class and seed: (H, W), drawn by itself."""
    return to_pixels(sampler.sample(label, 1, seed))[0, 0].numpy()


def break_off(
    monkeypatch: pytest.MonkeyPatch, batch: int, how: Callable[[], None]
) -> pytest.MonkeyPatch:
    """Do something before the draw of a batch, counted over all shards."""
    left = iter(range(10**6))
    draw = Sampler._draw

    def drawn(self: Sampler, *given: Any, **options: Any) -> torch.Tensor:
        if next(left) == batch:
            how()
        return draw(self, *given, **options)

    monkeypatch.setattr(Sampler, "_draw", drawn)
    return monkeypatch


def test_webdataset_is_balanced_and_its_index_true(sampler: Sampler, tmp_path: Path) -> None:
    written = write_dataset(sampler, tmp_path / "set", COUNT, seed=5)
    assert (written.drawn, written.kept, written.stopped_by) == (COUNT, 0, None)
    rows = index(tmp_path / "set")
    assert [row["key"] for row in rows] == [f"{key:09d}" for key in range(COUNT)]
    counts = Counter(row["class"] for row in rows)
    assert len(counts) == 10
    assert set(counts.values()) == {20, 21}
    assert len({(row["class"], row["seed"]) for row in rows}) == COUNT

    members = {}
    for path in sorted((tmp_path / "set").glob("shard-*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert names[1::2] == [name.replace(".png", ".cls") for name in names[::2]]
            for member in tar:
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                members[member.name] = tar.extractfile(member)
                if member.name.endswith(".cls"):
                    members[member.name] = members[member.name].read().decode()
                else:
                    members[member.name] = np.asarray(open_image(members[member.name]))
    assert len(members) == 2 * COUNT
    for row in rows:
        assert members[f"{row['key']}.cls"] == row["class"]
        assert sampler.classes[int(row["class"])] == row["name"]
    for row in rows[::17]:
        drawn = pixels(sampler, row["name"], int(row["seed"]))
        assert (members[f"{row['key']}.png"] == drawn).all()


def test_npz_loads_without_pickle(sampler: Sampler, tmp_path: Path) -> None:
    write_dataset(sampler, tmp_path, COUNT, labels=["7", "3", "7"], format="npz", seed=2)
    rows = index(tmp_path)
    paths = sorted(tmp_path.glob("*.npz"))
    parts = [dict(np.load(path, allow_pickle=False)) for path in paths]
    images, labels, seeds = (
        np.concatenate([part[name] for part in parts]) for name in ("images", "labels", "seeds")
    )
    assert (images.shape, images.dtype) == ((COUNT, 8, 8, 1), np.uint8)
    assert labels.dtype == seeds.dtype == np.int64
    assert Counter(labels.tolist()) == {7: 103, 3: 102}  # a class that is named twice counts once
    assert [row["class"] for row in rows] == [str(label) for label in labels]
    assert [row["seed"] for row in rows] == [str(seed) for seed in seeds]
    for i in (0, 1, 69, 70, 204):
        drawn = pixels(sampler, str(labels[i]), int(seeds[i]))
        assert (images[i, :, :, 0] == drawn).all()


def test_folder_is_what_train_reads(sampler: Sampler, tmp_path: Path) -> None:
    out = tmp_path / "set"
    write_dataset(sampler, out, COUNT, format="folder")
    pictures = load_pictures(str(out), size=8)  # without those held out
    assert pictures.classes == sampler.classes
    assert 150 < len(pictures) < COUNT
    drawn = {pixels(sampler, row["name"], int(row["seed"])).tobytes(): row for row in index(out)}
    for at, label in enumerate(pictures.labels.tolist()):
        row = drawn[pictures.take(torch.tensor([at])).numpy().tobytes()]
        assert row["name"] == pictures.classes[label]
    places = {(path.stem, path.parent.name) for path in out.glob("*/*.png")}
    assert places == {(row["key"], row["name"]) for row in index(out)}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("format", ["folder", "webdataset", "npz"])
def test_the_library_datasets_reads_all_of_it(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, streaming: bool
) -> None:
    """It read dataset.json as the data, and took the classes train and test for splits."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names = ["train", "test", "val", "a b", "cat.v2", *map(str, range(5))]
    named = Sampler(sampler.generator, {**sampler.header, "classes": names}, sampler.path)
    write_dataset(named, tmp_path / "set", 100, format=format)
    loaded = datasets.load_dataset(
        str(tmp_path / "set"), streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    assert list(loaded) == ["train"]
    rows = list(loaded["train"])
    assert len(rows) == 100
    if format == "webdataset":
        assert [row["cls"] for row in rows[:12]] == [i % 10 for i in range(12)]
    elif format == "npz":
        assert [row["seed"] for row in rows] == list(range(100))
    else:
        found = loaded["train"].features["label"].names
        assert found == sorted(names)
        assert Counter(found[row["label"]] for row in rows) == dict.fromkeys(names, 10)
    listed = tmp_path / "set" / "classes.txt"
    if format == "folder":  # their names are the classes, in the order of the reader
        assert not listed.exists()
    else:
        assert listed.read_text().splitlines() == names


def test_a_generated_class_is_data_like_any_folder(sampler: Sampler, tmp_path: Path) -> None:
    """The index beside a single folder is no table of labels."""
    write_dataset(sampler, tmp_path / "set", 30, labels="3", format="folder")
    assert load_pictures(str(tmp_path / "set"), size=8).classes == ("3",)


def test_plain_counts_seeds(plain_run: cgan.Run, tmp_path: Path) -> None:
    sampler = cgan.load(plain_run.folder)
    write_dataset(sampler, tmp_path / "npz", 71, format="npz", seed=3)
    part = np.load(tmp_path / "npz" / "shard-00001.npz", allow_pickle=False)
    assert sorted(part) == ["images", "seeds"]
    assert part["seeds"].tolist() == [73]
    assert (part["images"][0, :, :, 0] == pixels(sampler, None, 73)).all()
    assert index(tmp_path / "npz")[70] == {
        "key": "000000070",
        "class": "",
        "name": "",
        "seed": "73",
    }
    write_dataset(sampler, tmp_path / "tar", 5)
    with tarfile.open(tmp_path / "tar" / "shard-00000.tar") as tar:
        assert tar.getnames() == [f"{key:09d}.png" for key in range(5)]
    write_dataset(sampler, tmp_path / "folder", 5, format="folder")
    assert len(list((tmp_path / "folder" / "pictures").iterdir())) == 5
    with pytest.raises(UnconditionalError):
        write_dataset(sampler, tmp_path / "none", 5, labels="7")
    with pytest.raises(UnconditionalError, match="nothing to verify"):
        write_dataset(sampler, tmp_path / "none", 5, verify=Agreeing(sampler.classes))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("format", ["webdataset", "folder", "npz"])
@pytest.mark.parametrize("batch", [2, 3])  # the first of the second shard, and its last
def test_goes_on_after_ctrl_c(
    batch: int, format: str, sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(sampler, tmp_path / "whole", COUNT, format=format)
    with monkeypatch.context() as patch:
        break_off(patch, batch, lambda: signal.raise_signal(signal.SIGINT))
        stopped = write_dataset(sampler, tmp_path / "parts", COUNT, format=format)
    assert (stopped.drawn, stopped.stopped_by) == (70, signal.SIGINT)
    assert len(index(tmp_path / "parts")) == 70
    went_on = write_dataset(sampler, tmp_path / "parts", COUNT, format=format)
    assert (went_on.drawn, went_on.kept) == (COUNT - 70, 70)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def write_and_die(run: str, format: str) -> None:
    """Draw shards of 70, and die of a signal in the third."""
    draw, calls = Sampler._draw, 0

    def drawn(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:  # the first of the third shard
            dataset.to_pixels = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
        return draw(*given, **options)

    dataset.SHARD_SIZE, Sampler._draw = 70, drawn  # type: ignore
    write_dataset(cgan.load(run), "parts", COUNT, format=format)


@pytest.mark.parametrize("format", ["webdataset", "folder"])
def test_goes_on_after_a_real_kill(
    format: str, sampler: Sampler, small_run: cgan.Run, tmp_path: Path
) -> None:
    """No cleaning up of any sort: what is half-written lies there, and goes."""
    killed = Process(write_and_die, str(small_run.folder), format, cwd=tmp_path)
    assert killed.wait() == -signal.SIGKILL
    parts = tmp_path / "parts"
    assert len(index(parts)) == 140
    torn = [path for path in parts.iterdir() if path.name.startswith(".shard-00002")]
    assert len(torn) == 1
    (parts / ".shard-00002.csv.torn").write_text("key")
    write_dataset(sampler, parts, COUNT, format=format)
    write_dataset(sampler, tmp_path / "whole", COUNT, format=format)
    assert files(parts) == files(tmp_path / "whole")
    assert not [path for path in parts.iterdir() if path.name[0] == "."]


def test_two_ranks_draw_what_one_does(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(sampler, tmp_path / "one", COUNT)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, drawn in ((1, 70), (0, 135)):
        monkeypatch.setenv("RANK", str(rank))
        assert write_dataset(sampler, tmp_path / "two", COUNT).drawn == drawn
    assert files(tmp_path / "two") == files(tmp_path / "one")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ConfigError, match="RANK is 2 and WORLD_SIZE is 2"):
        write_dataset(sampler, tmp_path / "two", COUNT)


def test_a_larger_count_goes_on(sampler: Sampler, tmp_path: Path) -> None:
    for format in ("webdataset", "folder"):
        parts, whole = tmp_path / format / "parts", tmp_path / format / "whole"
        write_dataset(sampler, parts, 100, format=format)
        assert write_dataset(sampler, parts, COUNT, format=format).kept == 70
        write_dataset(sampler, whole, COUNT, format=format)
        assert files(parts) == files(whole)
        with pytest.raises(FileError, match="count 205, not 100"):
            write_dataset(sampler, parts, 100, format=format)


def test_the_digest_is_that_of_the_weights_that_draw(
    small_run: cgan.Run, plain_run: cgan.Run, tmp_path: Path
) -> None:
    """A training replaces its generator while it is drawn with."""
    path = Path(shutil.copy(small_run.generator, tmp_path / "generator.safetensors"))
    sampler, loaded = cgan.load(path), file_digest(path)
    shutil.copy(plain_run.generator, path)
    write_dataset(sampler, tmp_path / "set", 10)
    written = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert written["model_sha256"] == loaded != file_digest(path)


def test_refuses_what_is_something_else(
    sampler: Sampler, plain_run: cgan.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    write_dataset(sampler, out, 20)
    before = files(out)
    for words, other in (
        ("seed 0, not 1", {"seed": 1}),
        (r"chosen \[0, 1, 2, .*not \[3\]", {"labels": "3"}),
        ("files 'webdataset', not 'npz'", {"format": "npz"}),
        ("verified_by None", {"verify": Agreeing(sampler.classes)}),
    ):
        with pytest.raises(FileError, match=f"another data set .*{words}"):
            write_dataset(sampler, out, 20, **other)
    with pytest.raises(FileError, match="model_sha256"):
        write_dataset(cgan.load(plain_run.folder), out, 20)
    (out / "shard-00000.csv").unlink()
    with lock(out, ".lock-shard-00000"), pytest.raises(RunError, match="in use"):
        write_dataset(sampler, out, 20)  # as another process does
    write_dataset(sampler, out, 20)
    assert files(out) == before

    for problem, words in (
        ({"count": 0}, "from 1 to"),
        ({"count": 10**9 + 1}, "from 1 to"),
        ({"format": "zip"}, "no format 'zip'"),
        ({"labels": "77"}, "no class"),
        ({"seed": -1}, "a seed is"),
        ({"seed": 2**63 - 3}, "a seed is"),
    ):
        with pytest.raises(ConfigError, match=words):
            write_dataset(sampler, tmp_path / "new", **{"count": COUNT, **problem})
    with pytest.raises(MeasureError, match="the judge knows"):
        write_dataset(sampler, tmp_path / "new", 20, verify=Agreeing(("a", "b")))
    assert not (tmp_path / "new").exists()

    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "letter.txt").write_text("mine")
    with pytest.raises(FileError, match=r"other files, like letter\.txt"):
        write_dataset(sampler, tmp_path / "new", 20)
    assert files(tmp_path / "new") == {"letter.txt": b"mine"}
    with pytest.raises(FileError, match="cannot be read as a folder"):
        write_dataset(sampler, tmp_path / "new" / "letter.txt", 20)
    (out / "dataset.json").write_text("{")
    with pytest.raises(FileError, match="not written by cgan"):
        write_dataset(sampler, out, 20)


@pytest.mark.parametrize("format", ["webdataset", "folder", "npz"])
def test_a_full_disk_leaves_nothing_half_written(
    format: str, sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_tar_members", full)
        patch.setattr(shards, "_write_pngs", full)
        patch.setattr(np, "savez", full)
        with pytest.raises(FileError, match="the disk is full"):
            write_dataset(sampler, tmp_path, COUNT, format=format)
    assert set(files(tmp_path)) - {"classes.txt"} == {"dataset.json", "README.md"}
    assert write_dataset(sampler, tmp_path, COUNT, format=format).drawn == COUNT


def test_a_lock_file_that_cannot_be_removed(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink

    def unlink(path: str | Path, **named: Any) -> None:
        if Path(path).name.startswith(".lock-"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(path, **named)

    monkeypatch.setattr(os, "unlink", unlink)
    assert write_dataset(sampler, tmp_path / "set", 10, format="npz").drawn == 10


def test_worker_processes_write_the_same_without_torch(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "count_cores", lambda: 2)
    assert isinstance(shards.start_workers(), ThreadPoolExecutor)
    monkeypatch.setattr(shards, "count_cores", lambda: 3)
    write_dataset(sampler, tmp_path / "threads", COUNT)
    seen = {}

    def keep() -> Executor:
        seen["pool"] = pool = shards.start_workers()
        assert isinstance(pool, ProcessPoolExecutor)
        names = pool.submit(eval, "sorted(__import__('sys').modules)").result()
        assert "cgan.sampling.shards" in names
        assert "torch" not in names
        return pool

    monkeypatch.setattr(dataset, "start_workers", keep)
    write_dataset(sampler, tmp_path / "processes", COUNT)
    assert seen
    assert files(tmp_path / "threads") == files(tmp_path / "processes")


def test_memory_is_bounded(tmp_path: Path) -> None:
    """No more than MAX_PENDING batches wait, however slow the workers are."""
    begun = done = most = 0

    def jobs() -> Iterator[tuple[int]]:
        nonlocal begun, most
        for begun in range(1, 200):
            most = max(most, begun - done)
            yield (begun,)

    with ThreadPoolExecutor(1) as pool:
        for result in shards.map_in_order(pool, int, jobs()):
            done = result
    assert done == 199
    assert most <= shards.MAX_PENDING + 1


def test_shell(
    shell: Shell, small_run: cgan.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("generate", small_run.folder, "--count", 150, "--out", "set", "--digit", 7)
    with monkeypatch.context() as patch:
        break_off(patch, 2, lambda: signal.raise_signal(signal.SIGINT))
        stopped = shell(*words)
    assert stopped.exit_code == 130
    assert stopped.stdout == ""
    assert "70 images in set: run the same command again" in stopped.stderr
    done = shell(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout == "set\n"
    assert "150 images of 7, 70 of them from an earlier run" in done.stderr
    assert f"generated by {small_run.folder}" in done.stderr
    described = json.loads(Path("set/dataset.json").read_text())
    assert described["count"] == 150
    assert described["image_shape"] == [1, 8, 8]
    assert described["control_accuracy"] is None  # the small run was not measured

    verified = shell("generate", "mnist", "--count", 40, "--out", "sure", "--verify", "--seed", 9)
    assert verified.exit_code == 0, verified.output
    assert "of MNIST accepted 40 of" in verified.stderr
    assert "control accuracy 99." in verified.stderr
    described = json.loads(Path("sure/dataset.json").read_text())
    assert described["control_accuracy"] is None  # that of images which are not verified
    assert len(described["verified_by"]) == len(described["model_sha256"]) == 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "npz"), "--count"),
        (("--count", 9), "needs --out"),
        (("--count", 9, "--out", "x", "-n", 4), "give only one"),
        (("--count", 9, "--out", "x.png"), "must be a folder"),
        (("--count", 9, "--out", "x", "--scale", 2), "leave out --scale"),
        (("--count", 9, "--out", "x", "--format", "nzp"), "did you mean 'npz'?"),
        (("--count", 0, "--out", "x"), "from 1 to"),
    ],
)
def test_shell_refuses_in_one_sentence(
    words: tuple[object, ...], said: str, shell: Shell, small_run: cgan.Run, tmp_path: Path
) -> None:
    result = shell("generate", small_run.folder, *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


class Agreeing:
    """A judge that accepts everything; only its class names are used."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes

    def classify(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("nobody should be asked")


def test_the_control_accuracy_of_the_chosen_classes() -> None:
    mnist = cgan.load("mnist")
    measured = mnist.header["measured"]

    def of(chosen: tuple[int, ...] | None) -> object:
        return describe_dataset(mnist, chosen, "npz", 9, 9, 0, None)["control_accuracy"]

    assert of(tuple(range(10))) == measured["control_accuracy"]
    assert of((8,)) == measured["per_class"]["8"]
    assert of((8, 3)) == (measured["per_class"]["8"] + measured["per_class"]["3"]) / 2
    assert of(None) is None
