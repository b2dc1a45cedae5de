"""Generators of other code: what is accepted, what is refused, and what their files hold."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import Result

import cgan
from cgan.config import ModelConfig
from cgan.errors import CganError, ConfigError, FileError, MeasureError
from cgan.models import build_pair, steer_generator
from cgan.models.flow import OnnxGenerator
from cgan.runtime.cpu import open_session
from cgan.sampling.export import merge, to_onnx
from cgan.sampling.latents import draw_latents
from cgan.sampling.onnx import open_export
from cgan.sampling.wrap import load_plain
from cgan.storage.checkpoint import read_header, save_tensors
from cgan.storage.images import to_unit

Shell = Callable[..., Result]


def tutorial_dcgan() -> nn.Sequential:
    """z as a map of one pixel, as in PyTorch's tutorial."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose2d(12, 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1),
        nn.Tanh(),
    )


class Made(nn.Module):
    """A generator from a function of z."""

    def __init__(self, draw: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, z: Tensor) -> Any:
        return self.draw(z)


class TwoOutputs(nn.Module):
    """Images, and the z that they are drawn from."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tutorial_dcgan()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(z), 2 * z


def grey(values: Tensor) -> Tensor:
    """Values (B,) as images of one colour."""
    return values[:, None, None, None].expand(-1, 1, 8, 8)


def z(count: int = 4, latent_dim: int = 12) -> Tensor:
    return torch.from_numpy(draw_latents(range(count), latent_dim))


def test_a_map_and_a_vector() -> None:
    module = tutorial_dcgan().eval()
    plain = cgan.wrap(module, 12)
    assert (plain.image_shape, plain.latent_dim) == ((1, 8, 8), 12)
    assert torch.equal(plain.network(z()), module(z()[:, :, None, None]))
    assert plain.differentiable
    vector = nn.Sequential(nn.Linear(12, 3 * 64), nn.Unflatten(1, (3, 8, 8)), nn.Sigmoid())
    plain = cgan.wrap(vector, 12, value_range=(0, 1))
    assert plain.image_shape == (3, 8, 8)
    assert torch.allclose(plain.network(z()), 2 * vector(z()) - 1, atol=1e-6)


def test_batch_norm_in_training_mode_is_named_and_switched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = tutorial_dcgan()
    with caplog.at_level(logging.WARNING, logger="cgan"):
        cgan.wrap(module, 12)
    assert "batch norm was in training mode (1)" in caplog.text
    assert module[1].training  # a copy is switched


@pytest.mark.parametrize(
    ("module", "kind", "sentence"),
    [
        (nn.Linear(12, 12), ConfigError, "must return images"),
        (nn.Linear(5, 12), ConfigError, "cannot draw images from z"),
        (Made(lambda z: (grey(z[:, 0]), 1)), ConfigError, "it returns a tuple"),
        (Made(lambda z: grey(3 * z[:, 0])), ConfigError, "not from -1 to 1"),
        (Made(lambda z: grey((z - z.mean(0))[:, 0].tanh())), ConfigError, "depends on the others"),
        (Made(lambda z: grey(0 * z[:, 0])), MeasureError, "the same image for every z"),
        (Made(lambda z: grey(z[:, 0] * torch.nan)), MeasureError, "not finite"),
    ],
)
def test_refused(module: nn.Module, kind: type[CganError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        cgan.wrap(module, 12)


def test_the_callers_module_is_unchanged() -> None:
    module = tutorial_dcgan()
    plain = cgan.wrap(module, 12)
    assert all(weight.requires_grad for weight in module.parameters())
    assert plain.network.module is not module


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_module_that_cannot_be_copied() -> None:
    layer = torch.nn.utils.weight_norm(nn.Linear(12, 64))
    module = nn.Sequential(layer, nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    with pytest.raises(ConfigError, match="cannot be copied .* call remove_weight_norm"):
        cgan.wrap(module, 12)
    torch.nn.utils.remove_weight_norm(layer)
    assert cgan.wrap(module, 12).image_shape == (1, 8, 8)


def test_what_hides_its_gradient_gets_a_surrogate() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(12, 64)

        def forward(self, z: Tensor) -> Tensor:
            return self.layer(z.detach()).tanh().view(-1, 1, 8, 8)

    assert not cgan.wrap(Hidden(), 12).differentiable


def test_doubles_become_floats() -> None:
    module = nn.Sequential(nn.Linear(12, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    double = Made(lambda z: module(z).double())
    assert cgan.wrap(double, 12).network(z()).dtype == torch.float32


def test_refused_lengths_of_z() -> None:
    with pytest.raises(ConfigError, match="from 2 to 4,096, not 1"):
        cgan.wrap(tutorial_dcgan(), 1)


def write_onnx(path: Path, module: nn.Module, *inputs: Tensor) -> Path:
    names = ("z", "labels")[: len(inputs)]
    path.write_bytes(to_onnx(module.eval(), inputs, names).SerializeToString())
    return path


def test_an_onnx_file(tmp_path: Path) -> None:
    module = tutorial_dcgan().eval()
    path = write_onnx(tmp_path / "gan.onnx", module, torch.zeros(64, 12, 1, 1))
    plain = load_plain(path)
    assert (plain.image_shape, plain.latent_dim) == ((1, 8, 8), 12)
    assert not plain.differentiable
    assert plain.header["value_range"] == [-1, 1]
    assert torch.allclose(plain.network(z()), module(z()[:, :, None, None]), atol=1e-5)
    unit = nn.Sequential(nn.Linear(12, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    plain = load_plain(write_onnx(tmp_path / "unit.onnx", unit, torch.zeros(64, 12)))
    assert plain.header["value_range"] == [0, 1]
    assert torch.allclose(plain.network(z()), 2 * unit(z()) - 1, atol=1e-5)


def test_an_onnx_file_with_its_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``torch.onnx.export`` writes two files by default; what is stored holds both."""
    module = tutorial_dcgan().eval()
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    path = tmp_path / "there" / "gan.onnx"
    write_onnx(path, module, torch.zeros(64, 12, 1, 1))
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="gan.onnx.data",
        size_threshold=0,
    )  # fmt: skip
    whole = path.with_name("gan.onnx.data")
    assert path.stat().st_size < whole.stat().st_size
    monkeypatch.chdir(tmp_path / "here")
    plain = load_plain(path)
    wanted = module(z()[:, :, None, None])
    assert torch.allclose(plain.network(z()), wanted, atol=1e-5)
    assert plain.onnx is not None
    other = OnnxGenerator(plain.onnx)
    whole.unlink()
    assert torch.allclose(other(z()[:, :, None, None]), wanted, atol=1e-5)
    with pytest.raises(FileError, match="the weights of .* are in other files"):
        load_plain(path)


