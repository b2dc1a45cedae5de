"""Processes of the tests: they begin with ``cgan`` imported, and tell how they end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.processes import METHOD, Process


def look(name: str) -> None:
    """What is loaded (this file imports nothing of ``cgan``), a variable, the folder."""
    print("cgan.training.trainer" in sys.modules, os.environ[name], Path.cwd())
    print("said", file=sys.stderr)
    raise SystemExit(3)


@pytest.mark.skipif(METHOD != "forkserver", reason="processes start from scratch here")
def test_it_has_imported_cgan(tmp_path: Path) -> None:
    process = Process(look, "OWN", cwd=tmp_path, OWN=5)
    assert process.wait() == 3
    assert process.stdout == f"True 5 {tmp_path}\n"
    assert process.stderr == "said\n"


def test_a_signal_ends_it() -> None:
    process = Process(signal.pause)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
