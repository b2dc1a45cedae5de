"""Public calls leave the caller's process as it is, and its settings do not change results."""

from __future__ import annotations

import importlib
import locale
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._functorch import config as functorch

import cgan
from cgan.errors import (
    CganError,
    ConfigError,
    DataError,
    DeviceError,
    DivergedError,
    FileError,
    MeasureError,
    RunError,
    UnconditionalError,
    UnknownNameError,
)
from cgan.evaluation import report as reports
from cgan.evaluation.control import measure_control
from cgan.evaluation.judge import Judge
from cgan.evaluation.judge_training import get_or_train_judge, train_judge
from cgan.evaluation.report import render_report
from cgan.losses import LOSSES, Loss
from cgan.penalties import gradient_penalty, r1, r2
from cgan.sampling import write_dataset as dataset_module
from cgan.sampling.export import export
from cgan.sampling.write_dataset import write_dataset
from cgan.storage.paths import JUDGE_FILE, PACKAGED
from cgan.updates import GAN, PenaltyWeights, get_update
from tests.conftest import make_pets
from tests.evaluation.test_html import make_report

REPORT = make_report()
SHORT = {"images": 320, "control_per_class": 0, "device": "cpu", "model.width": 16}


def short(**changes: object) -> cgan.Config:
    return cgan.load_config("digits-mlp", {**SHORT, **changes})


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def loggers() -> list[Any]:
    names = (None, "cgan")
    found = [logging.getLogger(name) for name in names]
    return [(one.level, one.propagate, one.disabled, list(one.handlers)) for one in found]


