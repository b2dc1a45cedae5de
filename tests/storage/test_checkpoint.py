"""Files: what is not ours is named, what is torn is passed over, everything comes back."""

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cgan.errors import FileError
from cgan.storage.checkpoint import (
    STATE,
    load_state,
    pack_state,
    read_header,
    read_tensors,
    save_state,
    save_tensors,
    unpack_state,
)
from cgan.storage.paths import STATE_FILES

TENSORS = {"w": torch.arange(6.0).view(2, 3)}
CPU = torch.device("cpu")
HEADER = {"format": "cgan-generator", "format_version": 1, "classes": ["é", "b"]}


def read(path: Path) -> dict[str, object]:
    return read_header(path, "cgan-generator")


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
    with pytest.raises(FileError, match="another program"):
        read(path)
    save_tensors(path, TENSORS, {"format": STATE, "format_version": 1})
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


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 1))
    network.to(memory_format=torch.channels_last)
    return network, torch.optim.Adam(network.parameters(), 1e-2, (0.0, 0.99), fused=True)


def learn(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()


def test_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, optimizer = make()
    learn(network, optimizer, 3)
    save_state(tmp_path, pack_state({"net": network}, {"opt": optimizer}, CPU), {"steps": 3})
    learn(network, optimizer, 3)

    again, its_optimizer = make()
    path, tensors, header, problems = load_state(tmp_path)
    unpack_state(tensors, {"net": again}, {"opt": its_optimizer}, CPU, path)
    learn(again, its_optimizer, 3)
    assert header["steps"] == 3
    assert problems == []
    for (name, one), two in zip(
        network.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


def test_two_states_are_kept_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, {"x": torch.tensor(step)}, {"steps": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(STATE_FILES)
    assert load_state(tmp_path)[2]["steps"] == 3
    last = tmp_path / STATE_FILES[0]
    last.write_bytes(last.read_bytes()[:-2])
    path, tensors, header, problems = load_state(tmp_path)
    assert (path.name, header["steps"], tensors["x"].item()) == (STATE_FILES[1], 2, 2)
    assert len(problems) == 1
    assert "damaged" in problems[0]
    path.write_bytes(b"")
    with pytest.raises(FileError, match=r"nothing to resume from.*damaged.*empty"):
        load_state(tmp_path)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_keeps_a_state(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state is written, then the last one becomes the one before it, then it the last one."""
    save_state(tmp_path, {"x": torch.tensor(1)}, {"steps": 1})
    real, renamed = os.replace, []

    def replace(old: str, new: str) -> None:
        renamed.append(new)
        if len(renamed) > failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(FileError, match=r"cannot write .*state.*safetensors"):
        save_state(tmp_path, {"x": torch.tensor(2)}, {"steps": 2})
    assert load_state(tmp_path)[2]["steps"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_header_is_one_key_of_sorted_json(tmp_path: Path) -> None:
    save_tensors(tmp_path / "g", TENSORS, HEADER)
    raw = (tmp_path / "g").read_bytes()
    start = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert list(start) == ["cgan"]
    assert list(json.loads(start["cgan"])) == sorted(HEADER)
