"""``cgan.evaluate`` and ``cgan.compare``."""

import pytest

import cgan
from cgan.errors import RunError


def test_memory_that_runs_out(small_run: cgan.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B.")

    monkeypatch.setattr("cgan.evaluation.api.build_report", full)
    with pytest.raises(RunError) as caught:
        cgan.evaluate(small_run.folder, per_class=5, device="cpu")
    assert str(caught.value) == (
        f"evaluating {small_run.folder} on cpu ran out of memory (it asked for 9 B more): free "
        "memory, or use another --device"
    )
