"""An export draws the same pictures without torch, and a stale or broken one is never used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from typer.testing import Result

import cgan
from cgan.errors import ConfigError, FileError, RunError, UnknownNameError
from cgan.models import build_networks
from cgan.sampling.export import export
from cgan.sampling.onnx import OnnxSampler, open_export, split_metadata
from cgan.sampling.request import Request
from cgan.storage.checkpoint import read_header, save_tensors
from cgan.storage.images import to_pixels
from cgan.storage.paths import GENERATOR_FILE, PACKAGED
from cgan.storage.safe_reading import MAX_EXPORT_EXTRA
from tests.conftest import open_image

Shell = Callable[..., Result]


def write_generator(
    folder: Path, backbone: str, label: str, conditional: bool, side: int = 8, **model: int | str
) -> Path:
    """A generator of random weights, large enough that its pictures are no uniform grey."""
    torch.manual_seed(0)
    choices = {"backbone": backbone, "generator_label": label, "conditional": conditional, **model}
    config = cgan.load_config("digits-mlp", {f"model.{key}": v for key, v in choices.items()})
    generator = build_networks(config.model, (1, side, side), 10).generator
    for weight in generator.parameters():
        torch.nn.init.normal_(weight, 0.0, 0.3)
    for _ in range(3):  # so that batch norm has seen something
        generator(
            torch.randn(64, config.model.latent_dim), torch.arange(64) % 10 if conditional else None
        )
    header = {
        "format": "cgan-generator",
        "format_version": 2,
        "config": config.model_dump(mode="json"),
        "classes": list("0123456789"),
        "image_shape": [1, side, side],
        "data": "digits",
        "images_seen": 0,
        "seconds": 0,
        "measured": {},
        "versions": {},
    }
    path = folder / GENERATOR_FILE
    save_tensors(path, generator.state_dict(), header)
    return path


def copy_packaged(folder: Path) -> Path:
    return Path(shutil.copytree(PACKAGED / "mnist", folder / "mnist")) / GENERATOR_FILE


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator in the package, elsewhere, with its export beside it."""
    generator = copy_packaged(tmp_path_factory.mktemp("exported"))
    assert export(generator) == generator.with_name("generator.onnx")
    return generator


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(exported.parent, tmp_path / "own")) / GENERATOR_FILE


def levels_apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def same_pictures(generator: Path, labels: str | None) -> None:
    wanted = to_pixels(cgan.load(generator).sample(labels, n=20, seed=2**40)).numpy()
    quick = open_export(generator)
    assert quick is not None
    found = to_pixels(quick.sample(labels, n=20, seed=2**40))
    assert levels_apart(wanted, found) <= 1
    assert wanted.std() > 15


def test_the_packaged_generator_draws_the_same(exported: Path) -> None:
    same_pictures(exported, None)
    same_pictures(exported, "7")


