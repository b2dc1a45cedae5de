"""Training: it learns, it stops and goes on without a trace, it never loses what it has."""

from __future__ import annotations

import math
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import cgan
from cgan.config_io import config_names, load_config
from cgan.data import ImageDataset, load_pictures, load_split
from cgan.data.load import TrainingSplit
from cgan.errors import ConfigError, DataError, DeviceError, DivergedError, FileError, RunError
from cgan.evaluation.control import measure_control
from cgan.evaluation.judge import Judge
from cgan.losses import LOSSES, Loss
from cgan.runtime.device import Purpose, derive_seed
from cgan.storage.paths import JUDGE_FILE, PACKAGED, STATE_FILES
from cgan.storage.run_files import load_state, read_metrics, save_state
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from tests.conftest import make_pets, mnist_folder, write_idx
from tests.processes import Process, start_cgan

QUICK = {
    "images": "640", "control_per_class": 0, "log_every_images": 640, "device": "cpu",
    "model.width": 16,
}  # fmt: skip


def quick(**changes: object) -> cgan.Config:
    return load_config("digits-mlp", {**QUICK, **changes})


def same_weights(left: Path, right: Path) -> bool:
    one, two = load_file(left), load_file(right)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def digits_judge() -> Judge:
    return Judge.load(PACKAGED / "digits" / JUDGE_FILE)


def test_it_learns_to_obey(small_run: cgan.Run, digits_judge: Judge) -> None:
    """6,000 images are a second: far from good, and far from chance."""
    assert digits_judge.header.held_out_accuracy is not None
    assert digits_judge.header.held_out_accuracy > 0.95
    control = measure_control(cgan.load(small_run.folder), digits_judge, 100)
    assert control.accuracy > 0.8


