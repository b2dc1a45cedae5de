"""Exports in other programs: labels that are no classes, opsets, and what an export is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import Result

import cgan
from cgan.errors import ConfigError, FileError, UnknownNameError
from cgan.runtime.cpu import open_session
from cgan.sampling.export import EXAMPLE_BATCH, OPSETS, export, to_onnx
from cgan.sampling.onnx import INPUTS, OnnxSampler, open_export
from cgan.sampling.request import Request
from cgan.storage.images import to_unit
from tests.sampling.test_export import write_generator

Shell = Callable[..., Result]
NUMBERS = (0, -1, 9, 10, 3, -10, 2**32 + 3, 2**63 - 1, -(2**63))
"""Labels, of which the classes are 0, 9 and 3."""


class Unguarded(nn.Module):
    """The generator as it would be exported without a look at its labels."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return to_unit(self.generator(z, labels))


def draw(content: bytes, z: Tensor, labels: Tensor) -> NDArray[np.float32]:
    (images,) = open_session(content).run(None, {"z": z.numpy(), "labels": labels.numpy()})
    return np.asarray(images, np.float32)


@pytest.mark.parametrize(
    ("backbone", "label", "model"),
    [
        ("mlp", "concat", {}),
        pytest.param("dcgan", "cbn", {}, marks=pytest.mark.slow),
        pytest.param("resnet", "concat", {"width": 8}, marks=pytest.mark.slow),
        ("photo", "concat", {"width": 8}),
    ],
)
def test_only_labels_that_are_no_classes_are_nan(
    backbone: str, label: str, model: dict[str, int], tmp_path: Path
) -> None:
    source = write_generator(tmp_path, backbone, label, True, **model)
    guarded = export(source).read_bytes()
    generator = cgan.load(source).generator
    inputs = torch.zeros(EXAMPLE_BATCH, 64), torch.zeros(EXAMPLE_BATCH, dtype=torch.int64)
    before = to_onnx(Unguarded(generator).eval(), inputs, INPUTS).SerializeToString()
    for size in (1, 7, 64):
        z, labels = torch.randn(size, 64), torch.arange(size) % 10
        wanted = draw(before, z, labels)
        assert np.isfinite(wanted).all()
        assert draw(guarded, z, labels).tobytes() == wanted.tobytes()
    z, labels = torch.randn(len(NUMBERS), 64), torch.tensor(NUMBERS)
    drawn = draw(guarded, z, labels)
    assert drawn.shape == (9, 1, 8, 8)
    nan = np.isnan(drawn).mean((1, 2, 3)).tolist()
    assert nan == [0, 1, 0, 1, 0, 1, 1, 1, 1]
    known = draw(before, z, labels.where((labels >= 0) & (labels < 10), 0))
    assert np.array_equal(drawn[[0, 2, 4]], known[[0, 2, 4]])
    with pytest.raises(IndexError):  # the network itself is the same as before
        generator(z, labels)


def test_the_sampler_draws_no_label_that_is_no_class(tmp_path: Path) -> None:
    source = write_generator(tmp_path, "mlp", "concat", True)
    export(source)
    sampler = open_export(source)
    assert sampler is not None
    for wrong in (-1, 10):
        with pytest.raises(UnknownNameError, match=f"no class number '{wrong}'"):
            next(sampler.batches(Request((3, wrong), (0, 1))))
    images, labels = next(sampler.batches(Request((3, 9), (0, 1))))
    assert np.isfinite(images).all()
    assert labels is not None
    assert labels.tolist() == [3, 9]


def opset_of(path: Path) -> int:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (version,) = [one.version for one in model.opset_import if not one.domain]
    return int(version)


def attributes(path: Path) -> set[str]:
    return {one.name for node in onnx.load(path).graph.node for one in node.attribute}


@pytest.mark.parametrize(
    "opset",
    [
        pytest.param(one, marks=() if one in (17, 18, 20, 23) else pytest.mark.slow)
        for one in range(17, 24)
    ],
)
def test_every_opset_draws_the_same(opset: int, tmp_path: Path) -> None:
    source = write_generator(tmp_path, "mlp", "cbn", True, width=8)
    path = export(source, opset=opset)
    assert opset_of(path) == opset
    assert "allowzero" not in attributes(path)
    z, labels = torch.randn(20, 64), torch.arange(20) % 10
    wanted = cgan.load(source).generate(z, labels).numpy()
    assert np.abs(draw(path.read_bytes(), z, labels) - wanted).max() < 1e-5


