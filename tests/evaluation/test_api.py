"""``cgan.evaluate`` and ``cgan.compare``."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cgan
from cgan.config import DataConfig
from cgan.data import ImageDataset
from cgan.data.load import AllSplits
from cgan.errors import ConfigError, FileError, MeasureError, RunError
from cgan.evaluation import api
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import get_or_train_judge
from cgan.storage.paths import JUDGE_FILE, PACKAGED
from tests.conftest import write_idx


def test_memory_that_runs_out(small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B.")

    monkeypatch.setattr("cgan.evaluation.api.build_report", full)
    with pytest.raises(RunError) as caught:
        cgan.evaluate(small_run.folder, per_class=5, device="cpu")
    assert str(caught.value) == (
        f"evaluating {small_run.folder} on cpu ran out of memory (it tried to allocate 9 B): free "
        "memory, or use another --device"
    )


def test_a_second_judge_has_taught_none_of_the_rows(
    small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge is found for the first row; the teacher of the second one must not be it."""
    asked: list[bool] = []

    def second(dataset: ImageDataset, taught: bool) -> str:
        asked.append(taught)
        return "residual"

    monkeypatch.setattr(api, "second_architecture", second)
    rows = [cgan.load(small_run.folder) for _ in range(2)]
    cgan.compare(rows, per_class=20, second_judge=True)
    rows[1].header["teacher"] = "another network"
    cgan.compare(rows, per_class=20, second_judge=True)
    assert asked == [False, True]


def test_rows_of_the_same_data_share_judge_and_images(
    small_run: cgan.Run, plain_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Judge] = []

    def find(*arguments: object, **options: object) -> Judge:
        found.append(get_or_train_judge(*arguments, **options))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(api, "get_or_train_judge", find)
    balanced = cgan.load(small_run.folder)
    data = balanced.config.data.model_copy(update={"balanced": True})
    balanced.config = balanced.config.model_copy(update={"data": data})
    balanced.path = plain_run.folder.parent / "elsewhere" / "g.safetensors"
    reports = cgan.compare([small_run.folder, plain_run.folder, balanced], per_class=20)
    assert len(found) == 1
    assert {report.control.judge_digest for report in reports} == {found[0].weights_digest}
    assert {report.features for report in reports} == {found[0].name}
    assert not any("do not compare" in line for report in reports for line in report.warnings)
    fid, difference = (
        [{one.key: one for one in report.figures}.get(key) for report in reports]
        for key in ("fid", "fid_difference")
    )
    assert difference[0] is None
    assert difference[1].value == pytest.approx(fid[1].value - fid[0].value)
    assert difference[1].interval[0] > 0  # a plain GAN of so few images is worse
    assert difference[2].value == pytest.approx(0, abs=1e-6)
    assert reports[0].splits == {
        "validation": "about 10 % of all images, chosen by a hash of the content",
        "test": "about 20 % of all images, chosen by a hash of the content",
    }


def test_rows_of_other_data_are_not_to_be_compared(
    small_run: cgan.Run, pets: Path, tmp_path: Path
) -> None:
    overrides = {
        "data.source": str(pets), "data.size": 8, "model.width": 4, "images": 128,
        "control_per_class": 0, "device": "cpu",
    }  # fmt: skip
    other = cgan.train(cgan.load_config("folder-dcgan", overrides), tmp_path / "run")
    first, second = cgan.compare([small_run.folder, other.folder], per_class=5)
    assert not any("do not compare" in line for line in first.warnings)
    assert second.warnings[-1] == (
        f"measured against other real images than {small_run.folder}, by {second.control.judge}: "
        "do not compare their figures"
    )


def test_a_generator_of_another_split_is_not_to_be_trusted(small_run: cgan.Run) -> None:
    """Its training images may be among the test images of this split."""

    def is_warned(**changes: object) -> bool:
        sampler = cgan.load(small_run.folder)
        sampler.header |= changes
        return any(
            "some test images may be among its training images" in line
            for line in cgan.evaluate(sampler, per_class=2, device="cpu").warnings
        )

    assert not is_warned()
    assert is_warned(data_digest="0" * 64)
    assert is_warned(data_digest=None)
    assert is_warned(data_changed=True)


