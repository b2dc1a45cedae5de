"""The same images as class folders, tables of labels, split folders and archives."""

from __future__ import annotations

import io
import json
import os
import pickle
import shlex
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import Result

from cgan.config import DataConfig
from cgan.data import SPLITS, Loader, describe_split, load_pictures, load_splits
from cgan.data.archive import Archive, ArchivePath
from cgan.data.image_folder import ImageFolder, scan_folder
from cgan.data.load import resolve_source
from cgan.errors import ConfigError, DataError, UnknownNameError
from tests.conftest import make_pets


def flatten_with_table(pets: Path, table: str, root: Path) -> Path:
    """The images of a folder of class folders in one folder, and a table of their labels."""
    root.mkdir()
    rows = []
    for path in sorted(pets.glob("*/*")):
        name = f"{path.parent.name}-{path.name}"
        shutil.copy(path, root / name)
        rows.append({"file_name": name, "width": 18, "label": path.parent.name})
    if table.endswith("jsonl"):
        text = "\n".join(map(json.dumps, rows))
    else:
        text = "\n".join(["file_name,width,label", *(",".join(map(str, r.values())) for r in rows)])
    (root / table).write_text(text + "\n")
    return root


def make_archive(folder: Path, path: Path, inside: str = "") -> Path:
    """A ZIP or TAR file of a folder's content, below the path ``inside``."""
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    names = [str(Path(inside) / one.relative_to(folder)) for one in files]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, one in zip(names, files, strict=True):
                archive.write(one, name)
    else:
        with tarfile.open(path, "w") as archive:
            for name, one in zip(names, files, strict=True):
                archive.add(one, name)
    return path


def contents(scanned: ImageFolder) -> set[tuple[str, bytes]]:
    labels = [scanned.classes[label] for label in scanned.labels.tolist()]
    return set(zip(labels, scanned.digests, strict=True))


@pytest.mark.parametrize("table", ["labels.csv", "metadata.csv", "metadata.jsonl"])
def test_a_table_of_labels_equals_class_folders(pets: Path, tmp_path: Path, table: str) -> None:
    flat = flatten_with_table(pets, table, tmp_path / "flat")
    assert contents(scan_folder(flat)) == contents(scan_folder(pets))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "A.ZIP"])
@pytest.mark.parametrize("inside", ["", "animals", "./animals/all"])
def test_an_archive_equals_its_folder(pets: Path, tmp_path: Path, name: str, inside: str) -> None:
    archive = make_archive(pets, tmp_path / name.lower(), inside).rename(tmp_path / name)
    scanned = scan_folder(archive)
    assert contents(scanned) == contents(scan_folder(pets))
    assert scanned.name == name[:-4]
    assert torch.equal(scanned.take(torch.arange(24)), scan_folder(pets).take(torch.arange(24)))


def test_an_archive_with_a_table_in_split_folders(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for split in ("train", "test"):
        flatten_with_table(pets, "metadata.jsonl", tmp_path / "all" / split)
    for path in (tmp_path / "all" / "test").glob("*.png"):
        Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path)
    archive = make_archive(tmp_path / "all", tmp_path / "all.zip", "all")
    counts = {split: len(load_pictures(str(archive), split)) for split in SPLITS}
    assert counts["test"] == 24
    assert counts["train"] + counts["validation"] == 24
    assert describe_split(DataConfig(source=str(archive)), "test") == "the folder test"


def test_workers_read_an_archive(pets: Path, tmp_path: Path) -> None:
    """Each process opens it itself: a shared position would mix up their reads."""
    archive = make_archive(pets, tmp_path / "a.zip")
    on_disk = load_pictures(str(archive), memory_bytes=0)
    in_memory = load_pictures(str(archive))
    assert isinstance(on_disk, ImageFolder)
    for dataset in (on_disk, pickle.loads(pickle.dumps(on_disk))):
        read = Loader(dataset, 4, workers=2).batches()
        gathered = Loader(in_memory, 4).batches()
        for _ in range(6):
            (left, right), (images, labels) = next(read), next(gathered)
            assert torch.equal(left, images)
            assert torch.equal(right, labels)
        read.close()


