"""Optimisers without the import of ``torch._dynamo``.

Some methods of torch's optimisers are kept out of compilation. For that they import the compiler
when they are first called, which takes more than a second, also where nothing is compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

METHODS = ("add_param_group", "state_dict", "load_state_dict")
MARK = "__dynamo_disable"
"""Where torch keeps the version of a method that is kept out of compilation."""


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Inside, these methods of optimisers do not import the compiler if it is not imported.

    If a version of torch does it in another way, nothing changes.
    """
    wrapped: list[Any] = [getattr(torch.optim.Optimizer, name, None) for name in METHODS]
    methods = [method.__wrapped__ for method in wrapped if hasattr(method, "__wrapped__")]
    ours = [] if "torch._dynamo" in sys.modules else [m for m in methods if not hasattr(m, MARK)]
    for method in ours:
        setattr(method, MARK, method)
    try:
        yield
    finally:
        for method in ours:
            delattr(method, MARK)
