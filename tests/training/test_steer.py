"""Steering gives class control, and leaves the generator as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

import cgan
from cgan.config_io import load_config
from cgan.storage.checkpoint import read_header
from cgan.storage.safe_reading import file_digest

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


def test_it_is_reproducible_and_resumes(trained_plain_run: cgan.Run, tmp_path: Path) -> None:
    overrides = {"control_per_class": 0, "model.backbone": "mlp", "images": 640}
    source = trained_plain_run.folder
    first, second = (
        cgan.steer(source, out=tmp_path / name, device="cpu", overrides=overrides)
        for name in ("first", "second")
    )
    before = load_file(first.generator)
    again = load_file(second.generator)
    assert all(torch.equal(before[name], tensor) for name, tensor in again.items())
    resumed = cgan.train(load_config(first.folder / "config.yaml"), first.folder, resume=True)
    assert resumed.images_seen == 640
    after = load_file(first.generator)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_the_divergence_keeps_the_variety(trained_plain_run: cgan.Run, tmp_path: Path) -> None:
    def divergence(weight: float) -> float:
        run = cgan.steer(
            trained_plain_run.folder, out=tmp_path / str(weight), device="cpu",
            overrides={
                "kl_weight": weight, "images": "5k", "model.backbone": "mlp",
                "control_per_class": 0,
            },
        )  # fmt: skip
        network: Any = cgan.load(run.folder).generator
        labels = torch.arange(200) % 10
        with torch.inference_mode():
            return float(network.flow.with_kl(torch.randn(200, 64), labels)[1].mean())

    assert divergence(1.0) < 0.2 * divergence(0.0)


def test_exported_and_verified(steered_run: cgan.Run, shell: Shell) -> None:
    assert shell("export", steered_run.folder).exit_code == 0
    drawn = shell("generate", steered_run.folder, "--digit", "7", "-n", 4, "--out", "seven.png")
    assert drawn.exit_code == 0, drawn.output
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
