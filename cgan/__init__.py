"""Class-conditional GANs: generate images of a named class, and measure the class control.

    import cgan
    run = cgan.train("digits-mlp")
    images = cgan.load(run.folder).sample("7", n=16, seed=0)   # (16, C, H, W) in [0, 1]

Names are imported on first use, so ``import cgan`` does not import torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from cgan.runtime.cpu import shorten_waits

if TYPE_CHECKING:
    from cgan import augment, data, evaluation, losses, models, penalties, updates
    from cgan.config import Config
    from cgan.config_io import load_config
    from cgan.data.load import load_pictures
    from cgan.errors import CganError
    from cgan.evaluation.api import compare, evaluate
    from cgan.evaluation.augment_test import augment_test
    from cgan.evaluation.invert import invert
    from cgan.models import build_pair
    from cgan.sampling.export import export
    from cgan.sampling.sampler import Sampler, load
    from cgan.sampling.walk import walk
    from cgan.sampling.wrap import wrap
    from cgan.sampling.write_dataset import write_dataset
    from cgan.sharing.page import export_page
    from cgan.sharing.push import push
    from cgan.training.steer import steer
    from cgan.training.trainer import Run, train

__version__ = "0.4.0"

shorten_waits(os.environ)  # torch reads them when it is imported

_HOMES = {
    "CganError": "cgan.errors",
    "Config": "cgan.config",
    "Run": "cgan.training.trainer",
    "Sampler": "cgan.sampling.sampler",
    "augment_test": "cgan.evaluation.augment_test",
    "build_pair": "cgan.models",
    "compare": "cgan.evaluation.api",
    "evaluate": "cgan.evaluation.api",
    "export": "cgan.sampling.export",
    "export_page": "cgan.sharing.page",
    "invert": "cgan.evaluation.invert",
    "load": "cgan.sampling.sampler",
    "load_config": "cgan.config_io",
    "load_pictures": "cgan.data.load",
    "push": "cgan.sharing.push",
    "steer": "cgan.training.steer",
    "train": "cgan.training.trainer",
    "walk": "cgan.sampling.walk",
    "wrap": "cgan.sampling.wrap",
    "write_dataset": "cgan.sampling.write_dataset",
}
_MODULES = ("augment", "data", "evaluation", "losses", "models", "penalties", "updates")

__all__ = [
    "CganError",
    "Config",
    "Run",
    "Sampler",
    "__version__",
    "augment",
    "augment_test",
    "build_pair",
    "compare",
    "data",
    "evaluate",
    "evaluation",
    "export",
    "export_page",
    "invert",
    "load",
    "load_config",
    "load_pictures",
    "losses",
    "models",
    "penalties",
    "push",
    "steer",
    "train",
    "updates",
    "walk",
    "wrap",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"cgan.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
