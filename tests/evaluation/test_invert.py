"""Inversion finds the z and the class of images that the generator has drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import Result

import cgan
from cgan.errors import CganError, ConfigError, DataError, FileError
from cgan.evaluation import invert as inversion
from cgan.evaluation.invert import (
    Encoder,
    Inversion,
    encoder_path,
    get_or_train_encoder,
    invert_batch,
    load_encoder,
    read_picture,
)
from cgan.storage.checkpoint import Latents
from cgan.storage.images import save_png, to_pixels
from tests.conftest import open_image

Shell = Callable[..., Result]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "IMAGES", 12_800)
    monkeypatch.setattr(inversion, "HELD_OUT", 10)


@pytest.fixture(scope="module")
def sampler(small_run: cgan.Run) -> cgan.Sampler:
    return cgan.load(small_run.folder)


@pytest.fixture
def encoder(sampler: cgan.Sampler) -> Encoder:
    return get_or_train_encoder(sampler)


def test_it_finds_the_class_and_the_image(sampler: cgan.Sampler, encoder: Encoder) -> None:
    labels = torch.arange(20) % 10
    z = 0.7 * torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    images = sampler.generate(z, labels)
    found, classes, distances = invert_batch(sampler, encoder, images)
    assert (classes == labels).float().mean() >= 0.8  # chance is 0.1
    again = sampler.generate(found, classes)
    assert torch.allclose((again - images).square().mean((1, 2, 3)).sqrt(), distances, atol=1e-4)
    guess, logits = encoder.encode(images * 2 - 1)
    guessed = sampler.generate(guess, logits.argmax(1))
    before = (guessed - images).square().mean((1, 2, 3)).sqrt()
    assert distances.mean() < 0.7 * before.mean()  # the gradient steps help


def test_an_image_alone_and_in_a_batch(sampler: cgan.Sampler, encoder: Encoder) -> None:
    images = sampler.sample("3", n=3)
    together, alone = (
        invert_batch(sampler, encoder, images),
        invert_batch(sampler, encoder, images[1:2]),
    )
    assert together[1][1] == alone[1][0]
    assert torch.allclose(together[2][1], alone[2][0], atol=0.02)


def test_from_python(sampler: cgan.Sampler) -> None:
    image = sampler.sample("7", seed=3)[0]
    found = cgan.invert(sampler, image)
    assert found.z.shape == (64,)
    assert found.label in sampler.classes
    assert len(found.held_out_distances) == 10
    assert list(found.held_out_distances) == sorted(found.held_out_distances)
    same = cgan.invert(sampler, to_pixels(image))  # uint8
    assert same.distance == pytest.approx(found.distance, abs=0.02)


def test_the_encoder_is_cached_and_belongs_to_its_generator(
    sampler: cgan.Sampler, plain_run: cgan.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgan.invert(sampler, sampler.sample("7")[0])
    path = encoder_path(sampler)
    monkeypatch.setattr(inversion, "train_encoder", lambda *_, **__: pytest.fail("trained again"))
    assert len(get_or_train_encoder(sampler).header["distances"]) == 10
    other = cgan.load(plain_run.folder)
    assert encoder_path(other) != path
    with pytest.raises(FileError, match="does not fit"):
        load_encoder(other, path)


def test_a_damaged_encoder_is_replaced(
    sampler: cgan.Sampler, caplog: pytest.LogCaptureFixture
) -> None:
    cgan.invert(sampler, sampler.sample("7")[0])
    encoder_path(sampler).write_bytes(b"noise")
    with caplog.at_level(logging.WARNING, logger="cgan"):
        get_or_train_encoder(sampler)
    assert "it is ignored" in caplog.text
    load_encoder(sampler, encoder_path(sampler))


def test_a_plain_generator_has_no_class(plain_run: cgan.Run) -> None:
    plain = cgan.load(plain_run.folder)
    found = cgan.invert(plain, plain.sample()[0])
    assert found.label is None
    assert found.z.shape == (64,)


def test_data_that_was_asked_for_must_exist(sampler: cgan.Sampler, pets: Path) -> None:
    image = sampler.sample("7")[0]
    with pytest.raises(CganError, match="nowhere"):
        cgan.invert(sampler, image, data="nowhere")
    with pytest.raises(CganError, match="draws images of 1 × 8 × 8 and pets has 3 × 8 × 8"):
        cgan.invert(sampler, image, data=str(pets))


def test_other_data_are_another_reference(
    sampler: cgan.Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = sampler.sample("7")[0]
    before = cgan.invert(sampler, image).held_out_distances
    train = cgan.load_pictures("digits")  # in place of the test images
    monkeypatch.setattr(inversion, "load_split", lambda *_: train)
    assert cgan.invert(sampler, image).held_out_distances != before


def test_distances_of_data_that_a_call_gives_are_not_kept(
    sampler: cgan.Sampler, tmp_path: Path
) -> None:
    image, test = sampler.sample("7")[0], cgan.load_pictures("digits", "test")
    own = cgan.invert(sampler, image).held_out_distances
    for index, (picture, label) in enumerate(zip(test.images[:200], test.labels, strict=False)):
        place = tmp_path / "other" / sampler.classes[label] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - picture[0].numpy()).save(place)
    other = cgan.invert(sampler, image, data=str(tmp_path / "other")).held_out_distances
    assert other != own
    assert tuple(load_encoder(sampler, encoder_path(sampler)).header["distances"]) == own


def test_without_data_there_is_no_reference(
    small_run: cgan.Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = cgan.load(small_run.folder)

    def fail(*_: object) -> None:
        raise ConfigError("the training data pets was not found")

    monkeypatch.setattr(inversion, "data_config_of", fail)
    with caplog.at_level(logging.WARNING, logger="cgan"):
        cgan.invert(alone, alone.sample("7")[0])
    assert "the distance has no reference: the training data pets" in caplog.text


def test_a_model_is_not_overwritten(
    sampler: cgan.Sampler, small_run: cgan.Run, shell: Shell
) -> None:
    save_png(to_pixels(sampler.sample("7")[0]), Path("seven.png"))
    model = Path("model.safetensors")
    model.write_bytes(small_run.generator.read_bytes())
    done = shell("invert", "model.safetensors", "seven.png", "--out", "model.png")
    assert done.exit_code == 2
    assert "is a cgan-generator file" in " ".join(done.output.split())
    assert model.read_bytes() == small_run.generator.read_bytes()


def test_outside_means_farther_than_99_percent() -> None:
    held_out = tuple(index / 100 for index in range(100))
    z = torch.zeros(2)
    assert not Inversion(z, "1", 0.99, held_out).is_outside
    assert Inversion(z, "1", 0.991, held_out).is_outside
    assert not Inversion(z, "1", 5.0, ()).is_outside


def test_images_of_another_shape_are_refused(sampler: cgan.Sampler, tmp_path: Path) -> None:
    colour = torch.zeros(3, 8, 8, dtype=torch.uint8)
    colour[0] = 200
    save_png(colour, tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("text")
    for name, sentence in (
        ("colour.png", "is in colour and the generator draws grey images"),
        ("text.png", "cannot be read as an image"),
        ("nowhere.png", "cannot be read as an image"),
    ):
        with pytest.raises(DataError, match=sentence):
            cgan.invert(sampler, tmp_path / name)
    save_png(torch.full((3, 8, 8), 90, dtype=torch.uint8), tmp_path / "grey.png")  # as RGB
    assert read_picture(tmp_path / "grey.png", sampler).shape == (1, 8, 8)
    with pytest.raises(DataError, match=r"has the shape \[8, 8\]"):
        read_picture(torch.zeros(8, 8), sampler)


def test_the_shell(sampler: cgan.Sampler, small_run: cgan.Run, shell: Shell) -> None:
    save_png(to_pixels(sampler.sample("7", seed=2)[0]), Path("seven.png"))
    done = shell("invert", small_run.folder, "seven.png", "--out", "found.png", "--scale", 1)
    assert done.exit_code == 0, done.output
    assert "of 10 real test images" in done.output
    assert open_image("found.png").size == (12 * 10 - 2, 8)  # original, reconstruction, ten classes
    latents = Latents.load(Path("found.safetensors"))
    assert latents.labels is not None
    drawn = to_pixels(sampler.generate(latents.z, latents.labels))[0, 0]
    pixels = torch.tensor(list(open_image("found.png").tobytes())).view(8, -1)
    assert torch.equal(pixels[:, 10:18], drawn.int())
    large = shell("invert", small_run.folder, "found.png")
    assert large.exit_code == 0
    assert "found.png has 118×8 pixels: it is resized as in training" in large.output


def test_an_onnx_network_has_no_gradient(sampler: cgan.Sampler) -> None:
    steered = {**sampler.header, "steered": {"model": None}}
    foreign = cgan.Sampler(sampler.generator, steered, sampler.path)
    with pytest.raises(ConfigError, match="an ONNX network has no gradient"):
        cgan.invert(foreign, sampler.sample("7")[0])


@pytest.mark.parametrize("wrong", [-0.5, 255.0, float("nan")])
def test_values_of_an_image(wrong: float, sampler: cgan.Sampler) -> None:
    image = torch.zeros(1, 8, 8)
    assert torch.equal(read_picture(image, sampler), image)
    image[0, 3, 3] = wrong
    with pytest.raises(DataError, match="neither uint8 nor numbers in"):
        read_picture(image, sampler)
    white = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    assert read_picture(white, sampler).unique() == 1


def test_nothing_is_downloaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGAN_DATA", str(tmp_path))
    asked: list[str] = []

    def refuse(stored: Any, *_: object) -> None:
        asked.append(stored.kind)
        raise DataError("no network")

    monkeypatch.setattr("cgan.data.datasets._download", refuse)
    seven = cgan.load("mnist").sample("7")[0]
    found = cgan.invert("mnist", seven)
    assert (found.label, asked) == ("7", [])
    assert len(found.held_out_distances) == 200  # those in the packaged encoder
    with pytest.raises(DataError, match="no network"):
        cgan.invert("mnist", seven, data="mnist")
    assert asked == ["MNIST"]
