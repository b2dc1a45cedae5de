"""Tables of labels as people have them: separators, floats, one-hot columns, Kaggle's form."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgan.data import SPLITS, load_pictures
from cgan.data.facts import collect, inform
from cgan.data.image_folder import ImageFolder, scan_folder
from cgan.data.splits import group_keys
from cgan.errors import DataError
from tests.conftest import make_pets

NAMES = tuple(f"{index:02}.png" for index in range(8))


def draw(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Images of noise, all different."""
    random = np.random.default_rng(len(root.parts))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(root / name)
    return root


def table(root: Path, rows: list[str], name: str = "labels.csv") -> Path:
    (root / name).write_text("\n".join(rows) + "\n")
    return root


def by_file(folder: ImageFolder) -> dict[str, str]:
    labels = [folder.classes[label] for label in folder.labels.tolist()]
    return {path.name: label for path, label in zip(folder.paths, labels, strict=True)}


def labelled(label: Callable[[int], str], separator: str = ",") -> list[str]:
    return [
        f"file_name{separator}label",
        *(f"{name}{separator}{label(index)}" for index, name in enumerate(NAMES)),
    ]


def test_a_quoted_name_of_a_column_may_hold_a_comma(tmp_path: Path) -> None:
    rows = labelled(lambda index: "cat" if index < 4 else "dog", ";")
    rows = [f'{row};"{index}, 5"' for index, row in enumerate(rows)]
    assert scan_folder(table(draw(tmp_path), rows)).classes == ("cat", "dog")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_usual_separator(tmp_path: Path, separator: str) -> None:
    rows = labelled(lambda index: "cat" if index < 4 else "dog", separator)
    found = by_file(scan_folder(table(draw(tmp_path), rows)))
    assert found == {name: "cat" if index < 4 else "dog" for index, name in enumerate(NAMES)}


def test_a_comma_in_a_label_is_an_error_with_its_line(tmp_path: Path) -> None:
    rows = labelled(lambda index: "crane, bird" if index < 4 else "crane, machine")
    with pytest.raises(DataError, match=r"labels.csv, line 2 has 3 values, and there are 2 col"):
        scan_folder(table(draw(tmp_path), rows))
    quoted = labelled(lambda index: '"crane, bird"' if index < 4 else '"crane, machine"')
    assert scan_folder(table(tmp_path, quoted)).classes == ("crane, bird", "crane, machine")


def test_whole_numbers_written_as_floats_are_whole_numbers(tmp_path: Path) -> None:
    rows = labelled(lambda index: ("3.0", "3", "10.0")[index % 3])
    assert scan_folder(table(draw(tmp_path), rows)).classes == ("10", "3")
    versions = labelled(lambda index: ("1.0", "1.5")[index % 2])
    assert scan_folder(table(tmp_path, versions)).classes == ("1.0", "1.5")
    (tmp_path / "labels.csv").unlink()
    lines = [json.dumps({"file_name": name, "label": 3.0}) for name in NAMES[:4]]
    lines += [json.dumps({"file_name": name, "label": 7}) for name in NAMES[4:]]
    assert scan_folder(table(tmp_path, lines, "metadata.jsonl")).classes == ("3", "7")


def test_one_hot_columns_are_classes(tmp_path: Path) -> None:
    rows = ["file_name,width,cat,dog,owl"]
    rows += [
        f"{name},8,{int(i % 3 == 0)},{int(i % 3 == 1)},{float(i % 3 == 2)}"
        for i, name in enumerate(NAMES)
    ]
    found = by_file(scan_folder(table(draw(tmp_path), rows)))
    assert list(found.values())[:4] == ["cat", "dog", "owl", "cat"]


def test_several_ones_in_a_row_are_attributes(tmp_path: Path) -> None:
    rows = ["file_name,smiling,hat"]
    rows += [f"{name},{i % 2},{int(i % 4 > 1)}" for i, name in enumerate(NAMES)]
    folder = scan_folder(table(draw(tmp_path), rows))
    assert folder.num_attributes == 2
    assert folder.classes == (
        "no smiling + hat", "no smiling + no hat", "smiling + hat", "smiling + no hat"
    )  # fmt: skip
    assert by_file(folder)["03.png"] == "smiling + hat"
    many = ["file_name,a,b,c,d,e", *(f"{name},1,1,0,{i % 2},1" for i, name in enumerate(NAMES))]
    with pytest.raises(DataError, match="has 5 columns of 0 and 1 and rows without a single 1"):
        scan_folder(table(tmp_path, many))


