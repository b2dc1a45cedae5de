"""Devices that are not available."""

import pytest

from cgan.errors import DeviceError
from cgan.runtime.device import find_device


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device here"):
        find_device("cuda:9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match="no cuda:9: this machine has 2"):
        find_device("cuda:9")
