"""What the judge says while a run learns: the best generator is kept, and faults are told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import cgan
from cgan.config_io import load_config
from cgan.data import ImageDataset, ImageFolder, Split, load_pictures
from cgan.errors import CganError, DataError
from cgan.evaluation.control import Control
from cgan.evaluation.judge import Judge
from cgan.sampling.request import Request
from cgan.sampling.sampler import Sampler
from cgan.storage.checkpoint import GENERATOR, read_header
from cgan.storage.paths import BEST_FILE, JUDGE_FILE, PACKAGED
from cgan.storage.run_files import read_metrics
from cgan.training.monitor import EVAL_SEED, EvalResult, Monitor
from cgan.training.step import TrainStep

OBEYS = torch.tensor([[99, 1], [1, 99]])


def result(
    confusion: torch.Tensor = OBEYS,
    fid: float | None = 1.0,
    diversity: float = 0.9,
    copied: float | None = None,
) -> EvalResult:
    control = Control(("cat", "dog"), confusion, True, 0.99, 100)
    return EvalResult(
        control, "validation", fid, 0.5, diversity, "dog", "judge of pets", copied=copied
    )


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Monitor:
    folder = tmp_path_factory.mktemp("watched")
    return Monitor(lambda split: load_pictures("digits", split), torch.device("cpu"), folder)


@pytest.fixture
def fresh(monitor: Monitor) -> Monitor:
    monitor.best, monitor.warned = None, set()
    return monitor


def test_shortfall_by_hand() -> None:
    """Errors over those in real pictures (0.01 / 0.01) and FID over that of real ones (1 / 0.5)."""
    assert result().selection_score == pytest.approx(3.0)
    assert result(fid=None).selection_score == pytest.approx(1.0)


def test_the_best_is_by_control_and_fid_together(fresh: Monitor) -> None:
    assert fresh.is_best(result())
    assert not fresh.is_best(result(fid=1.5))
    assert fresh.is_best(result(fid=1.1))  # 3.2 is what a look can't tell from 3.0
    assert not fresh.is_best(result(fid=1.2))  # but 3.4 is not: a slow decline is no tie
    assert fresh.is_best(result(fid=0.9))
    better_control = torch.tensor([[100, 0], [0, 100]])
    assert fresh.is_best(result(better_control, fid=1.2))  # 2.4 beats 1 + 1.8
    assert fresh.best is not None
    assert fresh.best["control_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (result(torch.tensor([[80, 20], [20, 80]])), "control accuracy has fallen from 99.0% to"),
        (result(fid=3.5), "FID has risen from 1 to 3.5"),
        (result(diversity=0.1), "dog has collapsed"),
        (result(copied=0.35), "35% of the images are closer to a training image"),
        (result(torch.tensor([[50, 50], [50, 50]])), "ignores its label"),
    ],
)
def test_faults_are_told_once(
    fresh: Monitor, now: EvalResult, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "cgan")
    fresh.is_best(result())
    fresh.warn(result(), Path("run"), 0.9)
    assert caplog.text == ""
    fresh.warn(now, Path("run"), 0.9)
    fresh.warn(now, Path("run"), 0.9)
    told = {id(record) for record in caplog.records if words in record.getMessage()}
    assert len(told) == 1


def test_blurred_images_of_an_early_generator_are_no_copies(
    fresh: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    fresh.warn(result(copied=0.35), Path("run"), 0.49)
    assert fresh.warned == set()


def test_copies_are_searched_among_enough_images_and_not_for_minutes(
    fresh: Monitor, small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = cgan.load(small_run.folder)
    assert fresh.evaluate(sampler).copied is not None
    assert fresh.evaluate_on_test(sampler, 2).copied is None
    values = len(fresh.validation.train) * 64
    for module, name, value in (
        ("training.monitor", "MAX_COPIED_VALUES", values - 1),
        ("evaluation.reference", "MIN_COPY_IMAGES", len(fresh.validation.held_out_data) + 1),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"cgan.{module}.{name}", value)
            assert fresh.evaluate(sampler).copied is None


def test_a_run_is_watched_and_its_best_generator_kept(tmp_path: Path) -> None:
    config = load_config(
        "digits-mlp",
        {"images": "3200", "eval_every_images": 800, "control_per_class": 20, "device": "cpu"},
    )
    run = cgan.train(config, tmp_path / "run")
    looks = [row for row in read_metrics(run.folder) if "fid" in row]
    assert [row["images_seen"] for row in looks] == [832, 1_600, 2_432, 3_200]
    assert looks[-1]["control_accuracy"] > looks[0]["control_accuracy"]
    assert {"control_accuracy_worst_class", "diversity_least"} < looks[0].keys()
    best = read_header(run.folder / BEST_FILE, GENERATOR)
    measured = best["measured"]
    at_best = next(row for row in looks if row["images_seen"] == best["images_seen"])
    assert at_best["fid"] == measured["fid"]
    assert at_best["control_accuracy"] == measured["control_accuracy"]

    def shortfall(row: dict[str, float]) -> float:
        missed = (1 - row["control_accuracy"]) / max(1 - measured["judge_accuracy"], 1e-3)
        return missed + row["fid"] / measured["fid_real"]

    assert measured["lowest_selection_score"] == pytest.approx(min(map(shortfall, looks)))
    assert measured["selection_score"] <= 1.1 * measured["lowest_selection_score"]
    assert cgan.load(run.folder / BEST_FILE).sample("7").shape == (1, 1, 8, 8)
    last = read_header(run.generator, GENERATOR)["measured"]
    assert last["pictures"] == 200
    judge = Judge.load(run.folder / JUDGE_FILE)
    assert last["features"] == f"judge {judge.weights_digest[:8]} of digits"
    assert (last["split"], measured["split"]) == ("test", "validation")
    assert last["judge"] == measured["judge"] == judge.weights_digest
    assert cgan.load(run.folder).sample("7", n=4, verify=judge).shape == (4, 1, 8, 8)


def test_the_best_is_chosen_without_the_test_images_and_the_seeds_of_the_report(
    tmp_path: Path, small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge.load(PACKAGED / "digits" / JUDGE_FILE)
    monkeypatch.setattr("cgan.training.monitor.get_or_train_judge", lambda *_, **__: judge)
    loaded: list[Split] = []
    seeds: set[int] = set()

    def load(split: Split) -> ImageDataset | ImageFolder:
        loaded.append(split)
        return load_pictures("digits", split)

    draw = Sampler.batches

    def spy(self: Sampler, request: Request, *rest: object) -> object:
        seeds.update(request.seeds)
        return draw(self, request, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Sampler, "batches", spy)
    watched = Monitor(load, torch.device("cpu"), tmp_path)
    sampler = cgan.load(small_run.folder)
    result = watched.evaluate(sampler)
    watched.evaluate(sampler)
    watched.is_best(result)
    assert set(loaded) == {"train", "validation"}
    assert result.split == "validation"
    assert seeds == set(range(EVAL_SEED, EVAL_SEED + 2_000))
    seeds.clear()
    final = watched.evaluate_on_test(sampler, 30)
    assert final.split == "test"
    assert "test" in loaded
    assert seeds == set(range(300))


def test_looking_changes_nothing_that_is_learned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cgan")
    weights = []
    for every in (0, 640):
        config = load_config(
            "digits-mlp",
            {"images": 1_920, "eval_every_images": every, "control_per_class": 0, "device": "cpu"},
        )
        run = cgan.train(config, tmp_path / str(every))
        weights.append(cgan.load(run.folder).generator.state_dict())
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name
    assert not (tmp_path / "0" / BEST_FILE).exists()
    assert (tmp_path / "640" / BEST_FILE).exists()
    looks = [row for row in read_metrics(tmp_path / "640") if "fid" in row]
    assert all(0 <= row["copied_share"] <= 1 for row in looks)
    assert len(looks) == 3
    assert caplog.text.count(" images/s: 1,920 images take about ") == 2  # once per run


def test_the_best_is_kept_when_later_ones_are_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cgan")
    fids = iter([2.0, 1.0, 5.0, 5.0])
    confusion = 10 * torch.eye(10, dtype=torch.int64)

    def evaluate(self: Monitor, sampler: cgan.Sampler, per_class: int = 0) -> EvalResult:
        control = Control(sampler.classes, confusion, True, 0.99, 100)
        return EvalResult(control, "validation", next(fids), 0.5, 0.9, "3", "made up")

    monkeypatch.setattr(Monitor, "evaluate", evaluate)
    monkeypatch.setattr(Monitor, "evaluate_on_test", evaluate)
    overrides = {
        "images": 1_920, "eval_every_images": 640, "control_per_class": 1, "device": "cpu",
    }  # fmt: skip
    run = cgan.train(load_config("digits-mlp", overrides), tmp_path / "run")
    assert read_header(run.folder / BEST_FILE, GENERATOR)["images_seen"] == 1_280
    assert read_header(run.generator, GENERATOR)["images_seen"] == 1_920
    assert "the generator after 1,280 images was the best" in caplog.text
    assert "FID has risen from 1 to 5" in caplog.text


def test_the_last_evaluation_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many classes it would take hours."""
    asked: list[int] = []

    def evaluate(self: Monitor, sampler: cgan.Sampler, per_class: int = 0) -> EvalResult:
        asked.append(per_class)
        control = Control(sampler.classes, torch.eye(10, dtype=torch.int64), True, 0.99, 100)
        return EvalResult(control, "test", 1.0, 0.5, 0.9, "3", "made up")

    monkeypatch.setattr(Monitor, "evaluate_on_test", evaluate)
    for most in (50, 49, 3):
        monkeypatch.setattr("cgan.evaluation.reference.MAX_DRAWN", most)
        changes = {"images": 64, "control_per_class": 5, "device": "cpu"}
        cgan.train(load_config("digits-mlp", changes), tmp_path / str(most))
    assert asked == [5, 4, 1]