def test_given_splits_are_kept_and_missing_ones_come_from_training(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_pets(root / "train", count=40)
    make_pets(root / "val", side=20, count=5)
    counts = {split: len(load_pictures(str(root), split)) for split in SPLITS}
    assert counts["validation"] == 10
    assert counts["train"] + counts["test"] == 80
    assert 0 < counts["test"] < 20
    assert describe_split(DataConfig(source=str(root)), "validation") == "the folder val"
    assert "hash" in describe_split(DataConfig(source=str(root)), "test")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"), ("trainset", "Test Data"), ("train-images", "test-images"),
        ("seg_train", "seg_test"), ("data_train", "data_test"),
    ],
)  # fmt: skip
def test_other_names_of_split_folders(train: str, test: str, tmp_path: Path) -> None:
    """They were two attributes, and test images were trained on."""
    make_pets(tmp_path / train, count=40)
    make_pets(tmp_path / test, side=20, count=7)
    parts = {split: load_pictures(str(tmp_path), split) for split in SPLITS}
    assert parts["test"].classes == ("cat", "dog")
    assert len(parts["test"]) == 14
    assert len(parts["train"]) + len(parts["validation"]) == 80


def test_classes_that_only_sound_like_splits(tmp_path: Path) -> None:
    make_pets(tmp_path, classes={"train station": 200, "tests": 50, "trainer": 120})
    assert load_pictures(str(tmp_path)).classes == ("tests", "train station", "trainer")


def test_splits_without_classes_are_refused(tmp_path: Path) -> None:
    make_pets(tmp_path, classes={"training_set": 200, "test_set": 50})
    with pytest.raises(DataError, match="are splits .test_set, training_set., and nothing says"):
        load_pictures(str(tmp_path))


def test_a_link_to_an_archive_whose_own_name_has_no_suffix(pets: Path, tmp_path: Path) -> None:
    """Caches of downloads name files by their digests."""
    made = Path(shutil.make_archive(str(tmp_path / "made"), "zip", pets))
    made.rename(tmp_path / "0123abcd")
    (tmp_path / "pets.zip").symlink_to(tmp_path / "0123abcd")
    source = resolve_source(str(tmp_path / "pets.zip"))
    assert source == str(tmp_path / "pets.zip")
    assert load_pictures(source).name == "pets"


def test_a_tar_file_that_is_cut_off(pets: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(pets, "pets")
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="it is cut off: copy or download it again"):
        scan_folder(tmp_path / "a.tar")


