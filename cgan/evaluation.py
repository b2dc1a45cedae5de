"""Measure generators by their files: find their data, their judge, and what real pictures get."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cgan.config import DATA_NAMES, Config, DataConfig, load_config
from cgan.data import Split, load_split, say_held_out
from cgan.device import find_device
from cgan.errors import ConfigError
from cgan.loggers import read_curves
from cgan.metrics.classifier import find_judge
from cgan.metrics.measure import measure
from cgan.metrics.reference import Reference
from cgan.metrics.report import Report
from cgan.places import CONFIG_FILE
from cgan.sampling import Sampler, load

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
    """Measure one generator against real pictures.

    Args:
        model: a run's folder, a generator file, ``"mnist"``, or a sampler.
        data: the data it was trained on, where the run doesn't tell: a name or a folder.
        data_dir: where data sets lie.
        per_class: pictures to draw of each class.
        features: ``"judge"``, or ``"inception"``, which downloads its weights.
        cas: also train a classifier on generated pictures alone.
        device: where to draw and look.

    Raises:
        CganError: model, data or features cannot be had. A figure that can't be had is left out,
            and the report says why.
    """
    (report,) = compare(
        [model], data=data, data_dir=data_dir, per_class=per_class, features=features, cas=cas,
        device=device,
    )  # fmt: skip
    return report


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
    """Measure several, each as :func:`evaluate`; real pictures of the same data are seen once."""
    place = find_device(device)
    samplers = [one if isinstance(one, Sampler) else load(one) for one in models]
    described = [data_of(sampler, data, data_dir) for sampler in samplers]
    references: dict[str, Reference] = {}
    reports = []
    for sampler, config in zip(samplers, described, strict=True):
        key = config.model_dump_json()
        if key not in references:
            references[key] = _reference(config, sampler, per_class, features, place)
        logger.info("measuring %s", sampler.name)
        report = measure(sampler.to(place), references[key], cas=cas)
        curves = read_curves(sampler.path.parent) if _config_beside(sampler) else {}
        reports.append(replace(report, model=sampler.name, curves=curves))
    return reports


def _reference(
    config: DataConfig, sampler: Sampler, per_class: int, features: str, place: torch.device
) -> Reference:
    splits = {split: load_split(config, split) for split in SPLITS}
    return Reference(
        find_judge(splits.__getitem__, place, beside=sampler.path.parent),
        splits.__getitem__,
        held_out=say_held_out(config.source),
        per_class=per_class,
        features=features,
        device=place,
    )


def data_of(
    sampler: Sampler, data: str | None = None, data_dir: str | Path | None = None
) -> DataConfig:
    """The data that a generator was trained on, where they lie now.

    Raises:
        ConfigError: they are not there.
    """
    described = (_config_beside(sampler) or sampler.config).data
    changes: dict[str, object] = {}
    if data is not None:
        changes["source"] = source_of(data)
    if data_dir is not None:
        changes["data_dir"] = str(Path(data_dir).resolve())
    if described.size is None:
        changes["size"] = sampler.image_shape[1]
    described = described.model_copy(update=changes)
    if described.source not in DATA_NAMES and not Path(described.source).is_dir():
        raise ConfigError(
            f"the data it was trained on, {described.source}, is not there: "
            "say where it is with --data"
        )
    return described


def _config_beside(sampler: Sampler) -> Config | None:
    """The config of the run that a generator lies in; None where it lies elsewhere."""
    beside = sampler.path.parent / CONFIG_FILE
    try:
        config = load_config(beside)
    except ConfigError:  # none, or another program's
        return None
    return config if config.name == sampler.config.name else None


def source_of(data: str) -> str:
    """A known name as it is, a folder as its full path."""
    return data if data in DATA_NAMES or not Path(data).is_dir() else str(Path(data).resolve())