def test_labels_have_no_effect_on_a_plain_gan_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other labels a plain GAN trains to the same bits; a conditional one does not."""
    digits = cgan.load_pictures("digits")
    relabelled = ImageDataset("digits", digits.images, digits.labels.flip(0), digits.classes)
    for conditional in (False, True):
        runs = []
        for dataset in (digits, relabelled):
            monkeypatch.setattr(
                "cgan.training.plan.load_training_split", lambda *_, d=dataset: TrainingSplit(d)
            )
            config = quick(**{"model.conditional": conditional, "images": 640})
            runs.append(cgan.train(config, tmp_path / "run"))
        assert same_weights(runs[0].generator, runs[1].generator) != conditional


def test_run_folder(small_run: cgan.Run) -> None:
    names = {path.name for path in small_run.folder.iterdir()} - {".lock", "generated"}
    assert names == {
        "config.yaml",
        "metrics.jsonl",
        "samples",
        "generator.safetensors",
        *STATE_FILES,
    }
    assert load_config(small_run.folder / "config.yaml") == small_run.config
    rows = read_metrics(small_run.folder)
    assert [row["images_seen"] for row in rows] == [3_008, 6_016]
    assert rows[-1]["share"] == 1.0
    assert rows[-1]["lr"] == pytest.approx(small_run.config.lr * small_run.config.lr_final_fraction)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert [path.name for path in (small_run.folder / "samples").iterdir()] == ["000006016.png"]


def test_seed_decides_every_weight(tmp_path: Path) -> None:
    runs = [cgan.train(quick(seed=s), tmp_path / f"{i}") for i, s in enumerate((1, 1, 2))]
    assert same_weights(runs[0].generator, runs[1].generator)
    assert not same_weights(runs[0].generator, runs[2].generator)


def test_random_state_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    cgan.train(quick(), tmp_path / "run")
    assert torch.equal(state, torch.get_rng_state())


def test_taken_folder_gets_a_number(tmp_path: Path) -> None:
    first = cgan.train(quick(), tmp_path / "run")
    before = first.generator.read_bytes()
    second = cgan.train(quick(seed=5), tmp_path / "run")
    assert second.folder == tmp_path / "run-2"
    assert first.generator.read_bytes() == before


STOPPED_IMAGES = 6_400
STOPPED = {"images": STOPPED_IMAGES, "save_every_seconds": 0.1, "sample_every_images": 2_000}
RARELY = {"save_every_seconds": 30}  # most of the time of these runs goes into saving


def start(folder: Path) -> Process:
    """A real training process that has written a few states."""
    settings = {**QUICK, **STOPPED}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    process = start_cgan("train", "digits-mlp", "--out", folder, *words)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be stopped"
        try:
            if load_state(folder)[2]["images_seen"] > 1_000:
                return process
        except FileError:
            pass
        time.sleep(0.01)
    raise AssertionError("no state was written")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    cgan.train(quick(**STOPPED | RARELY, log_every_images=10_000), folder)
    return folder


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_stopped_and_resumed_is_bit_for_bit_the_same(
    number: signal.Signals, tmp_path: Path, uninterrupted: Path
) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    process.send_signal(number)
    status = process.wait(60)
    assert status == (-9 if number == signal.SIGKILL else 128 + number)
    stopped_at = load_state(folder)[2]["images_seen"]
    assert 1_000 < stopped_at < STOPPED_IMAGES
    cgan.load(folder).sample("7")  # a stopped run can draw
    cgan.train(load_config(folder / "config.yaml", RARELY), folder, resume=True)
    assert same_weights(folder / STATE_FILES[0], uninterrupted / STATE_FILES[0])
    assert same_weights(folder / "generator.safetensors", uninterrupted / "generator.safetensors")
    seen = [row["images_seen"] for row in read_metrics(folder)]
    assert seen == sorted(seen)
    assert not [path for path in folder.iterdir() if "next" in path.name]


@pytest.mark.parametrize("source", ["memory", "disk"])
def test_a_convolutional_run_on_colour_goes_on_bit_for_bit(
    source: str, tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels-last filters have channels-last moments; reading from disk draws no number."""
    if source == "disk":
        monkeypatch.setattr("cgan.data.load.free_memory", lambda: 0)
    changes = {
        "data.source": str(pets), "control_per_class": 0, "model.width": 4, "device": "cpu",
        "lr_final_fraction": 1.0, "penalty.final_fraction": 1.0,
    }  # fmt: skip
    short, long = (load_config("folder-dcgan", {**changes, "images": n}) for n in (160, 320))
    whole = cgan.train(long, tmp_path / "a")
    part = cgan.train(short, tmp_path / "b")
    cgan.train(long, part.folder, resume=True)
    assert same_weights(whole.folder / STATE_FILES[0], part.folder / STATE_FILES[0])


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    run = cgan.train(quick(), tmp_path / "run")
    left = run.folder / ".state-next.safetensors.0123456789abcdef"
    left.write_bytes(b"half")
    cgan.train(quick(images=1_280), run.folder, resume=True)
    assert not left.exists()


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    state = TrainState(Plan(quick(), cgan.load_pictures("digits"), torch.device("cpu")))
    state.save(tmp_path)
    good = (tmp_path / STATE_FILES[0]).read_bytes()
    with torch.no_grad():
        next(state.generator.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        state.save(tmp_path)
    assert (tmp_path / STATE_FILES[0]).read_bytes() == good


def test_torn_state_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:

    run = cgan.train(quick(), tmp_path / "run")
    wanted = load_file(run.generator)
    last = run.folder / STATE_FILES[0]
    last.write_bytes(last.read_bytes()[:1000])
    cgan.train(quick(), tmp_path / "run", resume=True)
    assert "damaged" in caplog.text
    assert all(torch.equal(wanted[k], v) for k, v in load_file(run.generator).items())


def test_resume_needs_the_same_config_and_a_state(tmp_path: Path) -> None:
    run = cgan.train(quick(), tmp_path / "run")
    with pytest.raises(RunError, match=r"model.width 16, not 8.*without|leave out --resume"):
        cgan.train(quick(**{"model.width": 8}), tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="no state of a run"):
        cgan.train(quick(), tmp_path / "none", resume=True)
    longer = cgan.train(quick(images=1_280), run.folder, resume=True)
    assert longer.images_seen == 1_280


def test_resume_refuses_other_classes_and_changed_images(pets: Path, tmp_path: Path) -> None:
    config = load_config(
        "folder-dcgan",
        {**QUICK, "data.source": str(pets), "data.size": 8, "model.width": 4, "images": 128},
    )
    run = cgan.train(config, tmp_path / "run")
    more = config.model_copy(update={"images": 256})
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}

    (pets / "dog").rename(pets / "bird")
    for changed in (False, True):
        with pytest.raises(RunError, match="trained on the classes cat, dog and .* bird, cat: "):
            cgan.train(more, run.folder, resume=True, data_changed=changed)
    (pets / "bird").rename(pets / "dog")
    Image.new("RGB", (18, 18), (1, 2, 3)).save(pets / "dog" / "new-3.png")
    size = len(load_pictures(str(pets)))
    with pytest.raises(RunError, match=rf"have changed \({size - 1} before, {size} now\).*--data-"):
        cgan.train(more, run.folder, resume=True)
    after = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert after == before
    changed_run = cgan.train(more, run.folder, resume=True, data_changed=True)
    assert changed_run.images_seen == 256
    assert cgan.load(run.folder).header["data_changed"]
    (pets / "dog" / "new-3.png").rename(pets / "dog" / "zzz.png")  # the order is the same
    longer = config.model_copy(update={"images": 384})
    assert cgan.train(longer, run.folder, resume=True).images_seen == 384
    assert cgan.load(run.folder).header["data_changed"]  # also after the next session