def test_all_splits_with_one_look(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = {split: load_pictures(str(pets), split).digest() for split in SPLITS}
    looks: list[Path] = []

    def scan(root: Path, **options: Any) -> ImageFolder:
        looks.append(root)
        return scan_folder(root, **options)

    monkeypatch.setattr("cgan.data.load.scan_folder", scan)
    found = load_splits(DataConfig(source=str(pets)))
    assert {split: part.digest() for split, part in found.labelled.items()} == one_by_one
    assert found.unlabelled is None
    assert looks == [pets]


def test_leaked_images_are_left_out_of_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are told by their content, whatever their names."""
    root = tmp_path / "data"
    make_pets(root / "train", count=20)
    for split in ("val", "test"):
        make_pets(root / split, side=20, count=4)
    shutil.copy(root / "train" / "cat" / "00.png", root / "test" / "cat" / "leaked.png")
    shutil.copy(root / "train" / "dog" / "01.png", root / "val" / "dog" / "leaked.png")
    found = {split: load_pictures(str(root), split, memory_bytes=0) for split in SPLITS}
    digests = {split: set(folder.digests) for split, folder in found.items()}  # type: ignore[union-attr]
    assert len(found["train"]) == 38
    assert not digests["train"] & (digests["test"] | digests["validation"])
    assert not digests["validation"] & digests["test"]
    # `val` and `test` hold the same eight images, and one leaked image each.
    assert {split: len(found[split]) for split in ("validation", "test")} == {
        "validation": 1, "test": 9,
    }  # fmt: skip
    assert "2 training images are also in a held-out split" in caplog.text


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = make_pets(tmp_path / "vehicles", classes={"train": 50, "bus": 200})
    assert scan_folder(root).classes == ("bus", "train")


def test_a_class_without_training_images(tmp_path: Path) -> None:
    make_pets(tmp_path / "data" / "train")
    make_pets(tmp_path / "data" / "test", side=20, classes={"cat": 10, "owl": 99})
    with pytest.raises(DataError, match="owl in .*test has no training images"):
        scan_folder(tmp_path / "data")


def test_two_folders_of_one_split(tmp_path: Path) -> None:
    for split in ("train", "val", "valid"):
        make_pets(tmp_path / "data" / split)
    with pytest.raises(DataError, match="val.* and .*valid are the same split: merge them"):
        scan_folder(tmp_path / "data")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\na.png,cat\n", "has no column 'file_name'; its columns are 'file', 'label'"),
        ("file_name,kind\na.png,cat\n", "has no column 'label'; its columns are"),
        ("", "has no column 'file_name'; its columns are none"),
        ("file_name,label\n", "has no rows"),
        ("file_name,label\na.png,cat\nx.png,dog\n", "labels of files that do not exist: x.png"),
        ("file_name,label\na.png,cat\n", "no label for .*b.png: add"),
        ("file_name,label\na.png,cat\na.png,dog\n", "line 3 names 'a.png' a second time"),
        ("file_name,label\n../a.png,cat\n", "line 2: '../a.png' is not a path inside"),
        ("file_name,label\n/etc/a.png,cat\n", "line 2: '/etc/a.png' is not a path inside"),
        ("file_name,label\na.png,\nb.png,x\n", "line 2 has no label"),
        ("file_name,label\n,cat\n", "line 2 has no file_name"),
        ("file_name,label\na,1.5\nb,2.5\nc,3.5\n", "another label, so the column 'label' is not a"),
        (f"file_name,label\na.png,{'x' * 300}\n", "a label of 300 characters, and the limit is"),
        ('file_name,label\n"a.png,cat\n', "not valid CSV after line 1: unexpected end"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, sentence: str) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"{", "line 1 is not JSON"),
        (b"[1]\n", "line 1 is not a JSON object"),
        (b'{"file_name": "a.png"}\n', "has no column 'label'"),
        (b'{"file_name": "a.png", "label": 0.5}\n', "line 1 has no label: write a class name or"),
        (b'{"file_name": "a.png", "label": true}\n', "line 1 has no label"),
        (b'{"file_name": ["a.png"], "label": "x"}\n', "line 1 has no file_name"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_json_lines_that_cannot_be_used(tmp_path: Path, text: bytes, sentence: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_bytes(text)
    with pytest.raises(DataError, match=sentence):
        scan_folder(tmp_path)


def test_numbers_are_labels(tmp_path: Path) -> None:
    rows = [{"file_name": f"{index}.png", "label": index % 2} for index in range(4)]
    for index in range(4):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    assert scan_folder(tmp_path).classes == ("0", "1")


def test_two_tables(pets: Path, tmp_path: Path) -> None:
    flat = flatten_with_table(pets, "labels.csv", tmp_path / "flat")
    shutil.copy(flat / "labels.csv", flat / "metadata.csv")
    with pytest.raises(DataError, match="both hold labels: remove one"):
        scan_folder(flat)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png", "..\\a.png"])
def test_a_path_that_leaves_the_archive(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DataError, match="a path that leaves the archive"):
        scan_folder(tmp_path / "a.zip")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match="a path that leaves the archive"):
        scan_folder(tmp_path / "a.tar")


def test_a_zip_bomb_is_not_decompressed(pets: Path, tmp_path: Path) -> None:
    path = make_archive(pets, tmp_path / "a.zip")
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("cat/bomb.png", "w") as member,
    ):
        for _ in range(400):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(DataError, match="bomb.png.* has 419,430,400 bytes, and the limit is"):
        scan_folder(path)
    assert len(scan_folder(path, skip_broken=True)) == 24


def test_a_zip_that_lies_about_a_size(pets: Path, tmp_path: Path) -> None:
    path = make_archive(pets, tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("cat/00.png").file_size
    content = path.read_bytes().replace(
        size.to_bytes(4, "little"), (size // 2).to_bytes(4, "little")
    )
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as an image"):
        scan_folder(path)


def test_archives_that_cannot_be_read(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("no archive")
    with pytest.raises(DataError, match=r"a.zip cannot be read as an archive \(File is not a zip"):
        scan_folder(tmp_path / "a.zip")
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(pets, "pets")
    with pytest.raises(DataError, match=r"TAR file without compression \(.*\): unpack it"):
        scan_folder(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(DataError):
        scan_folder(tmp_path / "b.tar")
    with pytest.raises(DataError, match="there is no folder"):
        load_pictures("./missing.zip")


def test_links_in_a_tar_are_not_followed(pets: Path, tmp_path: Path) -> None:
    path = make_archive(pets, tmp_path / "a.tar")
    link = tarfile.TarInfo("cat/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "a") as tar:
        tar.addfile(link)
    assert len(scan_folder(path)) == 24


def test_what_macos_adds_is_ignored(pets: Path, tmp_path: Path) -> None:
    path = make_archive(pets, tmp_path / "a.zip", "pets")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/pets/cat/._00.png", b"x")
        archive.writestr("pets/.DS_Store", b"x")
    assert len(scan_folder(path)) == 24


def test_names_in_utf_8_without_the_flag(pets: Path, tmp_path: Path) -> None:
    """So writes the Finder of macOS, with accents as characters of their own (NFD)."""
    (pets / "cat").rename(pets / "cafe\u0301")
    path = make_archive(pets, tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            content[entry.header_offset + 7] &= ~8
        central = archive.start_dir
    while content[central : central + 4] == b"PK\1\2":
        content[central + 9] &= ~8
        central += 46 + sum(struct.unpack_from("<3H", content, central + 28))
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert all(not entry.flag_bits & 0x800 for entry in archive.infolist())
    for root in (path, pets):
        folder = scan_folder(root)
        assert folder.classes == ("caf\u00e9", "dog")
        folder.take(torch.arange(len(folder)))


def test_a_missing_file_in_an_archive(pets: Path, tmp_path: Path) -> None:
    root = ArchivePath(Archive(make_archive(pets, tmp_path / "a.zip")))
    with pytest.raises(FileNotFoundError):
        (root / "cat" / "none.png").open()
    assert os.path.basename(str(root / "cat" / "00.png")) == "00.png"


def test_training_and_evaluating_on_an_archive(
    shell: Callable[..., Result], tmp_path: Path
) -> None:
    make_pets(tmp_path / "data" / "train", count=20)
    make_pets(tmp_path / "data" / "test", side=20, count=5)
    make_archive(tmp_path / "data", tmp_path / "pets.zip")
    done = shell("train", "--data", "pets.zip", "--images", "64", "--device", "cpu", "--size", "16",
                 "--set", "control_per_class=0", "--out", "run")  # fmt: skip
    assert done.exit_code == 0, done.output
    done = shell("evaluate", "run", "--per-class", "8", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["test_images"] == 10
    os.rename("pets.zip", "moved.zip")
    done = shell("evaluate", "run", "--per-class", "8")
    assert done.exit_code == 2
    assert "pets.zip was not found: give its location with --data" in done.output
    assert shell("evaluate", "run", "--per-class", "8", "--data", "moved.zip").exit_code == 0


def test_a_table_above_split_folders_is_not_split_by_a_hash(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_pets(tmp_path / split)
    names = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.png"))]
    rows = [f"{name},{Path(name).parent.name}" for name in names]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
    with pytest.raises(DataError, match=r"several splits \(test, train\): put a table into each"):
        scan_folder(tmp_path)


def test_test_images_without_a_class(tmp_path: Path) -> None:
    """Kaggle's layout; the test images must not become a class."""
    make_pets(tmp_path / "data" / "train")
    make_pets(tmp_path / "data", classes={"test": 99})
    with pytest.raises(DataError, match="the images in .*test have no class: put them into"):
        scan_folder(tmp_path / "data")


def test_a_class_that_is_all_leaked(tmp_path: Path) -> None:
    make_pets(tmp_path / "data" / "train")
    make_pets(tmp_path / "data" / "test", side=20)
    shutil.rmtree(tmp_path / "data" / "test" / "dog")
    shutil.copytree(tmp_path / "data" / "train" / "dog", tmp_path / "data" / "test" / "dog")
    with pytest.raises(DataError, match="data has no training image of dog that can be read and"):
        load_pictures(str(tmp_path / "data"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_without_a_limit_are_not_read(pets: Path, tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.write(pets / "cat" / "00.png", "cat/00.png")
        archive.write(pets / "dog" / "00.png", "dog/00.png")
    with pytest.raises(DataError, match="compressed in another way than ZIP's usual one"):
        scan_folder(tmp_path / "a.zip")


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("labels.csv", "file_name,label\n")
    with pytest.raises(DataError, match="a.zip/labels.csv cannot be read: it is compressed"):
        scan_folder(tmp_path / "a.zip")


def test_a_damaged_tar_is_not_taken_for_a_short_one(pets: Path, tmp_path: Path) -> None:
    path = make_archive(pets, tmp_path / "a.tar")
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2]
    content = bytearray(path.read_bytes())
    content[third.offset + 148 : third.offset + 156] = b"1234567\0"  # its checksum
    path.write_bytes(content)
    with pytest.raises(DataError, match="it is damaged after 2 files"):
        scan_folder(path)


def test_a_negative_size_in_a_tar(tmp_path: Path) -> None:
    """tarfile of Python 3.11.7 goes back by the size, and reads the same file forever."""
    content = b""
    for name, size in (("cat/a.png", 0), ("cat/b.png", -512)):
        info = tarfile.TarInfo(name)
        info.size = size
        content += info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(content + bytes(1024))
    with pytest.raises(DataError, match="a.tar cannot be read as"):
        scan_folder(tmp_path / "a.tar")


@pytest.mark.parametrize("levels", [5, 7])
def test_more_levels_than_attributes(pets: Path, tmp_path: Path, levels: int) -> None:
    """Images below are neither lost beside those of other folders, nor become attributes."""
    deep = tmp_path / "all"
    for kind in ("cat", "dog"):
        shutil.copytree(pets / kind, deep.joinpath(*map(str, range(levels - 1)), kind))
        shutil.copytree(pets / kind, deep.joinpath("x", *map(str, range(levels - 2)), kind))
    with pytest.raises(DataError, match=f"is {levels} folders deep: .* the limit is 4"):
        scan_folder(deep)
    shutil.copytree(pets / "cat", deep / "y" / "cat")
    shutil.copytree(pets / "dog", deep / "y" / "dog")
    with pytest.raises(DataError, match="hold images at different depths"):
        scan_folder(deep)


def test_very_deep_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/" * 10_000 + "x.png", b"x")
    with pytest.raises(DataError, match="more than 64 levels deep"):
        scan_folder(tmp_path / "a.zip")


def test_a_file_beside_the_only_folder(pets: Path, tmp_path: Path) -> None:
    path = make_archive(pets, tmp_path / "a.zip", "pets")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", b"x")
    assert len(scan_folder(path)) == 24
    nested = make_archive(tmp_path / "pets", tmp_path / "b.zip", "x")
    with zipfile.ZipFile(nested, "a") as archive:
        archive.writestr("z/other.txt", b"x")
    with pytest.raises(DataError, match="two folders deep: put the class folders at the top"):
        scan_folder(nested)


def test_other_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"neither a folder nor a ZIP file \(.zip\) or a TAR"):
        load_pictures(str(tmp_path / "a.rar"))


def test_folders_without_images_beside_splits_are_ignored(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_pets(tmp_path / "data" / split)
    (tmp_path / "data" / "__MACOSX" / "train").mkdir(parents=True)
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "data" / "notes" / "readme.txt").write_text("about these images")
    assert scan_folder(tmp_path / "data").splits.count("test") == 24
    shutil.copytree(tmp_path / "data" / "train" / "cat", tmp_path / "data" / "examples")
    with pytest.raises(DataError, match="examples is beside the folder train, but it is not a spl"):
        scan_folder(tmp_path / "data")


def test_train_may_be_a_class(tmp_path: Path) -> None:
    make_pets(tmp_path / "data", classes={"train": 200, "bus": 50})
    assert scan_folder(tmp_path / "data").classes == ("bus", "train")
    (tmp_path / "data" / "bus" / "red").mkdir()
    for path in (tmp_path / "data" / "bus").glob("*.png"):
        path.rename(path.parent / "red" / path.name)
    with pytest.raises(DataError, match="bus holds folders of images, and .*train holds images"):
        scan_folder(tmp_path / "data")


def test_images_outside_of_class_folders_are_named(
    pets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pets / "cat" / "more").mkdir()
    (pets / "cat" / "00.png").rename(pets / "cat" / "more" / "00.png")
    (pets / "dog" / "01.png").rename(pets / "loose.png")
    assert len(scan_folder(pets)) == 22
    warning = "ignored, because they are not directly in the folder of a class: "
    assert f"{warning}{pets / 'loose.png'}, {pets / 'cat' / 'more' / '00.png'}" in caplog.text


def test_a_table_may_begin_with_an_empty_line(pets: Path) -> None:
    (pets / "metadata.jsonl").write_text('\n{"file_name": "cat/00.png"}\n')
    with pytest.raises(DataError, match="has no column 'label'"):
        scan_folder(pets)


@pytest.mark.parametrize("size", ["big", 1.5, True, -8, 0, 100_000])
def test_a_size_that_is_none(pets: Path, size: Any) -> None:
    with pytest.raises(ConfigError, match="a size is a side, or two like 64x48"):
        load_pictures(str(pets), size=size)


def test_an_unknown_split(pets: Path) -> None:
    with pytest.raises(UnknownNameError, match="val"):
        load_pictures(str(pets), "val")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "command"),
    [("a.tar.gz", "gunzip -k"), ("a b.tgz", "gunzip -k"), ("a.tar.zst", "unzstd")],
)
def test_compressed_archives_are_unpacked_once(tmp_path: Path, name: str, command: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="no image in it can be read alone") as caught:
        load_pictures(str(tmp_path / name))
    assert f"run {command} {shlex.quote(str(tmp_path / name))}, and give" in str(caught.value)


