"""Which device, and how its arithmetic is set."""

from __future__ import annotations

import torch

from cgan.errors import DeviceError


def find_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1`` as a device.

    Raises:
        DeviceError: it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceError("there is no CUDA device here: use --device cpu")
        if device.index is not None and device.index >= count:
            raise DeviceError(
                f"there is no {name}: this machine has {count}, from cuda:0 to cuda:{count - 1}"
            )
    return device


def set_arithmetic(device: torch.device) -> None:
    """TF32 on CUDA, where it costs no control and is several times as fast."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # convolutions use TF32 by themselves
        torch.backends.cudnn.benchmark = True