def test_a_state_whose_seconds_are_damaged_resumes(tmp_path: Path) -> None:
    """So many seconds that a step adds none: no speed can be computed."""
    run = cgan.train(quick(images=640), tmp_path / "run")
    _, tensors, header, _ = load_state(run.folder)
    save_state(run.folder, tensors, {**header, "seconds": 1e300})
    assert cgan.train(quick(images=1_280), run.folder, resume=True).images_seen == 1_280


def test_state_of_a_version_that_stored_no_data_needs_consent(small_run: cgan.Run) -> None:
    state = TrainState(Plan(small_run.config, cgan.load_pictures("digits"), torch.device("cpu")))
    with pytest.raises(RunError, match="unknown before, 1,206 now"):
        state.check_same_data(small_run.folder, {"images_seen": 1}, False)
    state.check_same_data(small_run.folder, {"images_seen": 1}, True)


@pytest.mark.parametrize("name", ["mnist", "x" * 240])
def test_folders_with_the_name_of_a_data_set_or_a_very_long_one(name: str, tmp_path: Path) -> None:
    root = make_pets(tmp_path / name)
    overrides = {
        **QUICK, "data.source": str(root), "data.size": 8, "model.width": 4, "images": 128,
        "control_per_class": 2,
    }  # fmt: skip
    for folder in ("first", "second"):  # the second finds the judge of the first
        run = cgan.train(load_config("folder-dcgan", overrides), tmp_path / folder)
    sampler = cgan.load(run.folder)
    assert sampler.config.data.source == ("mnist-folder" if name == "mnist" else name)
    assert cgan.evaluate(run.folder, per_class=2, device="cpu").control.classes == ("cat", "dog")


def test_run_in_use_is_refused(tmp_path: Path) -> None:
    from cgan.storage.atomic import lock

    run = cgan.train(quick(), tmp_path / "run")
    with lock(run.folder), pytest.raises(RunError, match="in use by another process"):
        cgan.train(quick(images=1_280), run.folder, resume=True)


@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_losses_that_are_no_numbers_stop_the_run_and_keep_the_last_good_state(
    side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = LOSSES["nonsaturating"]
    calls = 0

    def broken(*, real: Tensor | None, fake: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value: Tensor = getattr(good, side)(real=real, fake=fake)
        return value * (float("nan") if calls > 25 else 1)

    sides = {"generator": good.generator, "discriminator": good.discriminator, side: broken}
    monkeypatch.setitem(LOSSES, "nonsaturating", Loss(**sides))
    with pytest.raises(
        DivergedError, match=f"loss_{side[0].upper()} became nan between 1,280 and 1,664"
    ):
        cgan.train(quick(images=3_200, save_every_seconds=1e-9), tmp_path / "run")
    _, tensors, header, _ = load_state(tmp_path / "run")
    assert header["images_seen"] <= 1_600
    weights = [t for name, t in tensors.items() if t.is_floating_point()]
    assert all(t.isfinite().all() for t in weights)


def test_nothing_is_written_where_training_cannot_start(tmp_path: Path, pets: Path) -> None:
    before = set(tmp_path.iterdir())
    (pets / "dog").rename(tmp_path / "dog")
    before = set(tmp_path.iterdir())
    with pytest.raises(DataError, match="one class only"):
        cgan.train(quick(**{"data.source": str(pets)}), tmp_path / "run")
    with pytest.raises(DeviceError):
        cgan.train(quick(device="cuda:99"), tmp_path / "run")
    assert set(tmp_path.iterdir()) == before
    plain = quick(**{"data.source": str(pets), "model.conditional": False, "images": 640})
    assert cgan.train(plain, tmp_path / "run").images_seen == 640


def test_a_logger_that_cannot_start_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="wandb is not installed"):
        cgan.train(quick(wandb=True), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="wandb is not installed"):
        cgan.train(quick(wandb=True), tmp_path / "mine")
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_large_batches_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:

    cgan.train(quick(images=3_200, batch_size=1_000), tmp_path / "run")
    assert "a budget of 3,200 images in batches of 1,000 is only 4 updates" in caplog.text


def test_minutes_are_kept(tmp_path: Path) -> None:
    run = cgan.train(quick(minutes=0.02), tmp_path / "run")
    assert 1.2 <= run.seconds < 3
    assert read_metrics(run.folder)[-1]["lr"] == pytest.approx(1e-4, rel=0.05)


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """Random pictures in the files in which every packaged config looks for its own."""
    for kind in ("MNIST", "FashionMNIST"):
        write_idx(tmp_path, kind)
    make_pets(tmp_path / "pets")
    return tmp_path


@pytest.mark.parametrize("name", config_names())
@pytest.mark.parametrize("conditional", [True, False])
def test_every_packaged_config_trains(name: str, conditional: bool, small_data: Path) -> None:
    overrides = {
        "images": 128, "control_per_class": 0, "model.conditional": conditional,
        "data.data_dir": str(small_data), "model.width": 8,
    }  # fmt: skip
    if name in ("folder-dcgan", "photos-resnet"):
        overrides["data.source"] = str(small_data / "pets")
    config = load_config(name, overrides)
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(config.seed, Purpose.NETWORKS))
        initial = TrainState(Plan(config, load_split(config.data, "train"), torch.device("cpu")))
    run = cgan.train(config, small_data / "run")
    assert run.images_seen >= 128
    trained = load_state(run.folder)[1]
    for network, optimizer in (("G", "opt_G"), ("D", "opt_D")):
        weights = list(initial.networks[network].named_parameters())
        for index, (key, old) in enumerate(weights):
            assert trained[f"{optimizer}.{index}.step"] == run.images_seen // config.batch_size
            # A constant cancels out of the difference of two logits.
            fixed = config.loss == "relativistic" and (network, key) == ("D", "head.linear.bias")
            assert torch.equal(trained[f"{network}.{key}"], old) == fixed, f"{network}.{key}"
    sampler = cgan.load(run.folder)
    assert sampler.sample(sampler.classes[-1] if conditional else None).isfinite().all()