def test_a_plain_gan_of_one_class_is_not_looked_at(tmp_path: Path, pets: Path) -> None:
    (pets / "dog").rename(tmp_path / "dog")
    overrides = {
        "data.source": str(pets), "model.conditional": False, "model.width": 4, "images": 256,
        "eval_every_images": 64, "control_per_class": 10, "device": "cpu",
    }  # fmt: skip
    run = cgan.train(load_config("folder-dcgan", overrides), tmp_path / "run")
    assert run.images_seen == 256
    assert run.control is None


def test_weights_that_are_no_numbers_end_the_run_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TrainStep.__call__

    def spoil(self: TrainStep, real: torch.Tensor, labels: torch.Tensor) -> object:
        losses = step(self, real, labels)
        if self.state.counters.steps == 5:
            next(self.state.generator_ema.parameters()).fill_(float("nan"))
        return losses

    monkeypatch.setattr(TrainStep, "__call__", spoil)
    overrides = {"images": 1_280, "eval_every_images": 640, "device": "cpu"}
    with pytest.raises(CganError, match="not finite"):
        cgan.train(load_config("digits-mlp", overrides), tmp_path / "run")


def test_a_header_holds_no_confusion_matrix_of_many_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert result().to_dict()["confusion"] == [[99, 1], [1, 99]]
    monkeypatch.setattr("cgan.training.monitor.MAX_CONFUSION_CLASSES", 1)
    assert result().to_dict() == {
        key: value for key, value in result().control.to_dict().items() if key != "confusion"
    } | {
        "fid": 1.0, "fid_real": 0.5, "diversity_least": 0.9, "background_ink": None,
        "split": "validation",
        "features": "judge of pets", "selection_score": result().selection_score,
    }  # fmt: skip


def test_more_classes_than_a_generator_file_may_have(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.training.plan.MAX_CLASSES", 1)
    config = load_config("folder-dcgan", {"data.source": str(pets)})
    with pytest.raises(DataError, match="pets has 2 classes: the limit is 1"):
        cgan.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
