"""Files: what is not ours is named, everything comes back, and nothing else changes it."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cgan.errors import FileError
from cgan.storage.checkpoint import (
    LATENTS,
    STATE,
    Latents,
    new_header,
    open_checkpoint,
    read_header,
    save_tensors,
)

TENSORS = {"w": torch.arange(6.0).view(2, 3)}
HEADER = {
    "format": "cgan-generator",
    "format_version": 2,
    "config": {"name": "a", "model": {"latent_dim": 4, "conditional": True}},
    "classes": ["é", "b"],
    "image_shape": [1, 8, 8],
    "data": "digits",
    "images_seen": 0,
    "seconds": 0.5,
    "measured": {},
    "versions": {"cgan": "0.1.0"},
}


def read(path: Path) -> dict[str, object]:
    return read_header(path, "cgan-generator")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    with open_checkpoint(path, "cgan-generator") as file:
        return file.tensors()


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_tensors(path, TENSORS, HEADER)
    assert read(path) == HEADER
    assert torch.equal(read_tensors(path)["w"], TENSORS["w"])


def test_channels_last_tensors_keep_their_values(tmp_path: Path) -> None:
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    save_tensors(tmp_path / "g", {"w": tensor}, HEADER)
    assert torch.equal(read_tensors(tmp_path / "g")["w"], tensor)


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", TENSORS, HEADER)
    save_tensors(tmp_path / "b", TENSORS, dict(reversed(HEADER.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_not_ours_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(FileError, match="there is no file"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(FileError, match="is empty"):
        read(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FileError, match="is a pickle"):
        read(path)
    torch.save(TENSORS, path)
    with pytest.raises(FileError, match="is a pickle"):
        read(path)
    path.write_bytes(b"\x89PNG and then some more bytes")
    with pytest.raises(FileError, match="not a safetensors file"):
        read(path)
    save_file(TENSORS, path)
    with pytest.raises(FileError, match="another program"):
        read(path)
    save_tensors(path, TENSORS, {**HEADER, "format_version": "one"})
    with pytest.raises(FileError, match="another program"):
        read(path)
    save_file(TENSORS, path, metadata={"cgan": "[]"})
    with pytest.raises(FileError, match="invalid header: it is not a JSON object"):
        read(path)
    save_tensors(path, TENSORS, {"format": STATE, "format_version": 2})
    with pytest.raises(FileError, match="is a cgan-state file"):
        read(path)
    save_tensors(path, TENSORS, {**HEADER, "format_version": 3})
    with pytest.raises(FileError, match="upgrade cgan"):
        read(path)


def test_files_that_begin_like_a_pickle_are_read(tmp_path: Path) -> None:
    """The first bytes are the header's length, and any length may come."""
    path, begins = tmp_path / "g.safetensors", set()
    for length in range(256):
        save_tensors(path, TENSORS, {**HEADER, "note": "x" * length})
        begins.add(path.read_bytes()[0])
        assert read(path)["note"] == "x" * length
    assert 0x80 in begins


@pytest.mark.parametrize("keep", [3, 40, -1])
def test_torn_files_are_recognised(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_tensors(path, TENSORS, HEADER)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileError, match="damaged"):
        read(path)


def test_header_is_one_key_of_sorted_json(tmp_path: Path) -> None:
    save_tensors(tmp_path / "g", TENSORS, HEADER)
    raw = (tmp_path / "g").read_bytes()
    start = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert list(start) == ["cgan"]
    assert list(json.loads(start["cgan"])) == sorted(HEADER)


def test_tensors_do_not_change_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_tensors(path, TENSORS, HEADER)
    found = read_tensors(path)["w"]
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(found, TENSORS["w"])


def test_layout_is_known_before_the_tensors_are_read(tmp_path: Path) -> None:
    save_tensors(tmp_path / "g", {**TENSORS, "n": torch.tensor(3)}, HEADER)
    with open_checkpoint(tmp_path / "g", "cgan-generator") as file:
        assert file.layout() == {"w": ("F32", (2, 3)), "n": ("I64", ())}


def test_what_could_not_be_read_back_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(FileError, match=r"because 'caf\\udce9'… in its header is not valid"):
        save_tensors(path, TENSORS, {**HEADER, "classes": ["caf\udce9"]})
    monkeypatch.setattr("cgan.storage.checkpoint.MAX_HEADER_BYTES", 300)
    with pytest.raises(FileError, match=r"header would have \d{3} bytes and the limit is 300"):
        save_tensors(path, TENSORS, HEADER)
    assert list(tmp_path.iterdir()) == []


def test_latents_of_another_dtype(tmp_path: Path) -> None:
    header = {**new_header(LATENTS), "classes": ["a", "b"]}
    for dtype in (torch.float8_e4m3fn, torch.float64):
        save_tensors(tmp_path / "z", {"z": torch.zeros(2, 4).to(dtype)}, header)
        with pytest.raises(FileError, match="holds no latent vectors"):
            Latents.load(tmp_path / "z")
    save_tensors(tmp_path / "z", {"z": torch.zeros(2, 4)}, header)
    assert Latents.load(tmp_path / "z").z.shape == (2, 4)