@pytest.mark.mnist
def test_real_mnist_for_a_few_steps(tmp_path: Path) -> None:
    overrides = {"images": 1280, "control_per_class": 0, "data.data_dir": str(mnist_folder())}
    run = cgan.train(load_config("mnist-dcgan", overrides), tmp_path / "run")
    assert cgan.load(run.folder).sample("7").shape == (1, 1, 28, 28)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("penalty", ["r1", "r2"])
def test_every_loss_with_every_penalty_trains(loss: str, penalty: str, tmp_path: Path) -> None:
    run = cgan.train(quick(loss=loss, images=640, **{f"penalty.{penalty}": 0.5}), tmp_path / "run")
    assert read_metrics(run.folder)[-1]["penalty"] > 0
    without = {"penalty.r1": 0.0, "penalty.r2": 0.0}
    alone = {**without, f"penalty.{penalty}": 0.5}
    run = cgan.train(quick(loss=loss, images=640, **alone), tmp_path / "alone")
    assert read_metrics(run.folder)[-1]["penalty"] > 0


def test_control_is_measured_and_written_into_the_generator(
    tmp_path: Path, digits_judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.training.monitor.get_or_train_judge", lambda *_, **__: digits_judge)
    run = cgan.train(quick(control_per_class=20), tmp_path / "run")
    assert run.control is not None
    assert run.control.confusion.sum() == 200
    measured = cgan.load(run.folder).header["measured"]
    assert measured["control_accuracy"] == run.control.accuracy
    assert read_metrics(run.folder)[-1]["control_accuracy"] == run.control.accuracy


def test_averaged_generator_is_what_is_kept(tmp_path: Path) -> None:
    run = cgan.train(quick(), tmp_path / "run")
    state, kept = load_file(run.folder / STATE_FILES[0]), load_file(run.generator)
    for name, tensor in kept.items():
        assert torch.equal(tensor, state[f"ema.{name}"])
    assert any(not torch.equal(t, state[f"G.{name}"]) for name, t in kept.items())


def test_folder_too_large_for_memory_trains(
    tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.data.load.free_memory", lambda: 0)
    config = load_config(
        "folder-dcgan",
        {"data.source": str(pets), "images": 192, "control_per_class": 0, "model.width": 4},
    )
    assert cgan.train(config, tmp_path / "run").images_seen == 192


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB.")


@pytest.mark.parametrize(
    ("where", "changes", "sentence"),
    [
        ("cgan.training.trainer.TrainStep.__init__", {},
         "preparing the networks on cpu ran out of memory (it tried to allocate 2.00 GiB): lower "
         "--set model.width=…"),
        ("cgan.training.trainer.TrainStep.__call__", {},
         "training on batches of 64 on cpu ran out of memory (it tried to allocate 2.00 GiB): "
         "lower --batch-size; the last state is kept in {folder}"),
        ("cgan.sampling.sampler.Sampler._draw", {"sample_every_images": 64},
         "sampling a batch of 64 images of 8×8 on cpu ran out of memory (it tried to "
         "allocate 2.00 GiB): free memory, or use another --device"),
        ("cgan.sampling.sampler.Sampler._draw", {"eval_every_images": 64},
         "sampling a batch of 64 images of 8×8 on cpu ran out of memory (it tried to "
         "allocate 2.00 GiB): free memory, or use another --device"),
        ("cgan.evaluation.judge.Judge.predict", {"eval_every_images": 64},
         "evaluating on cpu ran out of memory (it tried to allocate 2.00 GiB): free memory, or "
         "turn evaluation off (--set eval_every_images=0 --set control_per_class=0)"),
    ],
)  # fmt: skip
def test_what_ran_out_of_memory_is_named(
    where: str,
    changes: dict[str, int],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, full)
    with pytest.raises(RunError) as caught:
        cgan.train(quick(**changes), tmp_path / "run")
    assert str(caught.value) == sentence.format(folder=tmp_path / "run")
    assert (tmp_path / "run").exists() == ("preparing" not in sentence)


def test_a_final_evaluation_that_runs_out_of_memory(
    tmp_path: Path, digits_judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgan.training.monitor.get_or_train_judge", lambda *_, **__: digits_judge)
    monkeypatch.setattr("cgan.training.monitor.Reference.draw", full)
    with pytest.raises(RunError, match=r"^evaluating on cpu ran out of memory"):
        cgan.train(quick(images=640, control_per_class=20), tmp_path / "run")
    assert cgan.load(tmp_path / "run").header["images_seen"] == 640


def check_compiled(update: str, folder: Path) -> None:
    plain = cgan.train(quick(images=640, update=update), folder / "plain")
    compiled = cgan.train(quick(images=640, update=update, compile=True), folder / "compiled")
    for name in ("loss_G", "loss_D", "penalty"):
        one, two = (read_metrics(run.folder)[-1][name] for run in (plain, compiled))
        assert one == pytest.approx(two, rel=1e-2)
    assert same_keys(plain.generator, compiled.generator)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # from dynamo itself
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_compiled_training_agrees(
    update: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both networks are compiled, and the losses are those of the eager path."""
    from torch._dynamo.backends.debugging import aot_eager  # a second of import

    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    check_compiled(update, tmp_path)
    assert len(graphs) >= 2
    assert "torch.compile does not work here" not in caplog.text
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # compilers warn about themselves
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_training_compiled_by_inductor_agrees(
    update: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch._dynamo.reset()
    check_compiled(update, tmp_path)
    assert "torch.compile does not work here" not in caplog.text


def same_keys(left: Path, right: Path) -> bool:
    return load_file(left).keys() == load_file(right).keys()


@pytest.mark.cuda
@pytest.mark.parametrize("backbone", ["mlp", "dcgan", "photo", "resnet"])
@pytest.mark.parametrize("bf16", [False, True])
def test_cuda_trains_and_goes_on(
    bf16: bool, backbone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"device": "cuda", "bf16": bf16, "model.backbone": backbone, "model.width": 8}
    run = cgan.train(quick(**changes), tmp_path / "run")
    longer = cgan.train(quick(**changes, images=1_280), run.folder, resume=True)
    assert longer.images_seen == 1_280
    assert "cannot be captured" not in caplog.text
    assert cgan.load(run.folder, "cuda").sample("7").isfinite().all()


def test_networks_are_plain_modules_in_anybodys_loop() -> None:
    """Ten lines that use nothing else of ours."""
    torch.manual_seed(0)
    G, D = cgan.build_pair("mlp", image_shape=(1, 8, 8), num_classes=2, width=16)
    optimizer = torch.optim.SGD([*G.parameters(), *D.parameters()], 1e-3)
    labels = torch.tensor([0, 1])
    loss = nn.functional.softplus(-D(G(torch.randn(2, 64), labels), labels)).mean()
    loss.backward()
    optimizer.step()
    assert loss.isfinite()


class Uncompilable(nn.Module):
    """What torch.compile gives where there is no compiler: it fails when it is first called."""

    def forward(self, *inputs: Tensor) -> Tensor:
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler was found\nmore")


def test_without_a_compiler_it_trains_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: Uncompilable())
    with caplog.at_level("WARNING", "cgan"):
        run = cgan.train(quick(compile=True), tmp_path / "run")
    assert run.images_seen == 640
    told = [record for record in caplog.records if "does not work here" in record.getMessage()]
    assert len(told) == 1
    assert "no C++ compiler was found" in caplog.text
