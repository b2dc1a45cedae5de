"""``cgan.evaluate`` and ``cgan.compare``: evaluate generator files."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from cgan.config import DATA_NAMES, Config, DataConfig, is_shard_pattern, size_of
from cgan.config_io import load_config
from cgan.data import (
    TEST_SET,
    ImageDataset,
    ImageFolder,
    Split,
    describe_split,
    load_split,
    load_splits,
)
from cgan.data.archive import HUB_PREFIX, is_archive
from cgan.data.load import AllSplits, resolve_source
from cgan.errors import ConfigError, FileError, MeasureError, UnknownNameError
from cgan.evaluation.builder import build_report
from cgan.evaluation.control import check_fit, check_judge
from cgan.evaluation.distances import frechet_difference
from cgan.evaluation.features import FEATURE_NAMES
from cgan.evaluation.judge import Judge, Judges
from cgan.evaluation.judge_training import (
    default_architecture,
    find_judge,
    get_or_train_judge,
    get_or_train_judges,
    reader_architecture,
    second_architecture,
)
from cgan.evaluation.reference import PER_CLASS, Reference, images_per_class
from cgan.evaluation.report import Figure, Report
from cgan.runtime.device import explain_out_of_memory, find_device, torch_defaults
from cgan.sampling.sampler import Sampler, as_sampler
from cgan.storage.paths import CONFIG_FILE, JUDGE_FILE, PACKAGED, StrPath
from cgan.storage.run_files import read_curves

DESCRIBED_SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")

logger = logging.getLogger("cgan")


def data_config_of(
    sampler: Sampler, data: str | None = None, data_dir: str | Path | None = None
) -> DataConfig:
    """The training data of a generator, and where it is stored now.

    A run folder's config says where its data is. The header of a single file, which somebody else
    may have written, only names it: the last part of a path in it is looked for in the working
    directory, and nothing is downloaded to it.

    Raises:
        ConfigError: the data is not found.
    """
    changes: dict[str, object] = {}
    run = run_config(sampler)
    config = sampler.config.data if run is None else run.data
    if run is None:
        changes = {"data_dir": None, "source": Path(config.source).name}
    if data is not None:
        changes["source"] = resolve_source(data)
        changes["streaming"] = config.streaming and changes["source"] == config.source
    if data_dir is not None:
        changes["data_dir"] = str(Path(data_dir).resolve())
    if config.size is None:
        changes["size"] = size_of(sampler.image_shape)
    config = config.model_copy(update=changes)
    is_there = os.path.isdir(config.source) or is_archive(config.source)
    is_there = is_there or is_shard_pattern(config.source)
    if run is None and data is None and config.source.startswith(HUB_PREFIX):
        is_there = False  # a header does not decide what is downloaded
    if run is None and data is None and config.source in ("", ".", ".."):
        is_there = False
    if config.source not in DATA_NAMES and not is_there:
        raise ConfigError(
            f"the training data {config.source} was not found: give its location with --data"
        )
    return config


def run_config(sampler: Sampler) -> Config | None:
    """The config of the run that a generator belongs to; None if it is not in a run folder."""
    try:
        config = load_config(sampler.path.parent / CONFIG_FILE, strict=False)
    except ConfigError:  # no config, or another program's
        return None
    return config if config.name == sampler.config.name else None


def evaluate(
    model: StrPath | Sampler,
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    per_class: int | None = None,
    features: str = "judge",
    cas: bool = False,
    truncation: bool = False,
    second_judge: bool = False,
    judge: str | Path | Judge | None = None,
    device: str = "auto",
) -> Report:
    """Evaluate one generator against real images.

    Args:
        model: a run folder, a generator file, ``"mnist"``, or a sampler.
        data: a data set or a folder to use instead of the data in the run's config.
        data_dir: where data sets are stored.
        per_class: images to draw of each class; None: 1,000, of more than 50 classes fewer.
        features: ``"judge"``, ``"pretrained"`` (EfficientNet-Lite0), or ``"inception"``, which
            downloads its weights.
        cas: also train a classifier on generated images.
        truncation: also measure control and recall of truncated z, with factors from 0.9 to 0.6.
        second_judge: also measure control with a second judge with another architecture; it is
            trained once per data set.
        judge: a judge, or its file, with the same classes and image shape, for example one that was
            trained on more images; by default, the judge of the data is found or trained.
        device: the device to use.

    Raises:
        CganError: model, data, judge or features are not available. A metric that cannot be
            computed is left out, and the report says why.
    """
    (report,) = compare(
        [model], data=data, data_dir=data_dir, per_class=per_class, features=features, cas=cas,
        truncation=truncation, second_judge=second_judge, judge=judge, device=device,
    )  # fmt: skip
    return report


@torch_defaults()
def compare(
    models: Sequence[StrPath | Sampler],
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    per_class: int | None = None,
    features: str = "judge",
    cas: bool = False,
    truncation: bool = False,
    second_judge: bool = False,
    judge: str | Path | Judge | None = None,
    device: str = "auto",
) -> list[Report]:
    """Evaluate several generators like ``evaluate``.

    Generators of the same data are measured by the same judge against the same images. A given
    judge measures all of them.
    """
    _check_options(per_class, features)
    torch_device, optional = find_device(device), {"cas": cas, "truncation": truncation}
    samplers = [as_sampler(one) for one in models]
    given = _open_judge(judge, samplers, torch_device)
    sources = [data_config_of(sampler, data, data_dir) for sampler in samplers]
    loaded: dict[DataConfig, AllSplits] = {}
    references: dict[tuple[str, str], Reference] = {}
    reports: list[Report] = []
    taught = any("teacher" in sampler.header for sampler in samplers)
    for sampler, source in zip(samplers, sources, strict=True):
        with explain_out_of_memory(
            f"evaluating {sampler.name} on {torch_device}", "free memory, or use another --device"
        ):
            if source not in loaded:
                loaded[source] = load_splits(source)
            splits, unlabelled = loaded[source]
            train = splits["train"]
            check_fit(sampler, f"{train.name} has", train.classes, train.image_shape)
            key = train.digest(), splits["test"].digest()
            if key not in references:
                own, second = _find_readers(
                    splits, sampler, given, second_judge, torch_device, taught
                )
                references[key] = Reference(
                    own, train, splits["test"], splits["validation"],
                    per_class=per_class or _images_per_class(len(train.classes)),
                    features=features, device=torch_device, second_judge=second,
                    unlabelled=unlabelled,
                )  # fmt: skip
            logger.info("evaluating %s", sampler.name)
            curves, home = _read_curves(sampler), sampler.device
            try:
                report = build_report(sampler.to(torch_device), references[key], **optional)
            finally:
                sampler.to(home)
        warnings = [
            *report.warnings,
            *other_split_warnings(sampler, source, train),
            *_other_images(report, reports, key == next(iter(references))),
            *_judge_of_other_data(given, train),
        ]
        described = _describe_splits(source)
        if reports and key == next(iter(references)):
            report = _with_fid_difference(report, reports[0], references[key])
        named = replace(report, model=sampler.name, splits=described, data_facts=train.facts)
        reports.append(replace(named, curves=curves, warnings=warnings))
    return reports


def _images_per_class(classes: int) -> int:
    """The default, which is said where classes are many."""
    count = images_per_class(classes)
    if count < PER_CLASS:
        logger.info("the evaluation draws %d images of each class", count)
    return count


def _find_readers(
    splits: dict[Split, ImageDataset | ImageFolder],
    sampler: Sampler,
    given: Judge | None,
    second_judge: bool,
    device: torch.device,
    taught: bool,
) -> tuple[Judge, Judge | None]:
    """The judge whose figures count, and another one to set beside it.

    Beside a pretrained reader that is the judge of looks, if there was one: it costs a second.
    """
    find, train = partial(get_or_train_judge, splits.__getitem__, device), splits["train"]
    beside = sampler.path.parent
    own = given or find(beside=beside, architecture=reader_architecture(train))
    if second_judge:
        other = second_architecture(train, taught)
        if own.header.architecture == other:  # the caller gave that one
            other = reader_architecture(train)
        return own, find(beside=beside, architecture=other)
    small = find_judge(train, default_architecture(train), beside) if own.is_pretrained else None
    return own, None if small is None else small.to(device)


def _with_fid_difference(report: Report, against: Report, reference: Reference) -> Report:
    """The report with its FID minus that of another one, which has the same real images."""
    real, first, own = (
        reference.held_out.features, against.compared_features, report.compared_features
    )  # fmt: skip
    size = real.shape[1]
    if first is None or own is None:
        return report
    if first.shape != own.shape or min(len(real), len(own)) <= size:
        return report
    difference, interval = frechet_difference(real, first, own)
    figure = Figure(
        "fid_difference", "FID, difference from the first", difference, interval=interval,
        meaning="with its 95 % interval: 0 outside of it is no chance; lower is better",
    )  # fmt: skip
    return replace(report, figures=[*report.figures, figure])


def _check_options(per_class: int | None, features: str) -> None:
    """Before any data is read or downloaded."""
    if per_class is not None and per_class < 1:
        raise ConfigError(f"per_class is {per_class}, and it must be at least 1")
    if features not in FEATURE_NAMES:
        raise UnknownNameError("feature network", features, FEATURE_NAMES)


def _read_curves(sampler: Sampler) -> dict[str, list[tuple[int, float]]]:
    """The metrics of the generator's run; a damaged file costs the chart only."""
    try:
        return read_curves(sampler.path.parent) if run_config(sampler) else {}
    except FileError as error:
        logger.warning("the report has no curves of the training: %s", error)
        return {}