def test_the_judges_accuracy_is_that_on_the_present_test_images(
    small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge may have been measured when the folder had fewer test images."""
    load = api.load_splits

    def mislabelled(data: DataConfig) -> AllSplits:
        splits = load(data).labelled
        test = splits["test"]
        assert isinstance(test, ImageDataset)
        return AllSplits({**splits, "test": replace(test, labels=(test.labels + 1) % 10)})

    monkeypatch.setattr(api, "load_splits", mislabelled)
    report = cgan.evaluate(small_run.folder, per_class=2, device="cpu")
    assert report.control.judge_accuracy is not None
    assert report.control.judge_accuracy < 0.1
    assert report.control.judge_pictures == 385


def test_of_many_classes_fewer_images_are_drawn(
    small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cgan.evaluation.reference.MAX_DRAWN", 39)
    with caplog.at_level("INFO", "cgan"):
        assert cgan.evaluate(small_run.folder, device="cpu").pictures == 30
        assert "the evaluation draws 3 images of each class" in caplog.text
        assert cgan.evaluate(small_run.folder, per_class=5, device="cpu").pictures == 50


def test_a_given_judge(
    small_run: cgan.Run, tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces the judge of the data, and must know the generator's classes and shape."""
    judge = Judge.load(PACKAGED / "digits" / JUDGE_FILE)
    monkeypatch.setenv("CGAN_DATA", str(write_idx(tmp_path / "data", "MNIST")))
    judge.network.head.weight.data.neg_()
    judge.header = replace(judge.header, digest="1" * 64, data="more digits")
    judge.save(tmp_path / "own.safetensors")
    report = cgan.evaluate(small_run.folder, per_class=20, judge=tmp_path / "own.safetensors")
    assert report.control.judge_digest == judge.weights_digest
    assert report.control.judge_accuracy is not None
    assert report.control.judge_accuracy < 0.1  # of the real test images, whatever its header says
    assert any("was not trained on the training images" in line for line in report.warnings)
    (tmp_path / "run").mkdir()
    judge.save(tmp_path / "run" / JUDGE_FILE)
    again = cgan.evaluate(small_run.folder, per_class=20, judge=tmp_path / "run")
    assert again.control.judge_digest == judge.weights_digest
    judge.header = replace(judge.header, classes=tuple("abcdefghij"))
    judge.save(tmp_path / "letters.safetensors")
    with pytest.raises(MeasureError, match="more digits does not fit"):
        cgan.evaluate(small_run.folder, per_class=20, judge=tmp_path / "letters.safetensors")
    judge.header = replace(judge.header, classes=tuple("1023456789"))
    judge.save(tmp_path / "order.safetensors")
    with pytest.raises(MeasureError, match="with the same classes, in the same order, and the"):
        cgan.evaluate(small_run.folder, per_class=20, judge=tmp_path / "order.safetensors")
    for data in (pets, "mnist"):  # other classes; another shape
        with pytest.raises(MeasureError, match="give the generator's training data with --data"):
            cgan.evaluate(small_run.folder, data=str(data), judge=tmp_path / "own.safetensors")
    given = cgan.evaluate(
        small_run.folder, per_class=20, judge=Judge.load(tmp_path / "run" / JUDGE_FILE)
    )
    assert given.control.accuracy == again.control.accuracy
    with pytest.raises(FileError, match="no.safetensors"):
        cgan.evaluate(small_run.folder, judge=tmp_path / "no.safetensors")


def test_truncation_is_measured_on_truncated_images(small_run: cgan.Run) -> None:
    report = cgan.evaluate(small_run.folder, per_class=20, truncation=True, device="cpu")
    values = {figure.key: figure.value for figure in report.figures}
    sampler = cgan.load(small_run.folder)
    judge = get_or_train_judge(lambda split: cgan.load_pictures("digits", split=split))
    labels = torch.arange(10).repeat_interleave(20)
    for factor in (0.9, 0.6):
        images = torch.cat(
            [  # a z of its own for every image
                sampler.sample(str(k), n=20, seed=20 * k, truncation=factor) for k in range(10)
            ]
        )
        predicted = judge.classify(images)
        right = (predicted == labels).float().mean().item()
        assert values[f"control_accuracy_truncation_{factor}"] == pytest.approx(right)
        assert 0 <= values[f"recall_truncation_{factor}"] <= 1
    assert "recall_truncation_0.9" not in {
        figure.key for figure in cgan.evaluate(small_run.folder, per_class=5).figures
    }


def test_a_damaged_table_of_metrics_costs_the_chart_only(
    small_run: cgan.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(small_run.folder, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("damaged\n{}\n")
    report = cgan.evaluate(tmp_path / "run", per_class=5)
    assert report.curves == {}
    assert "the report has no curves of the training" in caplog.text


def test_at_least_one_image_per_class(small_run: cgan.Run) -> None:
    with pytest.raises(ConfigError, match="per_class is -1, and it must be at least 1"):
        cgan.evaluate(small_run.folder, per_class=-1)
