"""Several processes train what one trains, and end cleanly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import cgan
from cgan.config_io import load_config, to_yaml
from cgan.data import Loader, load_pictures
from cgan.errors import ConfigError, FileError, RunError
from cgan.models.conditioning import BatchNorm, sync_batch_norm
from cgan.runtime import distributed
from cgan.runtime.device import find_device
from cgan.runtime.distributed import SINGLE_PROCESS, World, process_group
from cgan.runtime.process import local_world_size
from cgan.storage.run_files import load_state
from cgan.training.loop import TrainLoop
from cgan.training.plan import Plan, check_batch_splits
from cgan.training.state import TrainState
from cgan.training.step import TrainStep
from tests.processes import Process, start_cgan

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


SMALL = {"control_per_class": 0, "device": "cpu", "model.width": 32}


def train_words(folder: Path, images: int, *more: str) -> list[str]:
    small = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    return ["train", "digits-mlp", "--images", str(images), "--out", str(folder), *small, *more]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, "--master-port", free_port(), "-m", "cgan", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def difference(one: Path, other: Path) -> float:
    """The mean absolute difference of the weights of G, D and the EMA.

    The largest difference says little: Adam turns a gradient that is zero but for rounding into a
    full step.
    """
    (_, a, *_), (_, b, *_) = load_state(one), load_state(other)
    names = [name for name in a if name.split(".")[0] in ("G", "D", "ema")]
    assert a.keys() == b.keys()
    differences = [(a[name].float() - b[name].float()).abs().flatten() for name in names]
    return float(torch.cat(differences).mean())


def train_alone(folder: Path, images: int, resume: bool = False) -> None:
    cgan.train(load_config("digits-mlp", {**SMALL, "images": images}), folder, resume=resume)


def start_ranks(*words: str) -> list[Process]:
    """The two processes that torchrun starts, with the variables that it sets."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": 2}
    return [start_cgan(*words, **group, RANK=rank, LOCAL_RANK=rank) for rank in range(2)]