def test_archives_inside(tmp_path: Path) -> None:
    make_pets(tmp_path / "pets")
    shutil.make_archive(str(tmp_path / "packed" / "pets"), "zip", tmp_path / "pets")
    with pytest.raises(DataError, match=r"no images in .*packed, but pets\.zip: unpack what is"):
        load_pictures(str(tmp_path / "packed"))
    outer = shutil.make_archive(str(tmp_path / "outer"), "zip", tmp_path / "packed")
    with pytest.raises(DataError, match=r"no images in .*outer\.zip, but pets\.zip: unpack what"):
        load_pictures(outer)


def test_images_far_below_a_class_are_not_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_pets(tmp_path / "pets")
    make_pets(tmp_path / "pets" / "owl" / "2023", classes={"may": 99})
    with pytest.raises(DataError, match=r"owl holds folders of images, and .*cat holds images"):
        scan_folder(tmp_path / "pets")
    shutil.rmtree(tmp_path / "pets" / "owl")
    make_pets(tmp_path / "pets" / "cat" / "old", classes={"blurred": 99})
    assert len(scan_folder(tmp_path / "pets")) == 24
    assert "they are not directly in the folder of a class" in caplog.text
    assert str(Path("cat", "old", "blurred")) in caplog.text


def test_unlabelled_images_in_folders_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pets = make_pets(tmp_path / "pets")
    make_pets(pets / "_unlabelled", classes={"more": 99})
    shutil.copy(pets / "_unlabelled" / "more" / "00.png", pets / "_unlabelled")
    scan_folder(pets)
    assert "they are not directly in _unlabelled" in caplog.text


