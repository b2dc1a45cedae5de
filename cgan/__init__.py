"""Class-conditional GANs that obey their label, and measure that they do.

    import cgan
    run = cgan.train("digits-mlp")
    pictures = cgan.load(run.folder).sample("7", n=16, seed=0)   # (16, C, H, W) in [0, 1]

Names are imported when they are first used, so that ``import cgan`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgan import losses, models, penalties, updates
    from cgan.config import Config, load_config
    from cgan.data import load_pictures
    from cgan.errors import CganError
    from cgan.evaluation import compare, evaluate
    from cgan.models import build_pair
    from cgan.sampling import Sampler, load
    from cgan.trainer import Run, train

_HOMES = {
    "CganError": "cgan.errors",
    "Config": "cgan.config",
    "Run": "cgan.trainer",
    "Sampler": "cgan.sampling",
    "build_pair": "cgan.models",
    "compare": "cgan.evaluation",
    "evaluate": "cgan.evaluation",
    "load": "cgan.sampling",
    "load_config": "cgan.config",
    "load_pictures": "cgan.data",
    "train": "cgan.trainer",
}
_MODULES = ("losses", "models", "penalties", "updates")

__all__ = [
    "CganError",
    "Config",
    "Run",
    "Sampler",
    "build_pair",
    "compare",
    "evaluate",
    "load",
    "load_config",
    "load_pictures",
    "losses",
    "models",
    "penalties",
    "train",
    "updates",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"cgan.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