def two_processes(folder: Path, images: int, *more: str) -> str:
    first, second = start_ranks(*train_words(folder, images, *more))
    assert (first.wait(), second.wait()) == (0, 0), first.stderr + second.stderr
    return first.stderr


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ten steps by one process and by two."""
    base = tmp_path_factory.mktemp("steps")
    train_alone(base / "one", 640)
    two_processes(base / "two", 640)
    return base / "one", base / "two"


@pytest.mark.slow
def test_torchrun_itself(ten_steps: tuple[Path, Path], tmp_path: Path) -> None:
    """New interpreters; the other tests start the two processes as it does."""
    done = torchrun(*train_words(tmp_path / "two", 640))
    assert done.returncode == 0, done.stderr
    assert difference(ten_steps[1], tmp_path / "two") == 0


def test_two_processes_train_what_one_trains(ten_steps: tuple[Path, Path]) -> None:
    one, two = ten_steps
    assert difference(one, two) < 1e-6  # 4e-8 was measured
    (_, one_tensors, one_header, _), (_, two_tensors, two_header, _) = map(load_state, ten_steps)
    assert torch.equal(one_tensors["random.cpu"], two_tensors["random.cpu"])
    assert one_header["images_seen"] == two_header["images_seen"] == 640
    assert one_header["steps"] == two_header["steps"] == 10


def test_only_rank_0_writes(ten_steps: tuple[Path, Path]) -> None:
    one, two = ten_steps
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
    assert sorted(p.name for p in two.parent.iterdir()) == ["one", "two"]
    rows = (two / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["images_seen"] for row in rows] == [640]


def test_another_number_of_processes_resumes(ten_steps: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ten_steps[1], folder)
    train_alone(folder, 704, resume=True)
    assert load_state(folder)[2]["images_seen"] == 704
    assert "resuming after 704 images" in two_processes(folder, 768, "--resume")
    assert load_state(folder)[2]["images_seen"] == 768


@pytest.mark.slow
def test_a_hundred_steps_differ_by_rounding_only(tmp_path: Path) -> None:
    """Rounding errors grow exponentially: 0.003 and 0.044 were measured on two machines."""
    train_alone(tmp_path / "one", 6_400)
    two_processes(tmp_path / "two", 6_400)
    assert difference(tmp_path / "one", tmp_path / "two") < 0.2


def test_a_process_that_dies_ends_the_run_and_it_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = train_words(folder, 400_000, "--set", "save_every_seconds=0.2")
    first, second = start_ranks(*words)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert first.poll() is None, first.stderr
        try:
            if load_state(folder)[2]["images_seen"] > 1_000:
                break
        except FileError:
            time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    status, said = first.wait(60), first.stderr
    assert status == 2, said
    assert "another process of this run has ended" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert second.wait() == -signal.SIGKILL
    seen = load_state(folder)[2]["images_seen"]
    budget = (seen // 64 + 10) * 64
    train_alone(folder, budget, resume=True)
    assert load_state(folder)[2]["images_seen"] == budget
    assert all(t.isfinite().all() for t in load_file(folder / "generator.safetensors").values())


class WaitingWorld(World):
    """A process that waits for rank 0, which evaluates."""

    def all_reduce_max(self, *numbers: float) -> list[float]:
        time.sleep(0.05)
        return list(numbers)

    def all_reduce_mean_(self, tensors: list[torch.Tensor]) -> None:
        pass


def test_only_the_time_of_rank_0_counts(tmp_path: Path) -> None:
    """Or the minutes would be over when rank 0 has trained its judge."""
    config = load_config("digits-mlp", {**SMALL, "images": 192})
    for world, counts in ((WaitingWorld(1, 2), False), (WaitingWorld(0, 2), True)):
        plan = Plan(config, load_pictures("digits"), torch.device("cpu"), world=world)
        state = TrainState(plan)
        loop = TrainLoop(plan, TrainStep(state, world), tmp_path, None)
        loop.is_due = lambda every_images: False  # type: ignore[method-assign]
        loop.save_samples = lambda: None  # type: ignore[method-assign]
        assert loop.run() is None
        assert state.counters.steps == 3
        assert (state.counters.seconds > 0) == counts


def test_a_process_that_does_not_know_the_time_yet_logs(tmp_path: Path) -> None:
    seconds = iter([0.0, 30.0, 60.0])

    class LateWorld(WaitingWorld):
        def all_reduce_max(self, *numbers: float) -> list[float]:
            return [next(seconds), 0.0]

    changes = {**SMALL, "images": None, "minutes": 1, "log_every_images": 64}
    world = LateWorld(1, 2)
    plan = Plan(
        load_config("digits-mlp", changes), load_pictures("digits"), torch.device("cpu"),
        world=world,
    )  # fmt: skip
    state = TrainState(plan)
    assert TrainLoop(plan, TrainStep(state, world), tmp_path, None).run() is None
    assert state.counters.steps == 2


def test_parts_are_the_same_batches() -> None:
    digits = load_pictures("digits")
    whole = Loader(digits, 64, seed=3).batches(1_400)  # across the end of an epoch
    parts = [Loader(digits, 64, seed=3, world=World(r, 4)).batches(1_400) for r in range(4)]
    for _ in range(4):
        images, labels = next(whole)
        pieces = [next(part) for part in parts]
        assert torch.equal(torch.cat([piece[0] for piece in pieces]), images)
        assert torch.equal(torch.cat([piece[1] for piece in pieces]), labels)
        assert {len(piece[1]) for piece in pieces} == {16}


def test_moments_of_parts_are_those_of_the_batch() -> None:
    """One process standing for all: the mean over parts of equal parts is that of one."""
    torch.manual_seed(0)
    for shape, classes in (((8, 3, 4, 4), None), ((8, 3), 5)):
        x, labels = torch.randn(shape) * 3 + 1, torch.arange(8) % 5
        plain, together = BatchNorm(3, classes), BatchNorm(3, classes)
        with torch.no_grad():
            plain.gain.normal_()
            plain.bias.normal_()
        together.load_state_dict(plain.state_dict())
        sync_batch_norm(together, lambda mean: mean, 1)
        torch.testing.assert_close(together(x, labels), plain(x, labels))
        torch.testing.assert_close(together.running_var, plain.running_var)
        torch.testing.assert_close(together.running_mean, plain.running_mean)
        with torch.autocast("cpu", torch.bfloat16):
            assert together(x.bfloat16(), labels).isfinite().all()
        plain(x.bfloat16().float(), labels)
        torch.testing.assert_close(together.running_var, plain.running_var)
        together.eval()
        plain.eval()
        torch.testing.assert_close(together(x, labels), plain(x, labels))


def test_batches_that_cannot_be_split() -> None:
    config = load_config("digits-mlp", {"batch_size": 64})
    check_batch_splits(config, SINGLE_PROCESS)
    check_batch_splits(config, World(0, 4))
    with pytest.raises(ConfigError, match=r"batch of 64 cannot be .* over 3 .* 63 or 66"):
        check_batch_splits(config, World(0, 3))
    with pytest.raises(ConfigError, match="--batch-size 128"):
        check_batch_splits(config, World(0, 64))


def test_what_torchrun_starts_again_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the words of the first start: no --resume, and the folder may have a number."""
    changes = {**SMALL, "images": 640}
    config, out = load_config("digits-mlp", changes), tmp_path / "run"
    out.mkdir()
    (out / "own").touch()  # so that the run has to be called run-2
    first = cgan.train(config, out)
    assert first.folder == tmp_path / "run-2"
    more = load_config("digits-mlp", {**changes, "images": 1_280})
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    for other in (more, load_config("digits-mlp", {**changes, "seed": 1})):
        new = cgan.train(other, out).folder  # another run, which had not come so far as to write
        assert new.name in ("run-3", "run-4")
        shutil.rmtree(new)
    (first.folder / "config.yaml").write_text(to_yaml(more))  # as if it had ended half way
    again = cgan.train(more, out)
    assert again.folder == first.folder
    assert again.images_seen == 1_280
    assert load_state(again.folder)[2]["steps"] == 20
    fresh = cgan.train(more, tmp_path / "other")  # it had not come so far as to write
    assert fresh.folder == tmp_path / "other"


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(distributed, "CONNECT_SECONDS", 1.0)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_PORT", port)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(RunError, match=rf"process 1 of 2 .* 127\.0\.0\.1:{port}"), process_group():
        pass


