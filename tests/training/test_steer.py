"""Steering gives class control, and leaves the generator as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import Result

import cgan
from cgan.augment import AUGMENTATIONS
from cgan.config_io import load_config
from cgan.data import ImageDataset
from cgan.errors import ConfigError, MeasureError, RunError
from cgan.sampling.onnx import open_export
from cgan.sampling.wrap import PlainGenerator, load_plain
from cgan.storage.checkpoint import read_header
from cgan.storage.safe_reading import file_digest
from cgan.training.plan import Plan, check_classes
from cgan.training.state import TrainState
from cgan.training.steer import safe_config_name
from cgan.training.step import TrainStep

Shell = Callable[..., Result]


def test_it_obeys(steered_run: cgan.Run) -> None:
    assert steered_run.control is not None
    assert steered_run.control.accuracy > 0.6  # chance is 0.1
    sampler = cgan.load(steered_run.folder)
    assert sampler.conditional
    assert sampler.header["measured"]["control_accuracy"] == steered_run.control.accuracy
    images = sampler.sample("7", n=3, seed=5)
    assert images.shape == (3, 1, 8, 8)
    assert torch.equal(images[1:], sampler.sample("7", n=2, seed=6))


def test_its_file_holds_the_unchanged_generator(
    trained_plain_run: cgan.Run, steered_run: cgan.Run
) -> None:
    plain, steered = load_file(trained_plain_run.generator), load_file(steered_run.generator)
    for name, tensor in plain.items():
        assert torch.equal(steered.pop(f"generator.{name}"), tensor)
    assert steered
    assert all(name.startswith("flow.") for name in steered)
    header = read_header(steered_run.generator, "cgan-generator")
    assert header["steered"]["sha256"] == file_digest(trained_plain_run.generator)
    assert header["config"]["steer"] == trained_plain_run.folder.name


def test_info_names_the_generator(steered_run: cgan.Run, shell: Shell) -> None:
    done = shell("info", steered_run.folder)
    assert done.exit_code == 0
    assert "steers            plain-gan (SHA-256 " in done.output


def test_its_folder_is_next_to_that_of_the_generator(
    trained_plain_run: cgan.Run, steered_run: cgan.Run
) -> None:
    wanted = trained_plain_run.folder.with_name(f"{trained_plain_run.folder.name}-steered")
    assert steered_run.folder == wanted


def test_an_image_is_one_that_the_generator_draws(
    trained_plain_run: cgan.Run, steered_run: cgan.Run
) -> None:
    sampler, plain = cgan.load(steered_run.folder), cgan.load(trained_plain_run.folder)
    u, labels = torch.randn(4, sampler.latent_dim), torch.tensor([0, 3, 7, 9])
    network: Any = sampler.generator
    with torch.inference_mode():
        z = network.flow(u, labels)
        assert torch.equal(network(u, labels), plain.generator(z))


QUICK = {
    "control_per_class": 0, "model.backbone": "mlp", "lr_final_fraction": 1.0, "images": 640,
    "model.width": 32,
}  # fmt: skip


def test_it_resumes_bit_for_bit(trained_plain_run: cgan.Run, tmp_path: Path) -> None:
    """With constant schedules a longer budget changes nothing before."""
    source = trained_plain_run.folder
    whole, part = (
        cgan.steer(source, out=tmp_path / name, device="cpu", overrides={**QUICK, **changes})
        for name, changes in (("whole", {"images": 1_280}), ("part", {}))
    )
    before = load_file(part.generator)
    resumed = cgan.train(whole.config, part.folder, resume=True)
    assert resumed.images_seen == 1_280
    wanted, found = load_file(whole.generator), load_file(part.generator)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert any(not torch.equal(found[name], tensor) for name, tensor in before.items())


def test_it_does_not_resume_with_another_generator(
    trained_plain_run: cgan.Run, plain_run: cgan.Run, tmp_path: Path
) -> None:
    run = cgan.steer(trained_plain_run.folder, out=tmp_path / "a", device="cpu", overrides=QUICK)
    moved = shutil.copytree(trained_plain_run.folder, tmp_path / "moved")
    longer = {"images": 1_280, "steer": str(moved)}
    config = load_config(run.folder / "config.yaml", longer)
    assert cgan.train(config, run.folder, resume=True).images_seen == 1_280
    other = load_config(run.folder / "config.yaml", {"steer": str(plain_run.folder)})
    with pytest.raises(RunError, match="steers another generator"):
        cgan.train(other, run.folder, resume=True)


def test_attributes_are_shared_in_the_flow_and_in_d_only(trained_plain_run: cgan.Run) -> None:
    plain = load_plain(trained_plain_run.folder)
    plain.network.table = nn.Embedding(4, 2)  # as many rows as classes, by chance
    names = tuple(f"{kind} + {place}" for kind in "ab" for place in ("in", "out"))
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    data = ImageDataset("noise", images, torch.arange(8) % 4, names, num_attributes=2)
    config = load_config("steer", {**QUICK, "steer": "x", "device": "cpu"})
    state = TrainState(Plan(config, data, torch.device("cpu"), None, plain))
    parametrized = [name for name, _ in state.generator.named_parameters() if "original" in name]
    assert len(parametrized) == 2 * config.model.flow_blocks
    assert all(name.startswith("flow.") for name in parametrized)


def test_both_kinds_of_images_are_mirrored_because_the_generator_cannot_learn_to(
    trained_plain_run: cgan.Run,
) -> None:
    augment = {"steer": "x", "device": "cpu", "augment": ["mirror", "translation"]}
    config, digits = load_config("steer", {**QUICK, **augment}), cgan.load_pictures("digits")
    plain = load_plain(trained_plain_run.folder)
    step = TrainStep(TrainState(Plan(config, digits, torch.device("cpu"), None, plain)))
    assert step.augment_real.augmentations == []
    both = [AUGMENTATIONS[name] for name in ("mirror", "translation")]
    assert step.discriminator.augment.augmentations == both


def test_the_average_has_the_same_frozen_generator(trained_plain_run: cgan.Run) -> None:
    plain = load_plain(trained_plain_run.folder)
    config = load_config("steer", {**QUICK, "steer": "x", "device": "cpu"})
    state = TrainState(Plan(config, cgan.load_pictures("digits"), torch.device("cpu"), None, plain))
    assert state.generator_ema.generator is state.generator.generator
    assert state.generator_ema.flow is not state.generator.flow


def test_a_steered_generator_keeps_its_weights() -> None:
    with pytest.raises(ConfigError, match="keeps its weights"):
        load_config("steer", {"steer": "a", "warm_start": "b"})


class Painter(nn.Module):
    """Images of one grey each, a function of z."""

    def __init__(self, grey: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.grey = grey

    def forward(self, z: Tensor) -> Tensor:
        return self.grey(z[:, :1, None, None]).expand(-1, 1, 8, 8)


@pytest.mark.parametrize("size", [1, 64])
@pytest.mark.parametrize(
    ("grey", "sentence"),
    [
        (torch.tanh, "0 times in 40 images"),
        (torch.zeros_like, "the same image for every z"),
        (lambda z: z * torch.inf, "not finite"),
    ],
)
def test_generators_that_cannot_be_steered(
    grey: Callable[[Tensor], Tensor], sentence: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large images are drawn one by one, in batches of 1."""
    monkeypatch.setattr("cgan.training.plan.batch_size", lambda *_: size)
    monkeypatch.setattr("cgan.training.plan.DRAWS", 40)
    monkeypatch.setattr("cgan.training.plan.DRAWS_PER_CLASS", 1)
    plain = PlainGenerator(Painter(grey), (1, 8, 8), 4, {"name": "x"})
    with pytest.raises(MeasureError, match=sentence):
        check_classes(Plan(load_config(), cgan.load_pictures("digits"), torch.device("cpu")), plain)