def test_a_session_takes_no_weights_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "gan.onnx", tutorial_dcgan(), torch.zeros(64, 12, 1, 1))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="x", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"[Ee]xternal"):
        open_session(path.read_bytes())


def test_numbers_of_numpy_and_of_torch() -> None:
    images = torch.tensor([-1.0, 1.0])
    plain = cgan.wrap(tutorial_dcgan().eval(), np.int64(12), (images.min(), np.float32(1)))  # type: ignore[arg-type]
    assert json.dumps(plain.header["value_range"]) == "[-1.0, 1.0]"
    for latent_dim, value_range in (("12", (-1, 1)), (12.0, (-1, 1)), (12, (1,)), (12, "ab")):
        with pytest.raises(ConfigError, match="a whole number, and value_range two numbers"):
            cgan.wrap(tutorial_dcgan(), latent_dim, value_range)  # type: ignore[arg-type]


def test_onnx_files_that_are_no_plain_generators(tmp_path: Path) -> None:
    conditional = build_pair("mlp", image_shape=(1, 8, 8), num_classes=3, latent_dim=12)[0]
    labels = torch.zeros(64, dtype=torch.int64)
    path = write_onnx(tmp_path / "two.onnx", conditional, torch.zeros(64, 12), labels)
    with pytest.raises(ConfigError, match="takes z .*labels .*but a generator without labels"):
        load_plain(path)
    fixed = onnx.load(write_onnx(tmp_path / "f.onnx", tutorial_dcgan(), torch.zeros(64, 12, 1, 1)))
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 64
    onnx.save(fixed, tmp_path / "fixed.onnx")
    with pytest.raises(ConfigError, match="always draws 64 images at once"):
        load_plain(tmp_path / "fixed.onnx")
    path = write_onnx(tmp_path / "both.onnx", TwoOutputs().eval(), torch.zeros(64, 12, 1, 1))
    with pytest.raises(ConfigError, match="returns .*, .*, but a generator returns images alone"):
        load_plain(path)
    (tmp_path / "noise.onnx").write_bytes(b"\x08\x07noise")
    with pytest.raises(FileError, match="onnxruntime cannot read"):
        load_plain(tmp_path / "noise.onnx")


