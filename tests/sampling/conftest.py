"""Exports of the tests in this folder are quick."""

from collections.abc import Iterator
from functools import cache

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_table_of_functions() -> Iterator[None]:
    """torch reads the source of 500 ONNX functions at each export, which is a third of its time."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    with pytest.MonkeyPatch.context() as patch:
        read_all = getattr(getattr(registration, "ONNXRegistry", None), "from_torchlib", None)
        if read_all is not None:  # it is no public name
            patch.setattr(registration.ONNXRegistry, "from_torchlib", staticmethod(cache(read_all)))
        yield