@pytest.mark.parametrize(
    ("name", "wanted"), [("my gan (1)-steered", "my-gan-1--steered"), ("--", "steered")]
)
def test_names_of_runs(name: str, wanted: str) -> None:
    assert safe_config_name(name) == wanted


def test_the_divergence_keeps_the_variety(trained_plain_run: cgan.Run, tmp_path: Path) -> None:
    def divergence(weight: float) -> float:
        run = cgan.steer(
            trained_plain_run.folder, out=tmp_path / str(weight), device="cpu",
            overrides={
                "kl_weight": weight, "images": "3k", "model.backbone": "mlp",
                "control_per_class": 0, "model.width": 32,
            },
        )  # fmt: skip
        network: Any = cgan.load(run.folder).generator
        labels = torch.arange(200) % 10
        with torch.inference_mode():
            return float(network.flow.with_kl(torch.randn(200, 64), labels)[1].mean())

    assert divergence(1.0) < 0.2 * divergence(0.0)


def test_exported_and_verified(steered_run: cgan.Run, shell: Shell) -> None:
    assert shell("export", steered_run.folder).exit_code == 0
    exported = open_export(steered_run.generator)
    assert exported is not None
    wanted = cgan.load(steered_run.folder).sample("7", n=4, seed=1)
    assert np.allclose(exported.sample("7", n=4, seed=1), wanted.numpy(), atol=1e-4)
    drawn = shell("generate", steered_run.folder, "--digit", "7", "-n", 4, "--out", "seven.png")
    assert drawn.exit_code == 0, drawn.output
    done = shell("generate", steered_run.folder, "--count", 20, "--out", "set", "--format", "npz")
    assert done.exit_code == 0, done.output
    verified = shell(
        "generate", steered_run.folder, "--digit", "3", "-n", 4, "--verify", "--out", "three.png"
    )
    assert verified.exit_code == 0, verified.output
    (steered_run.generator.with_suffix(".onnx")).unlink()


def test_the_shell(trained_plain_run: cgan.Run, shell: Shell) -> None:
    done = shell(
        "steer", trained_plain_run.folder, "--images", 640, "--out", "steered", "--device", "cpu",
        "--set", "control_per_class=0", "--set", "model.backbone=mlp",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "without steering, the generator draws" in done.output
    assert cgan.load("steered").conditional


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mnist"], "is conditional already"),
        (["nowhere"], "there is no run or generator file nowhere"),
        (["PLAIN", "--data", "mnist-folder"], "mnist-folder"),
        (["PLAIN", "--images", "1k", "--minutes", "1"], "either in --images or in --minutes"),
        (["PLAIN", "--data", "PETS"], "give the data that it was trained on"),
        (["model.pt"], "is a pickle"),
    ],
)
def test_bad_input(
    words: list[str], sentence: str, trained_plain_run: cgan.Run, pets: Path, shell: Shell
) -> None:
    Path("model.pt").write_bytes(b"\x80\x02}q\x00.")
    places = {"PLAIN": trained_plain_run.folder, "PETS": pets}
    before = sorted(Path().iterdir())
    done = shell("steer", *[places.get(word, word) for word in words])
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert sorted(Path().iterdir()) == before


def test_the_config_needs_the_command(shell: Shell) -> None:
    done = shell("train", "steer")
    assert done.exit_code == 2
    assert "cgan steer GENERATOR" in done.output
