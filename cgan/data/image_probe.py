"""What a scan needs to know of every image file: colour, size and SHA-256."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cgan.data.archive import AnyPath
from cgan.data.image_cache import MIN_IMAGES, ImageCache
from cgan.data.image_file import file_digest, open_image, reading_threads
from cgan.errors import DataError
from cgan.runtime.progress import CountProgress
from cgan.runtime.rank import rank_and_world_size

logger = logging.getLogger("cgan")


class Probe(NamedTuple):
    """What a scan reads of an image."""

    is_grey: bool
    side: int
    """The shorter side in pixels."""
    digest: bytes
    """SHA-256 of the file."""


def probe_files(root: Path, paths: Sequence[AnyPath]) -> list[Probe | str]:
    """Decode every file of a folder: a probe, or a sentence if the file is broken.

    Of a large folder, files that an earlier scan has decoded are only hashed, and there is a
    progress line for the others.
    """
    large, cache = len(paths) >= MIN_IMAGES, ImageCache(root)
    known = cache.read_facts() if large else {}
    # The command line logs at INFO, and a library call by default does not.
    asked = logger.isEnabledFor(logging.INFO) and rank_and_world_size()[0] == 0
    with reading_threads() as pool:
        found: list[Probe | str | None] = list(pool.map(partial(_look_up, known), paths))
        missing = [index for index, probe in enumerate(found) if probe is None]
        probes_of_missing = pool.map(_probe, [paths[index] for index in missing])
        with CountProgress(len(missing), asked and len(missing) >= MIN_IMAGES) as shown:
            for index, probe in zip(missing, probes_of_missing, strict=True):
                found[index] = probe
                shown.add(1)
    probes = [probe for probe in found if probe is not None]
    facts = {
        probe.digest: (probe.is_grey, probe.side) for probe in probes if isinstance(probe, Probe)
    }
    if large and facts.keys() != known.keys():
        cache.write_facts(facts)
    return probes


def _look_up(known: Mapping[bytes, tuple[bool, int]], path: AnyPath) -> Probe | None:
    """The probe of a file that was decoded before."""
    if known and (digest := file_digest(path)) in known:
        return Probe(*known[digest], digest)
    return None


def _probe(path: AnyPath) -> Probe | str:
    """An exception would keep the decoded pixels in memory."""
    try:
        with open_image(path) as (image, file):
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            return Probe(image.mode == "L", min(image.size), digest)
    except DataError as error:
        return str(error)
