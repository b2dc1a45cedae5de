"""What a power cut can leave of a shard of single files."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cgan.errors import FileError
from cgan.sampling.shards import Shard

FOLDERS = ("cats", "dogs")
LABELS = (0, 1, 0, 1, 1)


def write(out: Path) -> Shard:
    out.mkdir()
    shard = Shard(out, 0, 0, LABELS, tuple(range(len(LABELS))))
    pixels = np.zeros((len(LABELS), 4, 4, 1), np.uint8)
    with ThreadPoolExecutor(1) as pool:
        shard.write("folder", iter([pixels]), FOLDERS, FOLDERS, pool)
    return shard


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the names of open files")
def test_images_are_synced_before_they_appear_and_their_folders_before_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only these files: os.sync would flush every disk of the machine."""
    events: list[str] = []
    replace = Path.replace

    def fsync(descriptor: int) -> None:
        events.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def rename(self: Path, target: Path) -> Path:
        events.append(f"rename {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "sync", lambda: events.append("sync everything"))
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    shard = write(tmp_path / "out")
    assert shard.is_complete("folder")

    names = [f"{key:09}.png" for key in range(len(LABELS))]
    assert sorted(events[:5]) == [f"sync {name}" for name in names]
    assert sorted(e for e in events[5:] if e.startswith("rename 0")) == [
        f"rename {name}" for name in names
    ]
    *before, sync_index, rename_index, last = events[5:]
    assert {"sync cats", "sync dogs"} < set(before)
    assert before[-1] == "sync out"
    assert sync_index.startswith("sync .shard-00000.csv.")
    assert (rename_index, last) == ("rename shard-00000.csv", "sync out")


def test_a_disk_that_is_full_when_it_flushes_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="disk is full"):
        write(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
