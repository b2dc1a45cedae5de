"""Give networks the weights of a file, after a comparison of names, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cgan.errors import FileError
from cgan.storage.checkpoint import Checkpoint, Layout

RENAMED_MODULES = {"entrance": "embed", "raises": "up", "halves": "down"}
"""Module names in files of format version 1, and their names in version 2."""

DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}
"""The dtypes of networks and random states, and their names in safetensors."""

Network = TypeVar("Network", bound=nn.Module)


def load_network(file: Checkpoint, build: Callable[[], Network]) -> Network:
    """Build a network with the weights of a file.

    The network is built without memory. Its weights are compared with the tensors of the file, and
    only then are those read. torch's random state is unchanged.

    Args:
        file: an open file.
        build: returns the network; it runs with torch's ``meta`` device.

    Raises:
        FileError: the tensors do not fit, or a value is not finite.
    """
    with torch.device("meta"), _WithoutNormal():
        network = build()
    names = match_names(network, file.layout(), file.path)
    tensors = file.tensors()
    check_finite(tensors, file.path)
    network.load_state_dict({names[key]: tensor for key, tensor in tensors.items()}, assign=True)
    return network


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a network; raises ``FileError`` if they do not fit."""
    names = match_names(network, layout_of(tensors), path)
    network.load_state_dict({names[key]: tensor for key, tensor in tensors.items()})


def match_names(network: nn.Module, layout: Layout, path: Path) -> dict[str, str]:
    """The name in the network of each tensor in a file.

    Raises:
        FileError: a tensor is missing or unknown, or has another shape or dtype.
    """
    wanted = layout_of(network.state_dict())
    names = {name: name if name in wanted else current_name(name) for name in layout}
    found = {names[name]: entry for name, entry in layout.items()}
    if fault := _find_difference(wanted, found):
        raise FileError(f"{path} does not fit the networks of its config: {fault}")
    if len(found) < len(layout):
        raise FileError(f"{path} does not fit the networks of its config: it has a tensor twice")
    return names


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """The dtypes and shapes of tensors."""
    return {
        name: (DTYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that all values are finite.

    Raises:
        FileError: one is not.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise FileError(
                f"{path} contains values that are not finite ({name}): its training diverged, so "
                "train it again with a lower --lr"
            )


class _WithoutNormal(TorchFunctionMode):
    """Skips ``nn.init.normal_``: on the meta device it imports 900 modules, in a second."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is nn.init.normal_:
            return kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def current_name(name: str) -> str:
    """The present name of a tensor of format version 1."""
    module, dot, rest = name.partition(".")
    return RENAMED_MODULES.get(module, module) + dot + rest


def _find_difference(wanted: Layout, found: Layout) -> str | None:
    """The first difference between the tensors of a network and of a file, as text."""
    for name, entry in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != entry:
            (dtype, shape), (wanted_dtype, wanted_shape) = found[name], entry
            return f"{name} is {dtype} {list(shape)}, not {wanted_dtype} {list(wanted_shape)}"
    unknown = next((name for name in found if name not in wanted), None)
    return None if unknown is None else f"{unknown[:80]!r} is not in them"
