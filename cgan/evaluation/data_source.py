"""Where a generator's training data is now."""

from __future__ import annotations

import os
from pathlib import Path

from cgan.config import DATA_NAMES, Config, DataConfig
from cgan.config_io import load_config
from cgan.config_values import size_of
from cgan.data.archive import HUB_PREFIX, is_archive
from cgan.data.load import resolve_source
from cgan.errors import ConfigError
from cgan.sampling.sampler import Sampler
from cgan.storage.paths import CONFIG_FILE


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
    if data_dir is not None:
        changes["data_dir"] = str(Path(data_dir).resolve())
    if config.size is None:
        changes["size"] = size_of(sampler.image_shape)
    config = config.model_copy(update=changes)
    is_there = os.path.isdir(config.source) or is_archive(config.source)
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
        config = load_config(sampler.path.parent / CONFIG_FILE, warn=False)
    except ConfigError:  # no config, or another program's
        return None
    return config if config.name == sampler.config.name else None