@pytest.mark.parametrize(
    ("backbone", "label", "conditional", "model"),
    [
        ("mlp", "concat", True, {}),
        ("mlp", "concat", False, {}),
        ("dcgan", "cbn", True, {}),
        ("dcgan", "concat", False, {"last_layer": "resize"}),
        ("resnet", "concat", True, {"width": 8}),
        ("photo", "concat", True, {"width": 8, "mirror": True}),
    ],
)
def test_every_kind_draws_the_same(
    backbone: str,
    label: str,
    conditional: bool,
    model: dict[str, int | str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    generator = write_generator(tmp_path, backbone, label, conditional, **model)
    export(generator)
    assert capfd.readouterr().out == ""
    same_pictures(generator, None)


def count_batches(batches: Callable[..., Any], sizes: list[int]) -> Callable[..., Iterator[Any]]:
    def counting(self: OnnxSampler, request: Request) -> Iterator[Any]:
        for images, labels in batches(self, request):
            sizes.append(len(images))
            yield images, labels

    return counting


def test_large_pictures_are_drawn_in_smaller_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(OnnxSampler, "batches", count_batches(OnnxSampler.batches, sizes))
    generator = write_generator(tmp_path, "dcgan", "concat", True, side=128, width=1, latent_dim=4)
    export(generator)
    assert sizes == [16] * 4  # 64 images are compared with torch's
    quick = open_export(generator)
    assert quick is not None
    drawn = quick.sample("7", n=20)
    assert sizes[4:] == [16, 4]
    assert np.abs(drawn - cgan.load(generator).sample("7", n=20).numpy()).max() < 1e-4
    np.testing.assert_array_equal(quick.sample("7", 1, seed=19)[0], drawn[19])


def test_it_is_asked_as_a_sampler_is(exported: Path) -> None:
    quick = open_export(exported)
    assert quick is not None
    sampler = cgan.load(exported)
    assert (quick.name, quick.classes, quick.header) == (
        sampler.name, sampler.classes, sampler.header,
    )  # fmt: skip
    pictures = quick.sample(["3", "7"], n=70)
    assert (pictures.shape, pictures.dtype) == ((140, 1, 28, 28), np.float32)
    np.testing.assert_array_equal(quick.sample(7, 1, seed=69)[0], pictures[139])
    np.testing.assert_array_equal(quick.sample(torch.tensor([7]), seed=1)[0], pictures[71])
    np.testing.assert_array_equal(quick.sample(np.array([3]))[0], pictures[0])
    with pytest.raises(UnknownNameError):
        quick.sample("seven")


def test_the_file_says_what_it_is_and_nothing_of_this_machine(exported: Path) -> None:
    model = onnx.load(exported.with_suffix(".onnx"))
    onnx.checker.check_model(model)
    (about,) = model.metadata_props
    told = json.loads(about.value)
    assert about.key == "cgan"
    assert (told["format"], told["format_version"]) == ("cgan-onnx", 2)
    assert told["sha256"] == sha256(exported.read_bytes()).hexdigest()
    network = onnx.load(exported.with_suffix(".onnx"))
    del network.metadata_props[:]
    assert told["network_sha256"] == sha256(network.SerializeToString()).hexdigest()
    assert told["generator"] == cgan.load(exported).header
    assert about.value == json.dumps(told, sort_keys=True, ensure_ascii=False)
    assert str(Path(cgan.__file__).parent).encode() not in model.SerializeToString()


DRAW = """
import sys
from cgan.cli import main
sys.argv = ["cgan", "generate", sys.argv[1], "--digit", "7", "-n", "70", "--out", sys.argv[2]]
try:
    main()
finally:
    print(*sys.modules)
"""


def test_generate_does_not_import_torch(exported: Path, tmp_path: Path, shell: Shell) -> None:
    words = (sys.executable, "-c", DRAW, str(exported), str(tmp_path / "quick.png"))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    path, modules = done.stdout.splitlines()
    assert path == str(tmp_path / "quick.png")
    assert done.stderr.count("\n") == 1
    assert "99." in done.stderr
    loaded = {module.split(".")[0] for module in modules.split()}
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "torchvision", "safetensors", "yaml", "scipy", "sklearn", "onnx"}
    assert "cgan.config" not in modules.split()

    exported_elsewhere = copy_packaged(tmp_path)
    slow = shell("generate", exported_elsewhere, "--digit", 7, "-n", 70, "--out", "slow.png")
    assert slow.exit_code == 0, slow.output
    one, other = (np.array(open_image(tmp_path / name)) for name in ("quick.png", "slow.png"))
    assert levels_apart(one, other) <= 1


def draws_with_torch(shell: Shell, generator: Path, *words: str) -> None:
    """``generate`` says these words in one warning, none without words, and draws as ever."""
    result = shell("generate", generator, "--digit", 7, "-n", 4, "--out", "a.png")
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert len(warnings) == bool(words), result.stderr
    for word in words:
        assert word in warnings[0]
    assert open_export(generator) is None
    generator.with_suffix(".onnx").unlink()
    shell("generate", generator, "--digit", 7, "-n", 4, "--out", "b.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_a_stale_export_is_not_used(own: Path, shell: Shell) -> None:
    assert open_export(own) is not None
    header = read_header(own, "cgan-generator")
    measured = {**header["measured"], "control_accuracy": 0.5}
    save_tensors(own, load_file(own), {**header, "measured": measured})
    draws_with_torch(shell, own, "generator.onnx does not match", f"run cgan export {own}")


def test_without_onnxruntime(own: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    draws_with_torch(shell, own)


def rewrite(path: Path, network: bytes | None = None, **changes: object) -> None:
    """Change an export so that its hash of the network is right."""
    model = onnx.load(path)
    about = json.loads(model.metadata_props[0].value)
    del model.metadata_props[:]
    network = model.SerializeToString() if network is None else network
    about |= {"network_sha256": sha256(network).hexdigest(), **changes}
    path.write_bytes(network + metadata(cgan=json.dumps(about)))


def metadata(**entries: str) -> bytes:
    model = onnx.ModelProto()
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString())


def with_one_bit_changed(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("torn", "is damaged, or was not written by this version"),
        ("empty", "is damaged, or was not written by this version"),
        ("foreign", "is damaged, or was not written by this version"),
        ("more metadata", "is damaged, or was not written by this version"),
        ("older", "is damaged, or was not written by this version"),
        ("newer", "is damaged, or was not written by this version"),
        ("other", "is damaged, or was not written by this version"),
        ("deep", "is damaged, or was not written by this version"),
        ("no header", "is damaged, or was not written by this version"),
        ("one bit", "is damaged:"),
        ("more weights", "is damaged:"),
        ("no hash", "does not match generator.safetensors"),
        (
            "bad header",
            "has an invalid header (classes is not a list of 1 to 65,536 different names",
        ),
        ("large", "is larger than"),
        ("folder", "is not a file"),
    ],
)
def test_what_is_no_export_never_reaches_onnxruntime(
    kind: str, word: str, own: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refuse(*_: object) -> None:
        raise AssertionError("onnxruntime was asked")

    monkeypatch.setattr("cgan.sampling.onnx.open_session", refuse)
    path = own.with_suffix(".onnx")
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    told = json.loads(model.metadata_props[0].value)
    model.ClearField("metadata_props")
    network = model.SerializeToString()
    deep = metadata(cgan="[" * 100_000)
    path.write_bytes(
        {
            "torn": content[: len(content) // 2],
            "empty": b"",
            "foreign": network,
            "more metadata": content + metadata(other="x"),
            "deep": network + deep,
            "one bit": with_one_bit_changed(content),
            "more weights": content + onnx.ModelProto(graph=model.graph).SerializeToString(),
        }.get(kind, content)
    )
    changes: dict[str, dict[str, object]] = {
        "older": {"format_version": 1},
        "newer": {"format_version": 3},
        "other": {"format": ["cgan-onnx"]},
        "no header": {"generator": []},
        "no hash": {"sha256": None},
        "bad header": {"generator": {**told["generator"], "classes": []}},
    }
    if kind in changes:
        rewrite(path, **changes[kind])
    if kind == "large":
        os.truncate(path, own.stat().st_size + MAX_EXPORT_EXTRA + 1)
    if kind == "folder":
        path.unlink()
        path.mkdir()
    assert open_export(own) is None
    (record,) = caplog.records
    assert word in record.getMessage()
    assert record.getMessage().endswith(f": using torch; run cgan export {own}")


def test_torn_exports_draw_with_torch(own: Path, shell: Shell) -> None:
    path = own.with_suffix(".onnx")
    path.write_bytes(path.read_bytes()[:-1])
    draws_with_torch(shell, own, "is damaged", f"run cgan export {own}")


def test_every_cut_and_every_changed_byte_is_noticed(exported: Path) -> None:
    content = exported.with_suffix(".onnx").read_bytes()
    _, digest = split_metadata(content)
    cut = range(0, len(content), len(content) // 50)
    assert all(raises(content[:length]) for length in cut)
    for at in (0, 1, 30, len(content) // 3):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert raises(changed) or split_metadata(changed)[1] != digest


def raises(content: bytes) -> bool:
    try:
        split_metadata(content)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 11,  # a number without an end
        b"\x72\xff\xff\xff\xff\x7f",  # longer than the file
        b"\x72",
        b"\x73",  # an unknown wire type
        b"\x0d\x00\x00\x00",  # three of four bytes
        b"\x09\x00",  # one of eight bytes
        b"\x72\x02\x0a\x05",  # an entry whose key is longer than the entry
        b"",
    ],
)
def test_what_is_no_protobuf_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"protobuf|metadata"):
        split_metadata(content)


def test_fields_of_all_kinds_are_skipped() -> None:
    others = b"\x08\x96\x01" + b"\x15abcd" + b"\x19abcdefgh" + b"\x22\x03abc"
    text, digest = split_metadata(others[:3] + metadata(cgan="é") + others[3:])
    assert text.decode() == "é"
    assert digest == sha256(others).hexdigest()


def test_a_forged_network_is_one_sentence(own: Path, shell: Shell) -> None:
    path = own.with_suffix(".onnx")
    content = path.read_bytes()
    rewrite(path, network=b"\x08\x0a")
    drawn = shell("generate", own, "--digit", 7, "-n", 4, "--out", "a.png")
    assert drawn.exit_code == 0, drawn.output
    assert "onnxruntime cannot read" in drawn.stderr
    path.write_bytes(content)
    rewrite(path, generator={**cgan.load(own).header, "image_shape": [1, 8, 8]})
    refused = shell("generate", own, "--digit", 7, "-n", 4, "--out", "b.png")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "onnxruntime failed to run" in refused.stderr
    assert "images of the shape [64, 1, 28, 28]" in refused.stderr
    assert not Path("b.png").exists()


def test_verified_pictures_need_torch(own: Path, shell: Shell) -> None:
    result = shell("generate", own, "--digit", 7, "-n", 4, "--verify", "--out", "v.png")
    assert result.exit_code == 0, result.output
    assert " accepted 4 of" in result.stderr


def test_the_command(own: Path, shell: Shell, tmp_path: Path) -> None:
    own.with_suffix(".onnx").unlink()
    beside = shell("export", own.parent, "--onnx")
    assert beside.exit_code == 0, beside.output
    assert beside.stdout == f"{own.with_suffix('.onnx')}\n"
    assert isinstance(open_export(own), OnnxSampler)
    refused = shell("export", own, "--out", "x.pt")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert ".onnx" in refused.stderr
    assert "no run or generator file none" in shell("export", "none").stderr


def test_what_draws_otherwise_is_not_written(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new" / "g.onnx"
    monkeypatch.setattr("cgan.sampling.export.to_unit", lambda signed: signed.add(1).div(2.01))
    with pytest.raises(RunError, match="its images differ"):
        export(own, target)
    assert not target.parent.exists()


def test_what_is_missing_is_said(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match="no run or generator file"):
        export(own.with_name("none"))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"needs onnxscript: pip install 'cgan\[onnx\]'"):
        export(own)
