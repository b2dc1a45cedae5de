"""Warm start: begin a run with the weights of another one (``warm_start`` in the config)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgan.attributes import num_attributes_of, split_classes
from cgan.config import DATA_NAMES, Config, ModelConfig, height_and_width, parse_size, size_of
from cgan.config_io import make_config
from cgan.errors import ConfigError, quote
from cgan.models.conditioning import per_class_tensors, to_class_rows
from cgan.models.factory import resolve_stored_width
from cgan.storage.checkpoint import (
    GENERATOR,
    check_finite,
    open_checkpoint,
    read_header,
)
from cgan.storage.paths import StrPath, find_generator, has_state
from cgan.storage.run_files import load_state, select_tensors
from cgan.training.state import TrainState

logger = logging.getLogger("cgan")

EQUAL_KEYS = ("backbone", "conditional", "generator_label", "latent_dim")
"""Settings of the networks that must be equal."""
MIN_SHARE = 0.5
"""Least share of the generator's weights that must fit. Only the layers at high resolutions are new
for images of twice the size, and these have few weights."""


@dataclass(frozen=True)
class Source:
    """The weights of another run.

    Attributes:
        model: the config of its networks.
        classes: its class names.
        image_shape: (C, H, W).
        networks: tensors by name, for ``G``, ``D`` and ``ema``; only ``G`` and ``ema`` if it is a
            generator file.
        teacher: the name of the reader that taught it, or None.
    """

    model: ModelConfig
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    networks: dict[str, dict[str, Tensor]]
    teacher: str | None


def read_source(path_or_run: StrPath) -> Source:
    """Read a run folder (both networks), a generator file, or the name of a packaged generator.

    Raises:
        FileError: there is none, or it cannot be read.
    """
    path = find_generator(path_or_run)
    with open_checkpoint(path, GENERATOR) as file:
        header, tensors = file.header, file.tensors()
    networks = {"G": tensors, "ema": tensors}
    if Path(path_or_run).is_dir() and has_state(Path(path_or_run)):
        path, state, _, problems = load_state(Path(path_or_run))
        for problem in problems:
            logger.warning("%s; starting from the state before it", problem)
        rows = split_classes(header["classes"], num_attributes_of(header))
        networks = {
            name: to_class_rows(select_tensors(state, name), rows) for name in ("G", "D", "ema")
        }
    for tensors in networks.values():
        check_finite(tensors, path)
    classes, shape = tuple(header["classes"]), tuple(header["image_shape"])
    return Source(_model_of(header), classes, shape, networks, header.get("teacher"))


def model_overrides(
    path_or_run: StrPath, data: str | None, size: int | str | None
) -> dict[str, Any]:
    """Overrides of a config, so that its networks fit the weights of another run.

    Args:
        path_or_run: as in ``read_source``.
        data: the data source of the new run; the images of a folder get the source's size, unless
            ``size`` is given.
        size: that of the new images, as in a config.

    Raises:
        FileError: there is none, or it cannot be read.
    """
    header = read_header(find_generator(path_or_run), GENERATOR)
    model, (_, height, width) = _model_of(header), header["image_shape"]
    overrides: dict[str, Any] = {
        f"model.{key}": getattr(model, key)
        for key in ("backbone", "generator_label", "last_layer", "latent_dim", "width")
    }
    if size is not None and model.width is not None and model.backbone in ("dcgan", "photo"):
        try:
            side = min(height_and_width(parse_size(size) or width))
        except ValueError as error:
            raise ConfigError(f"data.size: {error}, not {quote(size)}") from error
        # As many channels as the source has at the same resolution.
        overrides["model.width"] = max(model.width * min(height, width) // side, 1)
    if data not in (None, *DATA_NAMES) and size is None:
        overrides["data.size"] = size_of((0, height, width))
    return overrides


def warm_start(state: TrainState) -> None:
    """Replace the weights of a new run by those of ``config.warm_start``, where they fit.

    Layers that are only in the new networks, or have another shape there, keep their initial
    weights. Adam's moments and the counters start at zero. A class that the source has too keeps
    its embedding; another one starts at the mean of the source's classes.

    Raises:
        FileError: the source cannot be read.
        ConfigError: the networks differ in a key of ``EQUAL_KEYS``, fewer than ``MIN_SHARE`` of the
            generator's weights fit, or they are resnets for images of different sizes.
    """
    assert state.config.warm_start is not None
    name, source = state.config.warm_start, read_source(state.config.warm_start)
    rows = [source.classes.index(one) if one in source.classes else None for one in state.classes]
    own = to_class_rows(state.generator.state_dict(), state.attributes)
    sizes = {key: tensor.numel() for key, tensor in own.items()}
    plans = {
        key: match(state.networks[key], found, len(source.classes), state.attributes)
        for key, found in source.networks.items()
    }
    share = sum(sizes[key] for key in plans["G"]) / sum(sizes.values())
    if (differing := find_differences(state, source, EQUAL_KEYS)) or share < MIN_SHARE:
        differing = differing or find_differences(state, source, ("width",)) or "its layers differ"
        raise ConfigError(f"the weights of {name} do not fit: {differing}: use the same values")
    for key, plan in plans.items():
        copy_weights(state.networks[key], plan, rows)
    state.taught_by = state.taught_by or source.teacher
    known = sum(row is not None for row in rows)
    logger.info(
        "warm start from %s: %.0f %% of the generator's weights%s; %d of %d classes are in both",
        name,
        100 * share,
        "" if "D" in plans else ", a new discriminator",
        known,
        len(rows),
    )


def match(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    classes: int,
    attributes: Sequence[tuple[str, ...]] | None = None,
) -> dict[str, Tensor]:
    """The tensors of a network with this many classes that fit another, by their names in it.

    The layers of a discriminator are counted from the last one, because those of the lowest
    resolution are alike in networks for images of different sizes. ``attributes`` are the values of
    the network's classes, if it shares them.
    """
    found = {_from_the_end(name, tensors): name for name in tensors}
    own = to_class_rows(network.state_dict(), attributes)
    per_class = per_class_tensors(network)
    fitting = {}
    for name, tensor in own.items():
        other = tensors.get(found.get(_from_the_end(name, own), ""))
        shape = (classes, *tensor.shape[1:]) if name in per_class else tuple(tensor.shape)
        if other is not None and (other.dtype, tuple(other.shape)) == (tensor.dtype, shape):
            fitting[name] = other
    return fitting


@torch.no_grad()
def copy_weights(
    network: nn.Module, tensors: Mapping[str, Tensor], rows: Sequence[int | None]
) -> None:
    """Copy the result of ``match`` into a network.

    Args:
        network: changed in place.
        tensors: by their names in the network.
        rows: the source's index of each class; None for a class that it does not have.
    """
    own, per_class = network.state_dict(), per_class_tensors(network)
    device = next(network.parameters()).device
    for name, tensor in tensors.items():
        tensor = tensor.to(device)
        if name in per_class:
            mean = tensor.mean(0)
            tensor = torch.stack([mean if row is None else tensor[row] for row in rows])
        if name in own:
            own[name].copy_(tensor)
        else:  # a sum over values: these get the rows whose sums are closest
            module, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(module), attribute, tensor)


def _from_the_end(name: str, names: Mapping[str, Any]) -> str:
    """``down.0.weight`` of two layers to ``down.-2.weight``; other names are unchanged."""
    if not (found := re.match(r"(down|residual)\.(\d+)\.", name)):
        return name
    count = len({one.split(".")[1] for one in names if one.startswith(f"{found[1]}.")})
    return f"{found[1]}.{int(found[2]) - count}.{name[found.end() :]}"


def _model_of(header: Mapping[str, Any]) -> ModelConfig:
    config: Config = make_config(header["config"], strict=False)
    return resolve_stored_width(config.model, tuple(header["image_shape"]))


def find_differences(state: TrainState, source: Source, keys: Sequence[str]) -> str:
    """What differs between the networks of a run and of its source, as text; empty if nothing."""
    found = [
        f"model.{key} is {getattr(source.model, key)} there and {getattr(state.model, key)} here"
        for key in keys
        if getattr(source.model, key) != getattr(state.model, key)
    ]
    size, other = (f"{shape[2]}×{shape[1]}" for shape in (state.image_shape, source.image_shape))
    # The blocks of a resnet belong to resolutions, which differ between sizes.
    if size != other and ("width" in keys or state.model.backbone == "resnet"):
        found.append(f"images are {other} there and {size} here")
    return "; ".join(found)
