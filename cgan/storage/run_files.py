"""The folder of a run, and its files: its state as tensors and a header, and ``metrics.jsonl``.

The previous state is kept as a second file. ``metrics.jsonl`` has one JSON object per line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgan.errors import FileError, RunError, one_line
from cgan.storage.atomic import explain_write_error, rename
from cgan.storage.checkpoint import (
    STATE,
    check_finite,
    check_layout,
    layout_of,
    load_weights,
    new_header,
    open_checkpoint,
    save_tensors,
)
from cgan.storage.paths import (
    METRICS_FILE,
    STATE_FILES,
    has_state,
    require_utf8,
    runs_by_age,
)
from cgan.storage.safe_reading import MAX_METRICS_BYTES, parse_json_object, read_bytes
from cgan.storage.schema import is_count

PLOTTED_METRICS = {"loss_G", "loss_D", "penalty", "control_accuracy", "fid", "background_ink"}
"""Metrics that are plotted over images seen."""

Curves = dict[str, list[tuple[int, float]]]
"""By metric: (images seen, value) pairs."""
ADAM_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""What Adam keeps for each weight."""


def new_run(base: Path) -> Path:
    """Create the folder of a new run: ``base``, with a number if it exists.

    Raises:
        FileError: it cannot be created, or its path is not UTF-8.
    """
    require_utf8(base)
    if not base.name:
        base = base.resolve()  # "." has no name that a number could be added to
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        if base.is_dir() and not any(base.iterdir()):
            return base
        number = 1
        while True:
            folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise FileError(explain_write_error(error, base)) from error


def run_to_resume(base: Path, exactly: bool = False) -> Path:
    """The newest run with a state: ``base``, or one of the numbered folders that ``new_run`` makes.

    Args:
        base: a run folder, or its name without the number.
        exactly: take ``base`` only.

    Raises:
        RunError: there is none.
    """
    if exactly and has_state(base):
        return base
    if exactly:
        raise RunError(f"{base} contains no state of a run: leave out --resume to start one")
    pattern = re.compile(re.escape(base.name) + r"(-\d+)?")
    runs = [run for run in runs_by_age(STATE_FILES, base.parent) if pattern.fullmatch(run.name)]
    if not runs:
        raise RunError(f"there is no run {base} to resume: leave out --resume")
    return runs[-1]


def newest_run() -> Path:
    """The run in ``runs/`` with the newest state.

    Raises:
        RunError: there is none.
    """
    if not (runs := runs_by_age(STATE_FILES)):
        raise RunError("there is no run in runs/ to resume: leave out --resume")
    return runs[-1]


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run in order; each row has ``images_seen``.

    A last line that a stopped process left incomplete is ignored.

    Raises:
        FileError: the file cannot be read, or another line is damaged.
    """
    path = folder / METRICS_FILE
    lines = read_bytes(path, MAX_METRICS_BYTES).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_parse_row(line))
        except ValueError as error:
            if number < len(lines):
                raise FileError(
                    f"line {number} of {path} is damaged ({one_line(error)}): remove the line"
                ) from error
    return rows


def read_curves(folder: Path) -> Curves:
    """The curves of a run by metric; empty if there is no log.

    Raises:
        FileError: the log cannot be read, or is damaged.
    """
    curves: Curves = {}
    for row in read_metrics(folder) if (folder / METRICS_FILE).exists() else ():
        for name in PLOTTED_METRICS & row.keys():
            curves.setdefault(name, []).append((int(row["images_seen"]), row[name]))
    return {name: curves[name] for name in sorted(curves)}


def _parse_row(line: bytes) -> dict[str, float]:
    """One line; a metric may be NaN."""
    row = parse_json_object(line, allow_nan=True)
    if not is_count(row.get("images_seen")):
        raise ValueError("images_seen is not a whole number from 0")
    for name, value in row.items():
        if type(value) not in (int, float):
            raise ValueError(f"{name[:80]!r} is not a number")
    return row


def pack_state(
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    device: torch.device,
) -> dict[str, Tensor]:
    """Weights, buffers, Adam's moments and torch's random state as one flat dict."""
    tensors = _random_states(device)
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
    """Restore the result of ``pack_state``, the random state last.

    Raises:
        FileError: something is missing, does not fit or is not finite; nothing is changed.
    """
    check_finite(tensors, path)
    weights = {name: select_tensors(tensors, name) for name in networks}
    for name, network in networks.items():
        check_layout(network, layout_of(weights[name]), path)
    moments = {
        name: _read_moments(optimizer, select_tensors(tensors, name), path)
        for name, optimizer in optimizers.items()
    }
    random = _read_random_states(tensors, device, path)

    for name, network in networks.items():
        load_weights(network, weights[name], path)
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments[name]})
    torch.set_rng_state(random["random.cpu"])
    if (state := random.get(f"random.{device.type}")) is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state, device)


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
                with open_checkpoint(path, STATE) as file:
                    return path, file.tensors(), file.header, problems
            except FileError as error:
                problems.append(str(error))
    reason = "; ".join(problems) or f"{folder} holds no state"
    raise FileError(f"there is nothing to resume from: {reason}")


def select_tensors(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one network or optimiser, without its name."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}


def _read_moments(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path
) -> dict[int, dict[str, Tensor]]:
    """Adam's moments by the index of their weight, in its memory format, as fused Adam requires.

    Raises:
        FileError: they do not fit the weights.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = {str(number): number for number in range(len(weights))}
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, moment = key.partition(".")
        if index not in numbers or moment not in ADAM_MOMENTS:
            raise FileError(f"{path} does not fit the optimizers of its run: no {key[:80]!r}")
        weight = weights[numbers[index]]
        shape = () if moment == "step" else tuple(weight.shape)
        if (value.dtype, tuple(value.shape)) != (torch.float32, shape):
            raise FileError(
                f"{path} does not fit the optimizers of its run: {key} has the shape "
                f"{list(value.shape)}, not {list(shape)}, or is not float32"
            )
        if shape:
            value = torch.empty_like(weight).copy_(value)
        moments.setdefault(numbers[index], {})[moment] = value
    for number, found in moments.items():
        if missing := ADAM_MOMENTS - found.keys():
            raise FileError(
                f"{path} does not fit the optimizers of its run: {number}.{min(missing)} is missing"
            )
    return moments


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """torch's random state on the CPU and, if it is another one, on the device."""
    states = {"random.cpu": torch.get_rng_state()}
    if device.type != "cpu":
        module = torch.get_device_module(device)
        states[f"random.{device.type}"] = module.get_rng_state(device)
    return states


def _read_random_states(
    tensors: Mapping[str, Tensor], device: torch.device, path: Path
) -> dict[str, Tensor]:
    """The random states of a file. That of the device is missing if the run was on another one.

    Raises:
        FileError: one cannot be a random state.
    """
    found = {name: tensors[name] for name in _random_states(device) if name in tensors}
    if "random.cpu" not in found:
        raise FileError(f"{path} does not fit its run: random.cpu is missing")
    for name, state in found.items():
        try:
            torch.Generator("cpu" if name == "random.cpu" else device).set_state(state)
        except (RuntimeError, TypeError) as error:
            raise FileError(f"{path} has an invalid {name}: {one_line(error)}") from error
    return found
