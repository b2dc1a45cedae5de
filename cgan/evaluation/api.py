"""``cgan.evaluate`` and ``cgan.compare``: evaluate generator files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cgan.config import DATA_NAMES, Config, DataConfig
from cgan.config_io import load_config
from cgan.data import Split, describe_test_split, load_split
from cgan.errors import ConfigError
from cgan.evaluation.builder import build_report
from cgan.evaluation.judge_training import find_judge
from cgan.evaluation.reference import Reference
from cgan.evaluation.report import Report
from cgan.runtime.device import find_device, torch_defaults
from cgan.sampling.sampler import Sampler, load
from cgan.storage.metrics import read_curves
from cgan.storage.paths import CONFIG_FILE

SPLITS: tuple[Split, Split] = ("train", "test")

logger = logging.getLogger("cgan")


def evaluate(
    model: str | Path | Sampler,
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    per_class: int = 1_000,
    features: str = "judge",
    cas: bool = False,
    device: str = "auto",
) -> Report:
    """Evaluate one generator against real images.

    Args:
        model: a run folder, a generator file, ``"mnist"``, or a sampler.
        data: a data set or a folder to use instead of the data in the run's config.
        data_dir: where data sets are stored.
        per_class: images to draw of each class.
        features: ``"judge"``, or ``"inception"``, which downloads its weights.
        cas: also train a classifier on generated images.
        device: the device to use.

    Raises:
        CganError: model, data or features are not available. A metric that cannot be
            computed is left out, and the report says why.
    """
    (report,) = compare(
        [model], data=data, data_dir=data_dir, per_class=per_class, features=features, cas=cas,
        device=device,
    )  # fmt: skip
    return report


@torch_defaults()
def compare(
    models: Sequence[str | Path | Sampler],
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    per_class: int = 1_000,
    features: str = "judge",
    cas: bool = False,
    device: str = "auto",
) -> list[Report]:
    """Evaluate several generators like ``evaluate``; data that they share is processed once."""
    torch_device = find_device(device)
    samplers = [one if isinstance(one, Sampler) else load(one) for one in models]
    configs = [data_config_of(sampler, data, data_dir) for sampler in samplers]
    references: dict[str, Reference] = {}
    reports = []
    for sampler, config in zip(samplers, configs, strict=True):
        key = config.model_dump_json()
        if key not in references:
            references[key] = _reference(config, sampler, per_class, features, torch_device)
        logger.info("evaluating %s", sampler.name)
        home = sampler.device
        try:
            report = build_report(sampler.to(torch_device), references[key], cas=cas)
        finally:
            sampler.to(home)
        curves = read_curves(sampler.path.parent) if _run_config(sampler) else {}
        reports.append(replace(report, model=sampler.name, curves=curves))
    return reports


def _reference(
    config: DataConfig, sampler: Sampler, per_class: int, features: str, device: torch.device
) -> Reference:
    splits = {split: load_split(config, split) for split in SPLITS}
    return Reference(
        find_judge(splits.__getitem__, device, beside=sampler.path.parent),
        splits.__getitem__,
        description=describe_test_split(config.source),
        per_class=per_class,
        features=features,
        device=device,
    )


def data_config_of(
    sampler: Sampler, data: str | None = None, data_dir: str | Path | None = None
) -> DataConfig:
    """The training data of a generator, and where it is stored now.

    Raises:
        ConfigError: the data is not found.
    """
    config = (_run_config(sampler) or sampler.config).data
    changes: dict[str, object] = {}
    if data is not None:
        changes["source"] = resolve_source(data)
    if data_dir is not None:
        changes["data_dir"] = str(Path(data_dir).resolve())
    if config.size is None:
        changes["size"] = sampler.image_shape[1]
    config = config.model_copy(update=changes)
    if config.source not in DATA_NAMES and not Path(config.source).is_dir():
        raise ConfigError(
            f"the training data {config.source} was not found: give its location with --data"
        )
    return config


def _run_config(sampler: Sampler) -> Config | None:
    """The config of the run that a generator belongs to; None if it is not in a run folder."""
    try:
        config = load_config(sampler.path.parent / CONFIG_FILE, warn=False)
    except ConfigError:  # no config, or another program's
        return None
    return config if config.name == sampler.config.name else None


def resolve_source(data: str) -> str:
    """The name of a data set unchanged; a folder as an absolute path."""
    return data if data in DATA_NAMES or not Path(data).is_dir() else str(Path(data).resolve())
