"""Signals become requests to stop, and the caller's handlers come back."""

from __future__ import annotations

import os
import signal

import pytest

from cgan.runtime.process import catch_signals


def test_the_first_signal_is_caught_and_handlers_come_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with catch_signals() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught == [signal.SIGTERM]
        assert [signal.getsignal(number) for number in numbers] == before  # for the second one
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_handler_of_c_code_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python cannot name it, so it could not be restored."""
    known = {signal.SIGINT: signal.getsignal(signal.SIGINT), signal.SIGTERM: None}
    changed: list[int] = []
    monkeypatch.setattr(signal, "getsignal", known.__getitem__)
    monkeypatch.setattr(signal, "signal", lambda number, handler: changed.append(number))
    with catch_signals():
        pass
    assert changed == [signal.SIGINT, signal.SIGINT]
