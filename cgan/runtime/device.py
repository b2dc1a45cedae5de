"""Device selection, device memory, out-of-memory errors, and torch's global settings.

Some methods of torch's optimisers are kept out of compilation. For that they import the compiler
when they are first called, which takes more than a second, also where nothing is compiled: see
``without_dynamo``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import nn

from cgan.errors import DeviceError, RunError
from cgan.runtime.cpu import Memory, machine_memory
from cgan.runtime.process import local_world_size
from cgan.runtime.streams import split_cores

METHODS = ("add_param_group", "state_dict", "load_state_dict")
MARK = "__dynamo_disable"
"""Where torch keeps the version of a method that is kept out of compilation."""
_lock, _inside, _marked = Lock(), list[None](), list[Any]()
"""Of ``without_dynamo``: an entry for each that is inside, and the methods that are marked."""
DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")
"""The processor, NVIDIA's GPUs (or AMD's, in torch's ROCm build), Apple's and Intel's."""


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Inside, these methods of optimisers do not import the compiler if it is not imported.

    If a version of torch does it in another way, nothing changes. Threads may be inside at the same
    time: the last one to leave removes the marks.
    """
    wrapped: list[Any] = [getattr(torch.optim.Optimizer, name, None) for name in METHODS]
    methods = [method.__wrapped__ for method in wrapped if hasattr(method, "__wrapped__")]
    with _lock:
        if not _inside and "torch._dynamo" not in sys.modules:
            _marked.extend(method for method in methods if not hasattr(method, MARK))
            for method in _marked:
                setattr(method, MARK, method)
        _inside.append(None)
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            while not _inside and _marked:
                delattr(_marked.pop(), MARK)


def find_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """Resolve ``auto`` (CUDA if available, else the CPU), ``cuda:1`` or a name of ``DEVICE_TYPES``.

    Args:
        name: the requested device.
        local_rank: set for one of several processes; ``auto``, ``cuda`` and ``xpu`` then mean the
            GPU with this index.

    Raises:
        DeviceError: no such device, or it is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d+)?", name):
        raise DeviceError(f"no device {name!r}: choose auto, cpu, cuda, cuda:1, mps or xpu")
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    count = count_devices(kind)
    if count == 0:
        raise DeviceError(f"there is no {kind.upper()} device here: use --device cpu")
    if kind != "mps" and not index and local_rank is not None:
        index = str(local_rank)
    if index and int(index) >= count:
        raise DeviceError(
            f"there is no {kind}:{index}: this machine has {count}, "
            f"from {kind}:0 to {kind}:{count - 1}"
        )
    return torch.device(f"{kind}:{index}" if index else kind)


def count_devices(kind: str) -> int:
    """How many devices of this kind (``cuda``, ``mps`` or ``xpu``) torch can use."""
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = torch.get_device_module(kind)
    return int(module.device_count()) if module.is_available() else 0


def device_memory(device: torch.device) -> Memory | None:
    """Memory of a device; None if unknown.

    Without memory of its own, it is this process's share of the machine's: the processes that
    torchrun starts on one machine share it.
    """
    if device.type in ("cuda", "xpu"):
        try:
            free, total = torch.get_device_module(device).mem_get_info(device)
        except RuntimeError:  # some of Intel's GPUs do not tell
            return None
        return Memory(int(total), int(free))
    memory, processes = machine_memory(), local_world_size()
    return memory and Memory(memory.total // processes, memory.free // processes)


@contextmanager
def explain_out_of_memory(work: str, advice: str) -> Iterator[None]:
    """Turn an out-of-memory error into a ``RunError``.

    Args:
        work: what needs the memory, for example ``"sampling"``.
        advice: what to do.

    Raises:
        RunError: the work ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        detail = f" (it tried to allocate {asked[1]})" if asked else ""
        raise RunError(f"{work} ran out of memory{detail}: {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device: only CUDA has an exception type for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("out of memory", "DefaultCPUAllocator"))


def synchronize(device: torch.device) -> None:
    """Wait until a device has done its work, so that a clock can be read; a CPU always has."""
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, with its filters in that device's memory format."""
    return set_memory_format(network.to(device))


def set_memory_format(network: nn.Module) -> nn.Module:
    """Use channels-last filters (measured 10 % faster on a CPU), but torch's default on MPS.

    Another format than in training rounds differently. On MPS a backward pass in channels-last was
    30 times slower (pytorch/pytorch#193349).
    """
    on_mps = any(parameter.device.type == "mps" for parameter in network.parameters())
    memory_format = torch.contiguous_format if on_mps else torch.channels_last
    return network.to(memory_format=memory_format)


@contextmanager
def configure_backends(device: torch.device) -> Iterator[None]:
    """Split the cores between two streams; on CUDA use TF32, cuDNN's benchmark mode, this device.

    These settings belong to the whole process. At the end they are what they were before.
    """
    with ExitStack() as stack:
        stack.enter_context(split_cores())
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))  # NCCL and CUDA graphs need it
            stack.enter_context(_tf32())
            cudnn = torch.backends.cudnn
            stack.callback(setattr, cudnn, "benchmark", cudnn.benchmark)
            cudnn.benchmark = True
        yield


@contextmanager
def _tf32() -> Iterator[None]:
    """Use TF32 in matrix products, as convolutions do by default."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller has chosen a precision for each backend: it stays
        yield
        return
    mkldnn: Any = torch.backends.mkldnn
    backends = (torch.backends.cuda.matmul, mkldnn.matmul)
    details = [backend.fp32_precision for backend in backends]
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        for backend, detail in zip(backends, details, strict=True):
            backend.fp32_precision = detail  # it was "none", and is "ieee" now


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Undo what a caller has set and what would change results; at the end it is set again.

    Inside, new tensors are float32 and on the CPU, gradients are on (also in inference mode),
    autocast is off, the cores are split between two streams, and optimisers do not import the
    compiler. It may decorate a function, but not a generator.
    """
    with ExitStack() as stack:
        stack.enter_context(split_cores())
        stack.enter_context(without_dynamo())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if (dtype := torch.get_default_dtype()) != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in DEVICE_TYPES:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


class Purpose(IntEnum):
    """What random numbers of a training are for. Each purpose has numbers of its own."""

    NETWORKS = 0
    """Initial weights, then z, dropout and augmentation."""
    ORDER = 1
    """The order of the labelled images."""
    UNLABELLED_ORDER = 2


def derive_seed(seed: int, purpose: Purpose, epoch: int = 0) -> int:
    """A seed below 2³² of a user's seed, of any size.

    (On a CPU, torch uses the lowest 32 bits of a seed only.)
    """
    return int(np.random.SeedSequence([seed, purpose, epoch]).generate_state(1)[0])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random state on the CPU and on this device; at the end it is what it was.

    (``torch.manual_seed`` would seed all devices, and ``fork_rng`` restores the given ones only.)
    """
    others = [] if device.type == "cpu" else [device]
    # Without other devices the type does not matter, but torch 2.11 requires one.
    with torch.random.fork_rng(others, device_type=device.type if others else "cuda"):
        torch.default_generator.manual_seed(seed)
        for other in others:
            state = torch.Generator(other).manual_seed(seed).get_state()
            torch.get_device_module(other).set_rng_state(state, other)
        yield
