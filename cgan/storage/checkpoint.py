"""safetensors files with a JSON header: the generator, the judge, and the state of a run.

Each file has one metadata key, ``cgan``, that holds sorted JSON. Nothing is pickled. Writes are
atomic, and the previous state is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cgan.errors import FileError
from cgan.storage.atomic import rename, write_atomically
from cgan.storage.paths import STATE_FILES

GENERATOR = "cgan-generator"
STATE = "cgan-state"
JUDGE = "cgan-judge"
FORMAT_VERSIONS = {GENERATOR: 2, STATE: 2, JUDGE: 1}
"""The version of each format that this package writes; it reads all versions up to that."""

RENAMED_MODULES = {"entrance": "embed", "raises": "up", "halves": "down"}
"""Module names in files of format version 1, and their names in version 2."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header (any JSON) as one safetensors file, atomically.

    Raises:
        FileError: the file cannot be written; an existing file is unchanged.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomically(path, save(plain, metadata={"cgan": text}))


def read_header(path: Path, format: str) -> dict[str, Any]:
    """Read the header of a file of the given format.

    Raises:
        FileError: the file is missing, empty, damaged, a pickle, of another program, of another
            format or of a newer version; the message says which.
    """
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise FileError(_explain_unreadable(path, error)) from error
    try:
        header = json.loads(metadata["cgan"])
        found, version = header["format"], int(header["format_version"])
    except (KeyError, ValueError, TypeError):
        raise FileError(f"{path} was written by another program, not by cgan") from None
    if found != format:
        raise FileError(f"{path} is a {found} file, not a {format} file")
    if version > FORMAT_VERSIONS[format]:
        raise FileError(
            f"{path} has format version {version} and this cgan knows up to "
            f"{FORMAT_VERSIONS[format]}: upgrade cgan"
        )
    return cast("dict[str, Any]", header)


def new_header(format: str) -> dict[str, Any]:
    """The first two keys of every header."""
    return {"format": format, "format_version": FORMAT_VERSIONS[format]}


def _explain_unreadable(path: Path, error: Exception) -> str:
    """Explain why a file cannot be read as safetensors."""
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as reason:
        return f"{path} cannot be read: {reason.strerror}"
    if not start:
        return f"{path} is empty"
    if start == b"PK\x03\x04" or (start[0] == 0x80 and start[1] <= 5):
        return f"{path} is a pickle, which can run any code when loaded: cgan never loads one"
    return f"{path} is damaged or is not a safetensors file ({error})"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        FileError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise FileError(f"{path} is damaged ({error})") from error


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a network; raises ``FileError`` if they do not fit."""
    known = network.state_dict().keys()
    renamed = {}
    for key, tensor in tensors.items():
        module, dot, rest = key.partition(".")
        new = RENAMED_MODULES.get(module, module) + dot + rest
        renamed[key if key in known else new] = tensor
    try:
        network.load_state_dict(renamed)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FileError(f"{path} does not fit the networks of its config: {reason}") from error


def pack_state(
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    device: torch.device,
) -> dict[str, Tensor]:
    """Weights, buffers, optimiser moments and torch's random state as one flat dict."""
    tensors = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    for name, network in networks.items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in moments.items()}
    return tensors


def unpack_state(
    tensors: Mapping[str, Tensor],
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    device: torch.device,
    path: Path,
) -> None:
    """Restore the result of ``pack_state``, the random state last."""
    for name, network in networks.items():
        load_weights(network, _select(tensors, name), path)
    for name, optimizer in optimizers.items():
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _select(tensors, name).items():
            index, _, moment = key.partition(".")
            if value.shape == weights[int(index)].shape:
                # Use the weight's memory format, as fused Adam requires.
                value = torch.empty_like(weights[int(index)]).copy_(value)
            moments.setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


def save_state(folder: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Save a state in a run folder, and keep the previous state as a second file."""
    last, before = (folder / name for name in STATE_FILES)
    fresh = folder / "state-next.safetensors"
    try:
        save_tensors(fresh, tensors, {**new_header(STATE), **header})
        if last.exists():
            rename(last, before)
        rename(fresh, last)
    finally:
        with suppress(OSError):  # it is there only if this failed
            fresh.unlink()


def load_state(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any], list[str]]:
    """Load the newest readable state of a run.

    Returns:
        its path, its tensors, its header, and the problems with newer states.

    Raises:
        FileError: there is no readable state.
    """
    problems: list[str] = []
    for name in STATE_FILES:
        path = folder / name
        if path.exists():
            try:
                header = read_header(path, STATE)
                return path, read_tensors(path), header, problems
            except FileError as error:
                problems.append(str(error))
    reason = "; ".join(problems) or f"{folder} holds no state"
    raise FileError(f"there is nothing to resume from: {reason}")


def _select(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