@pytest.mark.parametrize("suffix", ["", ".png"])
@pytest.mark.parametrize("name", ["train.csv", "labels-of-dogs.csv"])
def test_a_table_of_kaggle(
    tmp_path: Path, suffix: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The test images have no labels. The folders became the classes "test" and "train"."""
    draw(tmp_path / "train")
    draw(tmp_path / "test", ("a.png", "b.png"))
    rows = [
        f"{Path(one).stem}{suffix},{'pug' if i < 3 else 'beagle'}" for i, one in enumerate(NAMES)
    ]
    folder = scan_folder(table(tmp_path, ["id,breed", *rows], name))
    assert folder.classes == ("beagle", "pug")
    assert list(by_file(folder).values()) == ["pug"] * 3 + ["beagle"] * 5
    assert f"ignored, because {name} names none of their images: test" in caplog.text


def test_splits_with_images_and_no_labels_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "train")
    draw(tmp_path / "test")
    with pytest.raises(DataError, match=r"are splits \(test, train\), and nothing says which cla"):
        scan_folder(tmp_path)
    for name in ("trainA", "trainB", "testA", "testB"):
        draw(tmp_path / "domains" / name)
    with pytest.raises(DataError, match="splits of two domains .*: call them train/A"):
        scan_folder(tmp_path / "domains")


def test_images_one_folder_below_the_table(tmp_path: Path) -> None:
    draw(tmp_path / "images")
    rows = labelled(lambda index: "cat" if index < 4 else "dog")
    found = by_file(scan_folder(table(tmp_path, rows)))
    assert found["03.png"], found["04.png"] == ("cat", "dog")
    draw(tmp_path / "more")
    with pytest.raises(DataError, match="may mean .*: write the folder before the name"):
        scan_folder(tmp_path)


def test_other_tables_beside_class_folders_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As before, folders are the classes, whatever a table says of their files."""
    root = table(make_pets(tmp_path / "pets"), ["file,width", "00.png,18"], "sizes.csv")
    with caplog.at_level("INFO", "cgan"):
        assert scan_folder(root).classes == ("cat", "dog")
    assert "a table that is not used: " in caplog.text
    assert "sizes.csv" in caplog.text


def test_a_class_of_folders_beside_classes_of_images_is_refused(tmp_path: Path) -> None:
    """The class was dropped."""
    make_pets(tmp_path / "data")
    draw(tmp_path / "data" / "owl", ("a/1.png", "b/1.png"))
    with pytest.raises(DataError, match="owl holds folders of images, and .*cat holds images: put"):
        scan_folder(tmp_path / "data")


@pytest.mark.parametrize("packed", [False, True])
def test_data_sets_of_stylegan(tmp_path: Path, packed: bool) -> None:
    """Chunks of files became classes."""
    root = draw(tmp_path / "ada", tuple(f"{i // 4:05}/img{i:08}.png" for i in range(8)))
    labels = [[f"{i // 4:05}/img{i:08}.png", i % 3] for i in range(8)]
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    if packed:
        shutil.make_archive(str(root), "zip", root)
        root = root.with_suffix(".zip")
    folder = scan_folder(root)
    assert folder.classes == ("0", "1", "2")
    assert by_file(folder)["img00000005.png"] == "2"


def test_a_data_set_of_stylegan_without_labels_is_refused_or_one_of_folders(tmp_path: Path) -> None:
    root = make_pets(tmp_path / "pets")
    (root / "dataset.json").write_text(json.dumps({"labels": None}))
    assert scan_folder(root).classes == ("cat", "dog")
    chunks = draw(tmp_path / "chunks", ("00000/a.png", "00001/b.png"))
    (chunks / "dataset.json").write_text(json.dumps({"labels": None}))
    with pytest.raises(DataError, match="dataset.json has no labels, and the folders beside it"):
        scan_folder(chunks)
    (root / "dataset.json").write_text(json.dumps({"labels": [["cat/00.png"]]}))
    with pytest.raises(DataError, match="entry 1 of its labels is not a name and a label"):
        scan_folder(root)


def patients(root: Path) -> Path:
    for index in range(40):
        names = tuple(f"{'sick' if index % 2 else 'well'}/p{index:02}/{k}.png" for k in range(4))
        random = np.random.default_rng(index)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(root / name)
    return root


def test_a_folder_below_one_class_is_a_group_and_stays_in_one_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every patient became a class."""
    with caplog.at_level("INFO", "cgan"):
        folder = scan_folder(patients(tmp_path / "scans"))
    assert folder.classes == ("sick", "well")
    assert folder.num_attributes == 1
    assert "such as sick/p01, are groups: all images of one are in the same split" in caplog.text
    seen = {}
    for split in SPLITS:
        part = load_pictures(str(tmp_path / "scans"), split, memory_bytes=0)
        assert isinstance(part, ImageFolder)
        assert len(part) > 0
        seen[split] = {path.parent.name for path in part.paths}
    assert sum(map(len, seen.values())) == len(set.union(*seen.values())) == 40


def test_a_column_of_groups(tmp_path: Path) -> None:
    root = draw(tmp_path / "flat", tuple(f"{index:03}.png" for index in range(120)))
    rows = ["file_name,label,group"]
    rows += [f"{index:03}.png,{'ab'[index % 2]},patient {index // 4}" for index in range(120)]
    table(root, rows)
    folder = scan_folder(root)
    assert folder.classes == ("a", "b")
    parts = [load_pictures(str(root), split, memory_bytes=0) for split in SPLITS]
    groups = [{int(path.stem) // 4 for path in part.paths} for part in parts]  # type: ignore[union-attr]
    assert sum(map(len, groups)) == 30 == len(set.union(*groups))


def test_a_folder_images_inside_of_each_class(tmp_path: Path) -> None:
    """As in tiny-imagenet."""
    for name in ("cat", "dog"):
        draw(tmp_path / "tiny" / name / "images")
    folder = scan_folder(tmp_path / "tiny")
    assert folder.classes == ("cat", "dog")
    assert folder.num_attributes == 1
    assert set(folder.groups) == {None}


def test_dummy_labels_of_test_images_are_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """sample_submission.csv names every test image, and train.csv every training image."""
    draw(tmp_path / "train")
    draw(tmp_path / "test", ("a.png", "b.png"))
    rows = [f"{Path(one).stem},{'pug' if i < 3 else 'beagle'}" for i, one in enumerate(NAMES)]
    table(tmp_path, ["id,label", "a,0", "b,0"], "sample_submission.csv")
    table(tmp_path, ["id,breed", *rows], "train.csv")
    with caplog.at_level("INFO", "cgan"):
        assert scan_folder(tmp_path).classes == ("beagle", "pug")
    assert "a table that is not used: " in caplog.text
    assert "sample_submission.csv" in caplog.text


def test_class_folders_in_train_are_not_replaced_by_a_submission(tmp_path: Path) -> None:
    make_pets(tmp_path / "train")
    draw(tmp_path / "test", ("0.png", "1.png"))
    table(tmp_path, ["id,label", "0.png,cat", "1.png,cat"], "sample_submission.csv")
    with pytest.raises(DataError, match="the images in .*test have no class"):
        scan_folder(tmp_path)


def test_the_row_numbers_of_pandas_are_no_files(tmp_path: Path) -> None:
    draw(tmp_path, tuple(f"{index}.png" for index in range(6)))
    rows = [f"{i},{(i + 1) % 6}.png,{'cat' if i % 2 else 'dog'}" for i in range(6)]
    found = by_file(scan_folder(table(tmp_path, [",file_name,label", *rows], "train.csv")))
    assert found == {f"{(i + 1) % 6}.png": "cat" if i % 2 else "dog" for i in range(6)}


@pytest.mark.parametrize(
    "rows",
    [["epoch,loss", "1,0.5", "2,0.4", "3,0.4"], ["file,x,y", "1.png,3,4"], ["id", "1", "2", "3"],
     ["id,partition", "1,0", "2,0", "3,1"]],
)  # fmt: skip
def test_a_single_class_with_some_csv_file_stays_one(tmp_path: Path, rows: list[str]) -> None:
    draw(tmp_path / "cars", ("1.png", "2.png", "3.png"))
    assert scan_folder(table(tmp_path, rows, "log.csv")).classes == ("cars",)


def test_flags_beside_a_column_of_text_are_no_classes(tmp_path: Path) -> None:
    rows = ["file_name,species,is_train,is_flipped"]
    rows += [f"{name},cat,{i % 2},{int(i < 4)}" for i, name in enumerate(NAMES)]
    with pytest.raises(DataError, match="has no column 'label'; its columns are 'file_name', 'spe"):
        scan_folder(table(draw(tmp_path), rows))


def test_a_comma_at_the_end_of_lines(tmp_path: Path) -> None:
    rows = [f"{name},{'cat' if i < 4 else 'dog'}," for i, name in enumerate(NAMES)]
    assert scan_folder(table(draw(tmp_path), ["file_name,label", *rows])).classes == ("cat", "dog")


def test_sessions_of_a_patient_are_in_one_split(tmp_path: Path) -> None:
    for index in range(30):
        names = [f"{'ab'[index % 2]}/p{index:02}/s{k}/{j}.png" for k in range(3) for j in range(2)]
        random = np.random.default_rng(index)
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / name)
    parts = [load_pictures(str(tmp_path), split, memory_bytes=0) for split in SPLITS]
    patients = [{path.parts[-3] for path in part.paths} for part in parts]  # type: ignore[union-attr]
    assert sum(map(len, patients)) == 30


def test_groups_that_share_an_image_are_one(tmp_path: Path) -> None:
    """Copies are always in the same split, also those without a label."""
    keys = group_keys([b"1", b"2", b"2", b"3", b"3", b"4"], ["a", "a", "b", None, "c", None])
    assert keys[0] == keys[1] == keys[2]
    assert keys[3] == keys[4] != keys[0]
    assert keys[5] == b"4"
    assert group_keys([b"2", b"1", b"2"], ["b", "a", "a"])[0] == keys[0]  # in any order


def test_other_json_files_change_nothing(tmp_path: Path) -> None:
    root = make_pets(tmp_path / "top" / "pets")
    (root / "dataset.json").write_text(json.dumps({"labels": ["cat", "dog"]}))
    (tmp_path / "top" / "info.json").write_text("{}")
    (root / "checkpoints").mkdir()
    (root / "checkpoints" / "a.pt").write_bytes(b"x")
    shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "top")
    assert scan_folder(root).classes == scan_folder(tmp_path / "pets.zip").classes == ("cat", "dog")


def test_stylegan_files_in_the_only_folder_of_an_archive(tmp_path: Path) -> None:
    root = draw(tmp_path / "in" / "top")
    labels = [[name, index % 2] for index, name in enumerate(NAMES)]
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    shutil.make_archive(str(tmp_path / "flat"), "zip", tmp_path / "in")
    assert scan_folder(tmp_path / "flat.zip").classes == ("0", "1")


def test_a_table_of_bare_names_does_not_pool_split_folders(tmp_path: Path) -> None:
    """The owner's test images would be trained on."""
    draw(tmp_path, tuple(f"train/{index}.png" for index in range(4)))
    draw(tmp_path, tuple(f"test/{index}.png" for index in range(4, 8)))
    rows = [f"{index}.png,{'cat' if index % 2 else 'dog'}" for index in range(8)]
    with pytest.raises(DataError, match=r"several splits \(test, train\): put a table into each"):
        scan_folder(table(tmp_path, ["file_name,label", *rows]))


def test_a_column_of_bits_that_is_a_fold_is_no_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cgan")
    rows = [f"{name},{index % 2},{1 - index % 2},{index // 4}" for index, name in enumerate(NAMES)]
    found = scan_folder(table(draw(tmp_path), ["file_name, benign ,malignant,split", *rows]))
    assert found.classes == ("benign", "malignant")
    assert "not used: split" in caplog.text
    one_class = [f"{name},{index % 2},{index // 4}" for index, name in enumerate(NAMES)]
    with pytest.raises(DataError, match="has no column 'label'"):
        scan_folder(table(tmp_path, ["file_name,cancer,fold", *one_class]))


def test_spaces_around_the_names_of_columns(tmp_path: Path) -> None:
    rows = [f"{name}, {'cat' if index < 4 else 'dog'}" for index, name in enumerate(NAMES)]
    assert scan_folder(table(draw(tmp_path), ["file_name, label", *rows])).classes == ("cat", "dog")


def test_columns_without_names_and_two_of_one_name(tmp_path: Path) -> None:
    rows = [f"{name},cat,dog" for name in NAMES]
    with pytest.raises(DataError, match="has two columns 'label': rename one"):
        scan_folder(table(draw(tmp_path), ["file_name,label,label", *rows]))
    with pytest.raises(DataError, match="has no names of columns in its first line"):
        scan_folder(table(tmp_path, [",,", *rows]))


def test_the_group_0_is_a_group(tmp_path: Path) -> None:
    draw(tmp_path)
    lines = [
        json.dumps({"file_name": name, "label": "ab"[index % 2], "group": index // 4})
        for index, name in enumerate(NAMES)
    ]
    found = scan_folder(table(tmp_path, lines, "metadata.jsonl"))
    assert [found.groups[index] for index in (0, 7)] == ["0", "1"]


def test_folders_that_a_table_does_not_name_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    named = tuple(f"imgs/a/{index}.png" for index in range(4))
    draw(tmp_path, (*named, "imgs/b/9.png"))
    rows = [f"{name},{'cat' if index % 2 else 'dog'}" for index, name in enumerate(named)]
    assert len(scan_folder(table(tmp_path, ["file_name,label", *rows]))) == 4
    assert "labels.csv names none of their images: imgs/b" in caplog.text


def test_names_in_two_forms_of_unicode(pets: Path, tmp_path: Path) -> None:
    """The Finder of macOS writes an accent apart, and a table has it in one letter."""
    rows = []
    for index, path in enumerate(sorted(pets.glob("*/*"))):
        name = f"caf\u00e9-{index:02}.png"
        shutil.copy(path, tmp_path / unicodedata.normalize("NFD", name))
        rows.append(f"{name},{path.parent.name}")
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
    assert len(scan_folder(tmp_path)) == len(rows)


def test_a_fact_is_collected_once() -> None:
    with collect() as facts:
        for number in (1, 1, 2):
            inform("columns that are not used: %d", number)
    assert facts == ["columns that are not used: 1", "columns that are not used: 2"]