def _describe_splits(source: DataConfig) -> dict[str, str]:
    return {split: describe_split(source, split) for split in DESCRIBED_SPLITS}


def _open_judge(
    given: str | Path | Judge | None, samplers: list[Sampler], device: torch.device
) -> Judge | None:
    """The judge that the caller gives, after checking that it fits the generators."""
    if given is None:
        return None
    if isinstance(given, Judge):
        judge = given.to(device)
    else:
        file = Path(given)
        judge = Judge.load(file / JUDGE_FILE if os.path.isdir(file) else file).to(device)
    for sampler in samplers:
        try:
            check_judge(sampler, judge)
        except MeasureError as error:
            raise MeasureError(
                f"{judge.name} does not fit {sampler.name}: choose a judge with the same classes, "
                "in the same order, and the same image shape"
            ) from error
    return judge


def find_judge_of(
    sampler: Sampler, data: str | None = None, data_dir: str | Path | None = None
) -> Judge:
    """The judge that verifies a generator's images, on its device.

    It is a packaged judge, or else the one in the generator's folder, if it was trained on the data
    that the generator names. Otherwise, or if ``data`` is given, it is the judge of the data.

    Raises:
        CganError: the data is not found.
    """
    beside = sampler.path.with_name(JUDGE_FILE)
    for path in () if data is not None else (*sorted(PACKAGED.glob(f"*/{JUDGE_FILE}")), beside):
        if path.exists():
            judge = Judge.load(path)
            if judge.is_of(sampler.header):
                return judge.to(sampler.device)
            if path == beside:
                logger.warning(
                    "%s is a judge of %s, not of this generator's data: it is ignored",
                    beside,
                    judge.header.data,
                )
    config = data_config_of(sampler, data, data_dir)
    return get_or_train_judge(lambda split: load_split(config, split), sampler.device)


