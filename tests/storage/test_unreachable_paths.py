"""Folders that cannot be entered, and a user without a home: one sentence each."""

from pathlib import Path

import platformdirs
import pytest

from cgan.errors import FileError
from cgan.storage.paths import STATE_FILES, cache_folder, find_generator, has_state, runs_by_age

TOO_LONG = Path("n" * 300, "run")
"""The system refuses to look there, as in a folder without permission, but for root too."""


def test_a_folder_that_cannot_be_entered() -> None:
    with pytest.raises(FileError, match="run cannot be read: File name too long"):
        find_generator(TOO_LONG)
    with pytest.raises(FileError, match="n cannot be read: File name too long"):
        runs_by_age(STATE_FILES, TOO_LONG.parent)
    assert not has_state(TOO_LONG)


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("CGAN_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_path", fail)
    with pytest.raises(FileError, match="no home folder for the cache: set CGAN_CACHE"):
        cache_folder()