def join_and_leave(port: int) -> None:
    torch.distributed.TCPStore("127.0.0.1", port, 2, is_master=False)


def test_a_process_that_dies_while_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has seen it, and then it is gone: the others wait as long as for a connection."""
    port = free_port()
    monkeypatch.setattr(distributed, "CONNECT_SECONDS", 1.0)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", port)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    other = Process(join_and_leave, int(port))
    with pytest.raises(RunError, match="process 0 of 2 waited 1 s"), process_group():
        pass
    assert other.wait() == 0, other.stderr


def test_alone_without_torchrun() -> None:
    with process_group() as world:
        assert world is SINGLE_PROCESS
        assert world.all_reduce_max(1.5, 2) == [1.5, 2]
        assert world.broadcast({"a": torch.ones(2)})["a"].tolist() == [1, 1]


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert find_device("cuda") == torch.device("cuda")
    assert find_device("auto", 3) == find_device("cuda", 3) == torch.device("cuda:3")
    assert find_device("cuda:1", 3) == torch.device("cuda:1")
    assert find_device("cpu", 3) == torch.device("cpu")


def test_variables_of_torchrun_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    assert local_world_size() == 1  # a single process does not need it
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "http")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="LOCAL_WORLD_SIZE is 0: it must be a whole number"):
        local_world_size()
    with pytest.raises(RunError, match="MASTER_PORT is http: it must be"), process_group():
        pass
