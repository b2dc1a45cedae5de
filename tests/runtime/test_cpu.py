"""How many cores and how much memory a process may use."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cgan.runtime import cpu
from cgan.runtime.cpu import Memory, count_cores, free_memory, group_folders, machine_memory

GIB = 1 << 30


def set_machine(monkeypatch: pytest.MonkeyPatch, total: int, available: int) -> None:
    found = SimpleNamespace(total=total, available=available)
    monkeypatch.setattr("psutil.virtual_memory", lambda: found)


def write_group(folder: Path, **files: object) -> None:
    """Files of a control group; ``memory_max`` is memory.max."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")


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


def test_groups_from_the_root_and_from_the_inside_out(tmp_path: Path) -> None:
    process = tmp_path / "self"
    process.write_text("9:name=systemd:/s\n4:cpu,cpuacct:/c\n3:cpuset:/x\n2:memory:/m/n\n0::/a\n")
    v1, v2 = tmp_path / "memory", tmp_path / "a"
    assert group_folders("memory", tmp_path, process) == [
        tmp_path, v1 / "m" / "n", v1 / "m", v1, tmp_path, v2, tmp_path,
    ]  # fmt: skip
    v1 = tmp_path / "cpu,cpuacct"
    assert group_folders("cpu", tmp_path, process) == [
        tmp_path, v1 / "c", v1, tmp_path, v2, tmp_path,
    ]  # fmt: skip
    assert group_folders("cpu", tmp_path, tmp_path / "none") == [tmp_path]


def test_memory_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, 8 * GIB, 3 * GIB)
    assert machine_memory(tmp_path, tmp_path / "none") == Memory(8 * GIB, 3 * GIB)


def test_groups_of_version_2_limit_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, 64 * GIB, 48 * GIB)
    process, outer, inner = tmp_path / "self", tmp_path / "a", tmp_path / "a" / "b"
    process.write_text("0::/a/b\n")
    write_group(inner, memory_max="max", memory_current=GIB)
    assert machine_memory(tmp_path, process) == Memory(64 * GIB, 48 * GIB)
    stat = f"anon 5\ninactive_file {GIB}\nactive_file 7"
    write_group(outer, memory_max=8 * GIB, memory_current=6 * GIB, memory_stat=stat)
    assert machine_memory(tmp_path, process) == Memory(8 * GIB, 3 * GIB)
    write_group(inner, memory_max=4 * GIB, memory_current=GIB // 2)  # without memory.stat
    assert machine_memory(tmp_path, process) == Memory(4 * GIB, 3 * GIB)
    write_group(inner, memory_max=4 * GIB, memory_current=5 * GIB)
    assert machine_memory(tmp_path, process) == Memory(4 * GIB, 0)
    write_group(tmp_path, memory_max=2 * GIB, memory_current=0)  # the root inside a container
    assert machine_memory(tmp_path, tmp_path / "none") == Memory(2 * GIB, 2 * GIB)


def test_groups_of_version_1_limit_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, 64 * GIB, 2 * GIB)
    process, folder = tmp_path / "self", tmp_path / "memory" / "x"
    process.write_text("3:cpu:/x\n4:memory:/x\n")
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}"
    write_group(
        folder,
        memory_limit_in_bytes=6 * GIB, memory_usage_in_bytes=6 * GIB, memory_stat=stat,
    )  # fmt: skip
    assert machine_memory(tmp_path, process) == Memory(6 * GIB, GIB)
    write_group(folder, memory_limit_in_bytes=2**63 - 4096)
    assert machine_memory(tmp_path, process) == Memory(64 * GIB, 2 * GIB)


@pytest.mark.parametrize("error", [FileNotFoundError("/proc/meminfo"), ValueError, RuntimeError])
def test_memory_that_is_unknown(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("psutil.virtual_memory", fail)
    monkeypatch.setattr(cpu, "group_folders", lambda *_: [tmp_path])
    assert machine_memory() is None
    assert free_memory() is None
    write_group(tmp_path, memory_max=2 * GIB, memory_current=GIB)
    assert machine_memory() == Memory(2 * GIB, GIB)
    assert free_memory() == GIB


def test_memory_of_this_machine() -> None:
    memory = machine_memory()
    assert memory is not None
    assert 0 < memory.free <= memory.total


def test_counting_cores_does_not_wait_for_psutil() -> None:
    code = "import sys, cgan.runtime.cpu as c; c.count_cores(); print('psutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
