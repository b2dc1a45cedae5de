"""How many cores a process may use."""

import os
from pathlib import Path

import pytest

from cgan.runtime import cpu
from cgan.runtime.cpu import count_cores


def test_a_quota_counts_as_cores(tmp_path: Path) -> None:
    process = tmp_path / "self"
    process.write_text("0::/a/b\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert cpu.cpu_quota(tmp_path, process) == float("inf")
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    assert cpu.cpu_quota(tmp_path, process) == 1.5
    (inner / "cpu.max").write_text("50000 100000\n")
    assert cpu.cpu_quota(tmp_path, process) == 0.5
    old = tmp_path / "cpu" / "x"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("300000\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    process.write_text("3:cpu:/x\n")
    assert cpu.cpu_quota(tmp_path, process) == 3.0
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu.cpu_quota(tmp_path, process) == float("inf")


def test_no_more_cores_than_either_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for quota, cores in ((float("inf"), 8), (2.5, 3), (0.1, 1), (16.0, 8)):
        monkeypatch.setattr(cpu, "cpu_quota", lambda quota=quota: quota)
        assert count_cores() == cores