def process_state() -> dict[str, Any]:
    """Everything of this process that a caller may have set, except for networks."""
    backends = torch.backends
    precise = (backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv)
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1)
    return {
        "torch random state": torch.get_rng_state().tolist(),
        "cuda random state": [s.tolist() for s in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_initialized()
        else None,
        "numpy random state": str(np.random.get_state()),
        "python random state": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "anomaly mode": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "precision by backend": [backend.fp32_precision for backend in precise],
        "cudnn": (backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "donated buffer": functorch.donated_buffer,
        "numpy errors": np.geterr(),
        "warnings": list(warnings.filters),
        "loggers": loggers(),
        "signals": [signal.getsignal(number) for number in handled],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": umask(),
        "locale": locale.setlocale(locale.LC_ALL),
        "path": list(sys.path),
        "streams": (sys.stdin, sys.stdout, sys.stderr, sys.excepthook, sys.gettrace()),
    }


@dataclass
class Caller:
    """What the calls below start from."""

    folder: Path
    run: Path
    plain: Path
    pets: Path

    def sampler(self) -> cgan.Sampler:
        return cgan.load(self.run)


def small_pair() -> cgan.models.Pair:
    with torch.random.fork_rng([]):  # initial weights come from torch's random state, as documented
        return cgan.build_pair("mlp", image_shape=(1, 8, 8), num_classes=3, latent_dim=4, width=8)


def update(scheme: str) -> None:
    """A step of two networks whose first parameters the caller has frozen."""
    pair = small_pair()
    gan = GAN(*pair, *(torch.optim.SGD(n.parameters(), 0.1) for n in pair), LOSSES["hinge"])
    for network in pair:
        next(network.parameters()).requires_grad_(False)
    modes = [p.requires_grad for n in pair for p in n.parameters()]
    real, labels = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    weights = PenaltyWeights(r1=1.0, r2=1.0)
    get_update(scheme)(gan, real, labels, lambda: torch.ones(4, 4), weights)
    assert [p.requires_grad for n in pair for p in n.parameters()] == modes


def penalties() -> None:
    D = partial(small_pair().discriminator, labels=torch.tensor([0, 1]))
    real, fake = torch.ones(2, 1, 8, 8).requires_grad_(), torch.zeros(2, 1, 8, 8).requires_grad_()
    r1(D(real), real).sum().backward()
    r2(D(fake), fake).sum().backward()
    gradient_penalty(D, real, fake, torch.ones(2)).sum().backward()


def diverge(caller: Caller) -> None:
    """A run whose losses are not finite."""

    def broken(*, real: Tensor | None, fake: Tensor) -> Tensor:
        return fake * float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LOSSES, "nonsaturating", Loss(generator=broken, discriminator=broken))
        cgan.train(short(), caller.folder / "run")


def train_from_disk(caller: Caller) -> None:
    """Worker processes read the images. (torch keeps its handler of SIGCHLD for them.)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cgan.data.load.free_memory", lambda: 0)
        cgan.train(short(**{"data.source": str(caller.pets)}), caller.folder / "run")


def draw_part(caller: Caller) -> None:
    """Take one batch of several, and keep the iterator."""
    sampler = caller.sampler()
    batches = sampler.batches(sampler.request(None, 20))
    next(batches)
    before = process_state()
    next(batches)
    assert process_state() == before  # also while it is suspended


def write(caller: Caller, format: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_module, "SHARD_SIZE", 8)
        write_dataset(caller.sampler(), caller.folder / "drawn", 20, format=format)


def steer(caller: Caller) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cgan.training.plan.check_classes", lambda *_: None)  # it is untrained
        overrides = {"images": 320, "control_per_class": 0, "model.backbone": "mlp"}
        cgan.steer(caller.plain, out=caller.folder / "s", device="cpu", overrides=overrides)


def train_a_judge(caller: Caller) -> None:
    digits = cgan.load_pictures("digits")
    train_judge(digits, cgan.load_pictures("digits", "test"), "digest", images=256)


CALLS: dict[str, Callable[[Caller], object]] = {
    "load_config": lambda c: cgan.load_config("digits-mlp", {"images": "1k"}),
    "load_pictures": lambda c: cgan.load_pictures("digits"),
    "load_pictures of a folder": lambda c: cgan.load_pictures(str(c.pets), size=8),
    "losses": lambda c: [loss.generator(real=torch.ones(2), fake=torch.zeros(2))
                         for loss in LOSSES.values()],
    "penalties": lambda c: penalties(),
    "alternating": lambda c: update("alternating"),
    "simultaneous": lambda c: update("simultaneous"),
    "train": lambda c: cgan.train(short(), c.folder / "run"),
    "train and evaluate": lambda c: cgan.train(
        short(control_per_class=5, eval_every_images=128), c.folder / "run"
    ),
    "resume": lambda c: (
        cgan.train(short(), c.folder / "run"),
        cgan.train(short(images=640), c.folder / "run", resume=True),
    ),
    "train from disk": train_from_disk,
    "train with tensorboard": lambda c: cgan.train(short(tensorboard=True), c.folder / "run"),
    "train with progress": lambda c: cgan.train(short(), c.folder / "run", progress=True),
    "steer": steer,
    "load": lambda c: cgan.load(c.run),
    "load a judge": lambda c: Judge.load(PACKAGED / "digits" / JUDGE_FILE),
    "move": lambda c: c.sampler().to("cpu"),
    "sample": lambda c: c.sampler().sample(["7", "3"], 3),
    "sample plain": lambda c: cgan.load(c.plain).sample(n=3),
    "batches": draw_part,
    "evaluate": lambda c: cgan.evaluate(c.run, per_class=4, device="cpu"),
    "compare": lambda c: cgan.compare([c.run, c.plain], per_class=4, device="cpu"),
    "train a judge": train_a_judge,
    "write tar": lambda c: write(c, "webdataset"),
    "write npz": lambda c: write(c, "npz"),
    "write folders": lambda c: write(c, "folder"),
    "export": lambda c: export(c.run, c.folder / "g.onnx"),
    "render": lambda c: render_report([REPORT]),
}  # fmt: skip

FAILING: dict[str, tuple[type[CganError], Callable[[Caller], object]]] = {
    "load_config": (ConfigError, lambda c: cgan.load_config("digits-mlp", {"widht": 1})),
    "load_pictures": (UnknownNameError, lambda c: cgan.load_pictures("numbers")),
    "build_pair": (ConfigError, lambda c: cgan.build_pair("mlp", image_shape=(1, 7, 7))),
    "get_update": (UnknownNameError, lambda c: get_update("both")),
    "train without data": (DataError, lambda c: cgan.train(
        short(**{"data.source": str(c.folder / "none")}), c.folder / "run")),
    "train without device": (DeviceError, lambda c: cgan.train(
        short(device="cuda:99"), c.folder / "run")),
    "diverge": (DivergedError, diverge),
    "resume nothing": (RunError, lambda c: cgan.train(short(), c.folder / "run", resume=True)),
    "load": (FileError, lambda c: cgan.load(c.folder)),
    "load on no device": (DeviceError, lambda c: cgan.load(c.run, "tpu")),
    "move": (DeviceError, lambda c: c.sampler().to("cuda:99")),
    "sample": (UnknownNameError, lambda c: c.sampler().sample("12")),
    "sample plain": (UnconditionalError, lambda c: cgan.load(c.plain).sample("7")),
    "evaluate": (UnknownNameError, lambda c: cgan.evaluate(c.run, features="eyes", device="cpu")),
    "compare": (MeasureError, lambda c: cgan.compare(
        [c.run], data=str(c.pets), per_class=4, device="cpu")),
    "train a judge": (DataError, lambda c: get_or_train_judge(
        lambda split: cgan.load_pictures(str(one_class(c.pets)), split))),
    "write": (UnknownNameError, lambda c: write(c, "zip")),
    "export": (ConfigError, lambda c: export(c.run, c.folder / "g.pt")),
}  # fmt: skip


def one_class(pets: Path) -> Path:
    for path in (pets / "dog").iterdir():
        path.unlink()
    return pets


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Packages that change the process when they are imported, which is not ours to undo."""
    for name in ("sklearn.datasets", "onnxscript", "torch.utils.tensorboard"):
        importlib.import_module(name)


@pytest.fixture
def caller(tmp_path: Path, pets: Path, small_run: cgan.Run, plain_run: cgan.Run) -> Caller:
    return Caller(tmp_path, small_run.folder, plain_run.folder, pets)


def check_unchanged(before: dict[str, Any]) -> None:
    after = process_state()
    assert [key for key in before if before[key] != after[key]] == []


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_the_process_as_it_was(name: str, caller: Caller) -> None:
    before = process_state()
    CALLS[name](caller)
    check_unchanged(before)


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_call_leaves_the_process_as_it_was(name: str, caller: Caller) -> None:
    error, call = FAILING[name]
    before = process_state()
    with pytest.raises(error):
        call(caller)
    check_unchanged(before)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "float64": lambda: default_dtype(torch.float64),
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def results(caller: Caller, folder: Path) -> dict[str, Any]:
    """What the public calls return or write, as values to compare."""
    digits, pets = cgan.load_pictures("digits"), cgan.load_pictures(str(caller.pets), size=8)
    judge = train_judge(digits, cgan.load_pictures("digits", "test"), "digest", images=256)
    run = cgan.train(short(control_per_class=5, eval_every_images=128), folder)
    sampler = cgan.load(run.folder)
    trained = load_file(run.generator)
    drawn = sampler.sample(None, 3)
    several = next(sampler.batches(sampler.request("7", 3)))[0].clone()
    assert run.control is not None
    return {
        "pictures": [(d.images.tolist(), d.labels.tolist(), d.classes) for d in (digits, pets)],
        "judge": judge.weights_digest,
        "trained": {name: tensor.tolist() for name, tensor in trained.items()},
        "dtypes": {name: str(tensor.dtype) for name, tensor in trained.items()},
        "control": run.control.to_dict(),
        "drawn": (drawn.dtype, drawn.device, drawn.tolist()),
        "batch": (several.dtype, several.device, several.tolist()),
        "verified": sampler.sample("7", 4, verify=EveryOther()).tolist(),
        "evaluation": cgan.evaluate(caller.run, per_class=4, device="cpu").to_dict(),
        "measured": measure_control(sampler, judge, 2).to_dict(),
        "written": written(caller),
        "page": drawn_matrix(),
    }


def drawn_matrix() -> str:
    """A page with the confusion matrix as an image, as for many classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "MAX_NUMBERED_CLASSES", 1)
        return render_report([REPORT])


def written(caller: Caller) -> dict[str, bytes]:
    write(caller, "webdataset")
    return {path.name: path.read_bytes() for path in (caller.folder / "drawn").glob("shard-*")}


class EveryOther:
    """Accepts the second draw of every image."""

    classes = tuple("0123456789")
    calls = 0

    def classify(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.full((len(images),), 7 if self.calls > 1 else 0, device="cpu")


@pytest.fixture(scope="module")
def usual_results(
    tmp_path_factory: pytest.TempPathFactory, small_run: cgan.Run, plain_run: cgan.Run
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("usual")
    pets = make_pets(folder / "pets")
    return results(Caller(folder, small_run.folder, plain_run.folder, pets), folder / "run")


@pytest.mark.parametrize("name", SETTINGS)
def test_results_do_not_depend_on_the_callers_settings(
    name: str, caller: Caller, usual_results: dict[str, Any]
) -> None:
    with SETTINGS[name]():
        before = process_state()
        found = results(caller, caller.folder / "run")
        check_unchanged(before)
    assert [key for key in usual_results if found[key] != usual_results[key]] == []


def test_an_evaluated_sampler_goes_back_to_its_device(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the evaluation fails. (A second device is pretended.)"""
    sampler, moves = caller.sampler(), []

    def move(self: cgan.Sampler, device: torch.device) -> cgan.Sampler:
        moves.append(str(device))
        return self

    def fail(*_: object, **__: object) -> None:
        raise MeasureError("no")

    monkeypatch.setattr(cgan.Sampler, "device", torch.device("xpu"))
    monkeypatch.setattr(cgan.Sampler, "to", move)
    monkeypatch.setattr("cgan.evaluation.api.build_report", fail)
    with pytest.raises(MeasureError):
        cgan.evaluate(sampler, per_class=4, device="cpu")
    assert moves == ["cpu", "xpu"]
