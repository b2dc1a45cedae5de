"""How OpenMP's threads wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cgan.runtime.cpu import SHORT_WAITS, USERS_CHOICES, shorten_waits

LOOK = "import os, sys, cgan; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"


def test_importing_cgan_before_torch_shortens_waits() -> None:
    plain = {key: value for key, value in os.environ.items() if key not in USERS_CHOICES}
    for environ, expected in ((plain, "10000"), ({**plain, "GOMP_SPINCOUNT": "5"}, "5")):
        words = (sys.executable, "-c", LOOK)
        found = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
        assert found.stdout.split() == ["False", expected]


@pytest.mark.parametrize("name", USERS_CHOICES)
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {name: "5"}
    shorten_waits(environ)
    assert environ == {name: "5"}
    monkeypatch.delitem(sys.modules, "torch")
    shorten_waits(environ)
    assert environ == {name: "5"}
    shorten_waits(others := {})
    assert others == SHORT_WAITS


def test_it_is_too_late_once_torch_is_imported() -> None:
    shorten_waits(environ := {})
    assert environ == {}
