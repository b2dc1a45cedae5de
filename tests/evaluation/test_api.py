"""``cgan.evaluate`` and ``cgan.compare``."""

from pathlib import Path

import pytest

import cgan
from cgan.errors import RunError
from cgan.evaluation import api
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import find_judge


def test_memory_that_runs_out(small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B.")

    monkeypatch.setattr("cgan.evaluation.api.build_report", full)
    with pytest.raises(RunError) as caught:
        cgan.evaluate(small_run.folder, per_class=5, device="cpu")
    assert str(caught.value) == (
        f"evaluating {small_run.folder} on cpu ran out of memory (it asked for 9 B more): free "
        "memory, or use another --device"
    )


def test_rows_of_the_same_data_share_judge_and_images(
    small_run: cgan.Run, plain_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Judge] = []

    def find(*arguments: object, **options: object) -> Judge:
        found.append(find_judge(*arguments, **options))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(api, "find_judge", find)
    balanced = cgan.load(small_run.folder)
    data = balanced.config.data.model_copy(update={"balanced": True})
    balanced.config = balanced.config.model_copy(update={"data": data})
    balanced.path = plain_run.folder.parent / "elsewhere" / "g.safetensors"
    reports = cgan.compare([small_run.folder, plain_run.folder, balanced], per_class=20)
    assert len(found) == 1
    assert {report.control.judge_digest for report in reports} == {found[0].weights_digest}
    assert {report.features for report in reports} == {found[0].name}
    assert not any("do not compare" in line for report in reports for line in report.warnings)
    assert reports[0].splits == {
        "validation": "10 % of all images, chosen by a hash of each",
        "test": "20 % of all images, chosen by a hash of each",
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
        f"it is measured by {second.control.judge} and {small_run.folder} by "
        f"{first.control.judge}, because their data differ: do not compare their figures"
    )