def find_judges(
    sampler: Sampler, data: str | None = None, data_dir: str | Path | None = None
) -> Judges:
    """The judges of a generator's data: see ``get_or_train_judges``.

    Raises:
        CganError: the data is not found, or the pretrained reader of photographs.
    """
    config = data_config_of(sampler, data, data_dir)
    return get_or_train_judges(partial(load_split, config), sampler.device)


def other_split_warnings(
    sampler: Sampler, source: DataConfig, train: ImageDataset | ImageFolder
) -> list[str]:
    """A warning if the generator may have been trained on some of the test images."""
    header = sampler.header
    if describe_split(source, "test") == TEST_SET:
        return []
    if header.get("data_digest") == train.digest() and not header.get("data_changed"):
        return []
    return [
        "some test images may be among its training images, because it was trained on another "
        "split of the data: train it again for figures that can be trusted"
    ]


def _other_images(report: Report, before: list[Report], is_first: bool) -> list[str]:
    """A warning if the first report is about other real images."""
    if is_first or not before:
        return []
    return [
        f"measured against other real images than {before[0].model}, by {report.control.judge}: "
        "do not compare their figures"
    ]


def _judge_of_other_data(given: Judge | None, train: ImageDataset | ImageFolder) -> list[str]:
    """A warning if the test images may be among a given judge's training images."""
    if given is None or given.header.digest == train.digest():
        return []
    return [
        f"{given.name} was not trained on the training images of {train.name}: if it was trained "
        "on its test images, its accuracy on real images is too high"
    ]