def test_images_beside_the_only_folder_of_an_archive_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_pets(tmp_path / "all" / "pets")
    shutil.copy(tmp_path / "all" / "pets" / "cat" / "00.png", tmp_path / "all" / "loose.png")
    found = scan_folder(make_archive(tmp_path / "all", tmp_path / "all.zip"))
    assert found.classes == ("cat", "dog")
    assert "ignored, because they are beside the only folder" in caplog.text


def test_second_names_of_files_in_a_tar_are_images_too(
    pets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """tar stores a hard link as the name of an earlier file."""
    first = pets / "cat" / "00.png"
    os.link(first, pets / "cat" / "again.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in sorted(pets.rglob("*.png")):
            tar.add(path, path.relative_to(pets))
        link = tarfile.TarInfo("cat/elsewhere.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        assert tar.getmember("cat/again.png").islnk()
    found = scan_folder(tmp_path / "a.tar")
    assert len(found) == 25
    again = next(path for path in found.paths if path.name == "again.png")
    assert again.open().read() == first.read_bytes()
    assert "a.tar that are not read: 1" in caplog.text


def test_a_group_that_is_held_out_is_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Patient 7 is in the training folder and in the test folder, with other images."""
    for split, side in (("train", 16), ("test", 20)):
        for status, level in (("sick", 60), ("well", 180)):
            for number in range(3 if split == "train" else 1):
                patient = {f"{status}-{number}": level + number}
                make_pets(tmp_path / split / status, side=side, count=4, classes=patient)
    found = scan_folder(tmp_path)
    parts = {one: load_pictures(str(tmp_path), one) for one in SPLITS}
    assert len(found) == 32
    assert len(parts["test"]) == 8
    assert len(parts["train"]) + len(parts["validation"]) == 16
    assert (
        "8 training images, or others of their group, are also in a held-out split" in caplog.text
    )


def test_a_name_that_no_generator_file_can_hold(tmp_path: Path) -> None:
    for index in range(2):
        make_pets(tmp_path / (str(index) * 140), classes={"a" * 140: 60, "b" * 140: 160})
    with pytest.raises(DataError, match=r"a class has 283 characters, at most 255 are possible"):
        scan_folder(tmp_path)


def test_a_value_that_ends_like_the_joint(tmp_path: Path) -> None:
    """65 + and male would be 65 and + male."""
    for age, level in (("65 +", 60), ("young", 160)):
        make_pets(tmp_path / age, classes={"male": level, "female": level + 40})
    with pytest.raises(DataError, match="joins attributes, so no folder or value"):
        scan_folder(tmp_path)