def test_other_opsets_are_refused(tmp_path: Path) -> None:
    source = write_generator(tmp_path, "mlp", "concat", True, width=8)
    assert list(OPSETS) == list(range(17, 24))
    for opset in (16, 24):
        with pytest.raises(ConfigError, match=f"an opset from 17 to 23, not {opset}$"):
            export(source, opset=opset)
    assert not source.with_suffix(".onnx").exists()
    assert opset_of(export(source)) == 20


def test_a_reshape_to_zero_rows_keeps_its_attribute() -> None:
    class Empty(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z[:, :0].reshape(0, 4)

    model = to_onnx(Empty().eval(), (torch.zeros(8, 4),), ("z",))
    session = open_session(model.SerializeToString())
    (found,) = session.run(None, {"z": np.zeros((3, 4), np.float32)})
    assert found.shape == (0, 4)


@pytest.mark.parametrize("backbone", ["mlp", "dcgan"])
def test_onnx2torch_reads_opset_17(backbone: str, tmp_path: Path) -> None:
    onnx2torch: Any = pytest.importorskip("onnx2torch")
    source = write_generator(tmp_path, backbone, "cbn", True)
    network = onnx2torch.convert(str(export(source, opset=17))).eval()
    z, labels = torch.randn(20, 64), torch.arange(20) % 10
    wanted = cgan.load(source).generate(z, labels)
    with torch.no_grad():
        found = network(z, labels)
        assert (found - wanted).abs().max() <= 1e-5
        assert found.std() > 0.05
        nan = network(z[:3], torch.tensor([-1, 10, 3])).isnan().float().mean((1, 2, 3))
    assert nan.tolist() == [1, 1, 0]


def test_the_opset_in_the_shell(tmp_path: Path, shell: Shell) -> None:
    source = write_generator(tmp_path, "mlp", "concat", True, width=8)
    done = shell("export", source, "--opset", 17, "--out", "17.onnx")
    assert (done.exit_code, done.stdout) == (0, "17.onnx\n")
    assert opset_of(Path("17.onnx")) == 17
    refused = shell("export", source, "--opset", 12)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == "cgan: an export has an opset from 17 to 23, not 12\n"


def test_an_operator_that_opset_17_lacks(
    tmp_path: Path, shell: Shell, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_generator(tmp_path, "resnet", "concat", True, width=8)
    refused = shell("export", source, "--opset", 17)
    assert (refused.exit_code, refused.stdout) == (2, "")
    sentence = f"torch cannot write {source} with opset 17: choose opset 18"
    assert refused.stderr == f"cgan: {sentence}\n"
    assert capfd.readouterr() == ("", "")  # the converter logs a traceback otherwise
    assert not source.with_suffix(".onnx").exists()
    assert opset_of(export(source, opset=18)) == 18


def test_an_onnxruntime_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: bytes) -> None:
        raise RuntimeError("ONNX Runtime only *guarantees* support for opset 21")

    monkeypatch.setattr("cgan.sampling.export.open_session", refuse)
    source = write_generator(tmp_path, "mlp", "concat", False, width=8)
    with pytest.raises(ConfigError, match=r"with opset 23 \(ONNX Runtime only .* a lower opset$"):
        export(source, opset=23)
    assert not source.with_suffix(".onnx").exists()


def test_an_export_is_no_generator_file(tmp_path: Path, shell: Shell) -> None:
    source = write_generator(tmp_path, "mlp", "concat", True, width=8)
    path = export(source)
    assert isinstance(open_export(source), OnnxSampler)
    sentence = (
        f"{path} is an export for other programs: give {source}, which is beside it, or its folder "
        f"{tmp_path}"
    )
    refused = shell("generate", path, "--digit", 7)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == f"cgan: {sentence}\n"
    for command in ("info", "evaluate", "export"):
        assert shell(command, path).stderr == f"cgan: {sentence}\n"
    with pytest.raises(FileError) as raised:
        cgan.load(path)
    assert str(raised.value) == sentence
    source.rename(tmp_path / "own.safetensors")
    path.rename(tmp_path / "own.onnx")
    with pytest.raises(FileError, match=r"give \S+own\.safetensors, which is beside it$"):
        cgan.load(tmp_path / "own.onnx")


def test_an_onnx_file_without_its_generator(tmp_path: Path, shell: Shell) -> None:
    Path("pets.onnx").write_bytes(b"\x08\x07")
    sentence = (
        "pets.onnx is an ONNX network, which is for other programs: give a generator file or a run "
        "folder, or draw from the network with onnxruntime (docs/python.md)"
    )
    refused = shell("generate", "pets.onnx")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == f"cgan: {sentence}\n"
    with pytest.raises(FileError) as raised:
        cgan.load("pets.onnx")
    assert str(raised.value) == sentence
    assert "there is no run or generator file none.onnx" in shell("generate", "none.onnx").stderr
