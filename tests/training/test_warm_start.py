"""Warm start: what fits is copied exactly, the rest keeps its initial weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

import cgan
from cgan.config_io import load_config, make_config
from cgan.data import ImageDataset
from cgan.errors import ConfigError, FileError
from cgan.storage.checkpoint import read_header
from cgan.storage.run_files import load_state, select_tensors
from cgan.training.plan import Plan
from cgan.training.state import TrainState
from cgan.training.warm_start import match, read_source, warm_start
from tests.conftest import SMALL, make_pets

CPU = torch.device("cpu")


def noise(classes: tuple[str, ...], side: int = 32, channels: int = 3) -> ImageDataset:
    images = torch.randint(0, 256, (len(classes), channels, side, side), dtype=torch.uint8)
    return ImageDataset("noise", images, torch.arange(len(classes)), classes)


def new_state(dataset: ImageDataset, seed: int, **changes: object) -> TrainState:
    torch.manual_seed(seed)
    overrides = {
        "model.backbone": "dcgan", "model.last_layer": "resize", "device": "cpu", **changes,
    }  # fmt: skip
    return TrainState(Plan(load_config("folder-dcgan", overrides), dataset, CPU))


def start_from(folder: Path, dataset: ImageDataset, **changes: object) -> TrainState:
    state = new_state(dataset, 1, warm_start=str(folder), **changes)
    warm_start(state)
    return state


def weights(state: TrainState) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, network in state.networks.items()
        for key, tensor in network.state_dict().items()
    }


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, TrainState]:
    """A saved run of two classes whose three networks all differ."""
    state = new_state(noise(("cat", "dog")), 0)
    for network in state.networks.values():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter)
    (tmp_path / "source").mkdir()
    state.save(tmp_path / "source")
    return tmp_path / "source", state


def test_the_same_data_gives_the_same_weights(source: tuple[Path, TrainState]) -> None:
    folder, old = source
    new = weights(start_from(folder, noise(("cat", "dog"))))
    assert all(torch.equal(tensor, new[name]) for name, tensor in weights(old).items())


def test_classes_are_matched_by_name_and_new_ones_start_at_the_mean(
    source: tuple[Path, TrainState],
) -> None:
    folder, old = source
    before, after = weights(old), weights(start_from(folder, noise(("ape", "dog", "cat"))))
    rows = {"G.embed.embedding.weight", "ema.embed.embedding.weight", "D.head.embedding.weight"}
    rows |= {"D.head.classifier.weight", "D.head.classifier.bias"}
    for name in rows:
        cat, dog = before[name]
        assert torch.equal(after[name], torch.stack([(cat + dog) / 2, dog, cat])), name
    for name in before.keys() - rows:
        assert torch.equal(after[name], before[name]), name


def test_who_taught_the_weights_is_never_forgotten(
    source: tuple[Path, TrainState], tmp_path: Path
) -> None:
    """A run that goes on without its teacher, or another one that begins with its weights."""
    folder, old = source
    old.taught_by = "reader A"
    old.save(folder)
    resumed = new_state(noise(("cat", "dog")), 1)
    resumed.restore(folder, data_changed=True)
    begun = start_from(folder, noise(("ape", "dog")))
    (tmp_path / "file").mkdir()
    shutil.copy(folder / "generator.safetensors", tmp_path / "file")
    from_file = start_from(tmp_path / "file" / "generator.safetensors", noise(("ape", "dog")))
    for state in (old, resumed, begun, from_file):
        assert state.generator_header()["teacher"] == "reader A"
    assert "teacher" not in new_state(noise(("cat", "dog")), 1).generator_header()


def test_images_of_twice_the_size_keep_the_layers_of_low_resolution(
    source: tuple[Path, TrainState],
) -> None:
    folder, old = source
    large = noise(("cat", "dog"), side=64)
    before, after = weights(old), weights(start_from(folder, large))
    untouched = weights(new_state(large, 1))
    # 64 has one more layer: G.up counts from the lowest resolution, D.down from the highest.
    moved = {
        f"D.down.{i}.{key}": f"D.down.{i + 1}.{key}" for i in (0, 1) for key in ("weight", "bias")
    }
    new = {"up.2", "up.3", "norms.3", "first", "down.0"}
    for name in before:
        if not any(f".{layer}." in name for layer in new - {"down.0"}):
            assert torch.equal(after[moved.get(name, name)], before[name]), name
    for name in after:
        if any(f".{layer}." in name for layer in new):
            assert torch.equal(after[name], untouched[name]), name


def test_the_photo_backbone_grows_too(tmp_path: Path) -> None:
    """G counts its layers from the lowest resolution, D from the highest."""
    photo = {"model.backbone": "photo", "model.generator_label": "concat"}
    old = new_state(noise(("cat", "dog")), 0, **photo)
    for network in old.networks.values():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter)
    (tmp_path / "source").mkdir()
    old.save(tmp_path / "source")
    large = noise(("cat", "dog"), side=64)
    before, after = weights(old), weights(start_from(tmp_path / "source", large, **photo))
    untouched = weights(new_state(large, 1, **photo))
    for name in ("G.up.0.conv.weight", "G.up.1.conv.weight", "D.down.0.weight"):
        moved = name.replace("D.down.0", "D.down.1")
        assert torch.equal(after[moved], before[name]), name
    assert torch.equal(after["D.residual.1.weight"], before["D.residual.0.weight"])
    for name in ("G.up.2.conv.weight", "G.quantiles", "G.to_image.weight", "D.residual.0.weight"):
        assert torch.equal(after[name], untouched[name]), name


def test_grey_images_keep_all_but_the_layers_that_touch_the_image(
    source: tuple[Path, TrainState],
) -> None:
    folder, old = source
    before = weights(old)
    after = weights(start_from(folder, noise(("cat", "dog"), channels=1)))
    differing = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    touching = {
        f"{network}.up.2.conv.{key}" for network in ("G", "ema") for key in ("weight", "bias")
    }
    assert differing == touching | {"D.first.weight"}


def test_gains_per_class_are_matched_by_name(tmp_path: Path) -> None:
    changes = {"model.generator_label": "cbn"}
    old = new_state(noise(("cat", "dog")), 0, **changes)
    old.save(tmp_path)
    new = start_from(tmp_path, noise(("ape", "cat")), **changes)
    cat, dog = old.generator.norms[0].gain
    assert torch.equal(new.generator.norms[0].gain, torch.stack([(cat + dog) / 2, cat]))


def test_a_damaged_state_is_named(
    source: tuple[Path, TrainState], caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = source
    older, newest = (folder / name for name in ("state-before.safetensors", "state.safetensors"))
    newest = newest if newest.exists() else next(folder.glob("state*.safetensors"))
    shutil.copy(newest, older)
    newest.write_bytes(newest.read_bytes()[:100])
    read_source(folder)
    assert "state.safetensors" in caplog.text
    assert "starting from the state before it" in caplog.text


def test_a_generator_file_brings_no_discriminator(source: tuple[Path, TrainState]) -> None:
    folder, old = source
    state = start_from(folder / "generator.safetensors", noise(("cat", "dog")))
    untouched = new_state(noise(("cat", "dog")), 1)
    for network in (state.generator, state.generator_ema):
        ema = old.generator_ema.state_dict()
        assert all(torch.equal(t, ema[name]) for name, t in network.state_dict().items())
    fresh = untouched.discriminator.state_dict()
    assert all(torch.equal(t, fresh[n]) for n, t in state.discriminator.state_dict().items())


def test_a_packaged_generator_of_an_old_format_fits(tmp_path: Path) -> None:
    found = read_source("mnist")
    config = make_config({**load_config("mnist").model_dump(), "warm_start": "mnist"})
    state = TrainState(Plan(config, noise(tuple("0123456789"), 28, 1), CPU))
    fitting = match(state.generator, found.networks["G"], 10)
    assert fitting.keys() == state.generator.state_dict().keys()


def test_an_embedding_with_another_number_of_rows_than_classes_does_not_fit(
    source: tuple[Path, TrainState],
) -> None:
    state = new_state(noise(("ape", "cat")), 1)
    tensors = dict(source[1].generator.state_dict())
    tensors["embed.embedding.weight"] = tensors["embed.embedding.weight"][:1]
    fitting = match(state.generator, tensors, 2)
    assert state.generator.state_dict().keys() - fitting.keys() == {"embed.embedding.weight"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.width": 16}, "model.width is 32 there and 16 here"),
        ({"model.latent_dim": 8}, "model.latent_dim is 64 there and 8 here"),
        ({"model.backbone": "mlp"}, "model.backbone is dcgan there and mlp here"),
        ({"model.conditional": False}, "model.conditional is True there and False here"),
        ({"model.generator_label": "cbn"}, "model.generator_label is concat there and cbn here"),
    ],
)
def test_networks_that_do_not_fit(
    source: tuple[Path, TrainState], changes: dict[str, object], sentence: str
) -> None:
    folder, _ = source
    state = new_state(noise(("cat", "dog")), 1, warm_start=str(folder), **changes)
    before = weights(state)
    with pytest.raises(ConfigError, match=sentence):
        warm_start(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(state).items())


def test_images_that_do_not_fit(source: tuple[Path, TrainState]) -> None:
    with pytest.raises(ConfigError, match="images are 32×32 there and 28×28 here"):
        start_from(source[0], noise(("cat", "dog"), side=28))


def test_training_starts_from_the_run_and_the_file_names_it(
    small_run: cgan.Run, tmp_path: Path
) -> None:
    """Two images are one step: all weights are still close to those of the source."""
    changes = {**SMALL, "images": 64, "lr": 1e-6}
    config = load_config("digits-mlp", {**changes, "warm_start": str(small_run.folder)})
    run = cgan.train(config, tmp_path / "new")
    assert run.images_seen == 64
    state = load_state(run.folder)[1]
    for name in ("G", "D"):
        old = select_tensors(load_state(small_run.folder)[1], name)
        for key, tensor in select_tensors(state, name).items():
            if "running" not in key:
                assert torch.allclose(tensor, old[key], atol=1e-5), key
    header = read_header(run.generator, "cgan-generator")
    assert header["config"]["warm_start"] == small_run.folder.name


def test_a_resumed_run_does_not_need_its_source(small_run: cgan.Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in small_run.folder.glob("*.safetensors"):
        (source / path.name).write_bytes(path.read_bytes())
    changes = {**SMALL, "images": 640, "warm_start": str(source)}
    config = load_config("digits-mlp", changes)
    cgan.train(config, tmp_path / "new")
    for path in source.iterdir():
        path.unlink()
    longer = load_config("digits-mlp", {**changes, "images": 1280})
    assert cgan.train(longer, tmp_path / "new", resume=True).images_seen == 1280
    with pytest.raises(FileError):
        cgan.train(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_shell_takes_the_networks_and_the_size_of_the_source(
    shell: Callable[..., Result], tmp_path: Path
) -> None:
    pets = make_pets(tmp_path / "pets")
    quick = ("--images", "32", "--device", "cpu", "--set", "control_per_class=0")
    first = shell("train", "--data", pets, "--size", 16, *quick, "--set", "model.width=8",
                  "--out", "first")  # fmt: skip
    assert first.exit_code == 0, first.output
    birds = make_pets(tmp_path / "birds", classes={"cat": 10, "owl": 90})
    second = shell("train", "--data", birds, "--from", "first", *quick, "--out", "second")
    assert second.exit_code == 0, second.output
    assert "warm start from first: 100 % of the generator's weights; 1 of 2" in second.output
    config = load_config(tmp_path / "second" / "config.yaml")
    assert (config.model.width, config.data.size) == (8, 16)
    grown = shell("train", "--data", birds, "--from", "first", "--size", 32, *quick,
                  "--out", "third")  # fmt: skip
    assert grown.exit_code == 0, grown.output
    assert load_config(tmp_path / "third" / "config.yaml").model.width == 4


def test_the_shell_says_what_is_wrong(shell: Callable[..., Result], tmp_path: Path) -> None:
    pets = make_pets(tmp_path / "pets")
    for source in ("nowhere", str(pets)):
        done = shell("train", "--data", pets, "--from", source)
        assert done.exit_code == 2
        assert source in done.output
    done = shell("train", "--data", pets, "--from", "mnist", "--size", "abc")
    assert done.exit_code == 2
    assert "data.size: a size is a side, or two like 64x48" in done.output
    assert not (tmp_path / "runs").exists()


def test_a_resnet_of_another_size_is_refused(tmp_path: Path) -> None:
    """Its blocks belong to resolutions, so the weights would get into the wrong ones."""
    resnet = {"model.backbone": "resnet", "model.width": 16, "model.generator_label": "concat"}
    (tmp_path / "source").mkdir()
    new_state(noise(("cat", "dog"), 16), 0, **resnet).save(tmp_path / "source")
    with pytest.raises(ConfigError, match="images are 16×16 there and 32×32 here"):
        start_from(tmp_path / "source", noise(("cat", "dog"), 32), **resnet)
