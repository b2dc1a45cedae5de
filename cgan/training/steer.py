"""``cgan.steer``: class control over a generator that was trained without labels.

The generator G stays as it is. A conditional flow f learns to choose its latent vectors, so that
G(f(u, y)) with u ~ N(0, I) has the distribution of the real images of class y. D is an ordinary
conditional discriminator with an auxiliary classifier, and f minimises

    −log σ(D(x, y)) − aux_weight · log p(y|x) + kl_weight · KL(q(z|y) ‖ N(0, I)),  x = G(f(u, y)).

The last term keeps the variety: without it, f soon chooses a few z of each class. Labels enter
through D, from real images, as in InRep+ (Dinh et al. 2022, "Improved Input Reprogramming for GAN
Conditioning"). So the judge that measures the control teaches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cgan.config import DATA_NAMES, DataConfig, size_of
from cgan.config_io import load_config
from cgan.data.load import resolve_source
from cgan.errors import ConfigError
from cgan.evaluation.api import data_config_of
from cgan.runtime.device import torch_defaults
from cgan.sampling.sampler import load
from cgan.sampling.wrap import PlainGenerator, load_plain
from cgan.storage.paths import RUNS, StrPath
from cgan.training.loggers import Logger
from cgan.training.trainer import Run, train


@torch_defaults()
def steer(
    generator: StrPath | PlainGenerator,
    data: str | None = None,
    *,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    overrides: Mapping[str, object] | None = None,
    progress: bool = False,
    loggers: Sequence[Logger] = (),
) -> Run:
    """Give class control over a generator without labels, whose weights do not change.

    Args:
        generator: a run folder, a generator file, an ONNX file, or the result of ``cgan.wrap``.
        data: labelled images: a data set or a folder; default: the data it was trained on.
        data_dir: where data sets are stored.
        out: the run folder; the default is the name of the generator with ``-steered``, next to its
            run folder, or in ``runs/`` if it is a file.
        device: the device to use.
        overrides: values of the config ``steer`` by dotted key.
        progress: show progress on the terminal.
        loggers: as for ``cgan.train``.

    Returns:
        The run. Its generator file is an ordinary conditional generator.

    Raises:
        ConfigError: the generator is conditional already, or the data has other images.
        MeasureError: it never draws one of the classes, or draws images that are not finite.
        CganError: as for ``cgan.train``.
    """
    if isinstance(generator, PlainGenerator):
        plain, source, parent = generator, generator.header["name"], RUNS
    else:
        place = Path(generator)
        place = place if place.name else place.resolve()  # "." has no name
        plain = load_plain(place)
        source = str(place.resolve() if place.exists() else place)
        parent = place.parent if place.is_dir() else RUNS
    config = load_config(
        "steer",
        {
            "name": safe_config_name(f"{plain.header['name']}-steered"),
            "steer": source,
            "device": device,
            "model.latent_dim": plain.latent_dim,
            "data": find_data(plain, source, data, data_dir).model_dump(),
            **(overrides or {}),
        },
    )
    target = out or parent / config.name
    return train(config, target, progress=progress, plain=plain, loggers=loggers)


def safe_config_name(text: str) -> str:
    """A name for a config: letters, digits and ``._-``, not beginning with one of these."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("._-") or "steered"


def find_data(
    plain: PlainGenerator, source: str, data: str | None, data_dir: str | Path | None
) -> DataConfig:
    """The labelled images, at the size of the generator's.

    Raises:
        ConfigError: they are not found, or ``data`` is missing for a generator of other code.
    """
    if plain.onnx is None:
        config = data_config_of(load(source), data, data_dir)
    elif data is None:
        raise ConfigError(
            f"{source} does not say which data it was trained on: give labelled images with --data"
        )
    else:
        folder = None if data_dir is None else str(Path(data_dir).resolve())
        size = size_of(plain.image_shape)
        config = DataConfig(source=resolve_source(data), data_dir=folder, size=size)
    return config.model_copy(update={"size": None}) if config.source in DATA_NAMES else config