@pytest.fixture(scope="module")
def foreign_run(
    trained_plain_run: cgan.Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[cgan.Run, Path]:
    """A GAN as an ONNX file, steered from forward passes alone."""
    folder = tmp_path_factory.mktemp("foreign")
    generator = cgan.load(trained_plain_run.folder).generator
    path = write_onnx(folder / "gan.onnx", generator, torch.zeros(64, 64))
    overrides = {
        "images": "6k", "model.backbone": "mlp", "model.width": 64, "control_per_class": 50,
    }  # fmt: skip
    run = cgan.steer(path, "digits", out=folder / "run", device="cpu", overrides=overrides)
    return run, path


def test_forward_passes_are_enough(foreign_run: tuple[cgan.Run, Path]) -> None:
    run, path = foreign_run
    assert run.control is not None
    assert run.control.accuracy > 0.5  # chance is 0.1
    sampler = cgan.load(run.folder)
    network: Any = sampler.generator
    assert network.surrogate is None
    content = network.generator.module.content.numpy().tobytes()
    assert content == path.read_bytes()
    images = sampler.sample("7", n=2, seed=5)
    assert images.shape == (2, 1, 8, 8)
    path.rename(path.with_suffix(".away"))  # the file of the steered generator is complete
    assert torch.equal(images, cgan.load(run.folder).sample("7", n=2, seed=5))
    path.with_suffix(".away").rename(path)


def test_an_export_is_the_network_with_its_flow(
    foreign_run: tuple[cgan.Run, Path], shell: Shell
) -> None:
    run = foreign_run[0]
    done = shell("export", run.folder)
    assert done.exit_code == 0, done.output
    exported = open_export(run.generator)
    assert exported is not None
    wanted = cgan.load(run.folder).sample("7", n=3, seed=2).numpy()
    assert np.allclose(exported.sample("7", n=3, seed=2), wanted, atol=1e-5)
    run.generator.with_suffix(".onnx").unlink()


def test_a_map_and_a_range_are_exported_too(tmp_path: Path) -> None:
    unit = nn.Sequential(tutorial_dcgan()[:-1], nn.Sigmoid()).eval()
    plain = load_plain(write_onnx(tmp_path / "u.onnx", unit, torch.zeros(64, 12, 1, 1)))
    assert plain.header["latent_map"]
    assert plain.header["value_range"] == [0, 1]
    model = ModelConfig(latent_dim=12, flow_width=8)
    steered = steer_generator(plain.network, model, 3, kl_weight=0.0).eval()
    session = open_session(merge(steered, 12, (1, 8, 8), 3).SerializeToString())
    labels = torch.tensor([0, 2, 1, 1])
    (drawn,) = session.run(None, {"z": z().numpy(), "labels": labels.numpy()})
    wanted = to_unit(steered(z(), labels)).detach().numpy()
    assert np.allclose(drawn, wanted, atol=1e-5)
    numbers = np.array([0, 3, 1, -1])
    (partly,) = session.run(None, {"z": z().numpy(), "labels": numbers})
    assert np.isnan(partly[[1, 3]]).all()  # these labels are no classes
    assert np.array_equal(partly[0], drawn[0])
    with pytest.raises(ConfigError, match="cannot be merged with its flow"):
        merge(steered, 12, (1, 8, 8), 3, opset=1)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"model": "nothing"}, FileError),
        ({"onnx_bytes": 5}, FileError),
        ({"value_range": [1, 0]}, FileError),
        ({"latent_map": True}, CganError),
        ({"model": {"conditional": True}}, FileError),
        ({"model": {"conditional": False, "latent_dim": 3}}, FileError),
    ],
)
def test_hostile_headers_are_one_sentence(
    changes: dict[str, Any],
    kind: type[CganError],
    foreign_run: tuple[cgan.Run, Path],
    tmp_path: Path,
) -> None:
    tensors = load_file(foreign_run[0].generator)
    header = read_header(foreign_run[0].generator, "cgan-generator")
    save_tensors(
        tmp_path / "g.safetensors", tensors, {**header, "steered": {**header["steered"], **changes}}
    )
    with pytest.raises(kind):
        cgan.load(tmp_path / "g.safetensors").sample("7")


def test_a_hostile_network_is_one_sentence(
    foreign_run: tuple[cgan.Run, Path], tmp_path: Path
) -> None:
    tensors = load_file(foreign_run[0].generator)
    header = read_header(foreign_run[0].generator, "cgan-generator")
    name = "generator.module.content"
    save_tensors(tmp_path / "a.safetensors", {**tensors, name: tensors[name].flip(0)}, header)
    with pytest.raises(FileError, match="onnxruntime cannot read the network"):
        cgan.load(tmp_path / "a.safetensors").sample("7")
    header = {**header, "image_shape": [1, 12, 12]}
    save_tensors(tmp_path / "b.safetensors", tensors, header)
    with pytest.raises(FileError, match="not images of its file"):
        cgan.load(tmp_path / "b.safetensors").sample("7")


def test_the_shell_needs_data_for_an_onnx_file(
    foreign_run: tuple[cgan.Run, Path], shell: Shell
) -> None:
    done = shell("steer", foreign_run[1])
    assert done.exit_code == 2
    assert "give labelled images with --data" in " ".join(done.output.split())


def test_a_class_that_is_never_drawn() -> None:
    one = cgan.load_pictures("digits").take(torch.tensor([0])).float()[0] / 127.5 - 1

    class Zeros(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return (one + 0.01 * z[:, :1, None, None]).clamp(-1, 1)

    with pytest.raises(MeasureError, match=r"the generator drew .* 0 times in 5,000 images"):
        cgan.steer(cgan.wrap(Zeros(), 12), "digits", device="cpu")
