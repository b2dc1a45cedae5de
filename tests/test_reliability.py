"""The short form of each part of the campaign: what it must find, it finds."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

import cgan
from benchmarks.reliability.children import Child, fault_of
from benchmarks.reliability.faults import KINDS, READ_ONLY, Faults, Kind
from benchmarks.reliability.mutations import Watch
from benchmarks.reliability.mutators import mutate_safetensors, mutate_yaml
from benchmarks.reliability.report import Budget, Part, Row, merge, to_table, write_page
from benchmarks.reliability.runs import differences, temporary_files, unreadable_files
from tests.processes import Process

ROOT = Path(__file__).parent.parent


def run_campaign(*words: str) -> None:
    from benchmarks.__main__ import app

    sys.argv = ["benchmarks", "reliability", *words]
    app()


def campaign(out: Path, part: Part) -> dict[str, Any]:
    """The figures of the least of a part, in a process that may fork."""
    words = ("--minutes", "0", "--part", part.value, "--out", str(out))
    done = Process(run_campaign, *words, cwd=out, PYTHONPATH=ROOT)
    assert done.wait(600) in (0, 1), done.stderr
    figures: dict[str, Any] = json.loads((out / "reliability.json").read_text())
    return figures


def nothing_is_lost(rows: list[dict[str, Any]]) -> None:
    assert sum(row["count"] for row in rows) >= 1
    assert [found for row in rows for found in row["findings"]] == []
    assert sum(row["failed"] for row in rows) == 0


SLOW = [pytest.param(part, marks=pytest.mark.slow) for part in Part if part != Part.writes]


@pytest.mark.parametrize("part", [Part.writes, *SLOW])
def test_nothing_is_lost(part: Part, tmp_path: Path) -> None:
    rows = campaign(tmp_path, part)[part]["rows"]
    nothing_is_lost(rows)
    if part == Part.mutations:
        assert [row["count"] for row in rows] == [3] * 8


def in_child(action: Any, tmp_path: Path) -> Any:
    return Child(action, tmp_path / "said.txt").wait(30)


def test_ends_of_children(tmp_path: Path) -> None:
    def refuse() -> None:
        print("cgan: there is no file x", file=sys.stderr)
        raise SystemExit(2)

    assert fault_of(in_child(lambda: None, tmp_path)) is None
    assert fault_of(in_child(refuse, tmp_path)) is None
    assert fault_of(in_child(refuse, tmp_path), (0,)) == (
        "ended with status 2: cgan: there is no file x"
    )
    assert fault_of(in_child(lambda: sys.exit(2), tmp_path)) == (
        "ended with status 2 but without a sentence: "
    )
    assert fault_of(in_child(lambda: 1 // 0, tmp_path)) == (
        "printed a traceback: ZeroDivisionError: integer division or modulo by zero"
    )
    killed = in_child(lambda: os.kill(os.getpid(), signal.SIGKILL), tmp_path)
    assert (killed.status, fault_of(killed)) == (-9, "ended with status -9: ")
    child = Child(lambda: signal.pause(), tmp_path / "said.txt")
    assert not child.has_ended(0.01)
    assert child.wait(0).timed_out


@pytest.mark.parametrize("kind", KINDS)
def test_each_change_fails(kind: Kind, tmp_path: Path) -> None:
    """A plain write, and a rename, in a child because its functions stay replaced."""

    def change(at: int | None) -> list[str]:
        faults = Faults(tmp_path / "disk", at, kind)
        faults.install()
        for action in (
            lambda: (tmp_path / "disk" / "a").write_bytes(b"12345678"),
            lambda: os.replace(tmp_path / "disk" / "a", tmp_path / "disk" / "b"),
            lambda: (tmp_path / "disk" / "b").unlink(),
        ):
            try:
                action()
            except OSError as error:
                faults.calls.append("failed" if error.errno == kind.code else "other")
        return faults.calls

    (tmp_path / "disk").mkdir()
    clean = in_child(lambda: print(*change(None)), tmp_path)
    assert clean.said.split() == ["open", "a", "write", "a", "replace", "a", "unlink", "b"]
    failed = in_child(lambda: print(*change(1)), tmp_path).said.split()
    assert failed[:5] == ["open", "a", "write", "a", "failed"]
    assert failed.count("failed") == (1 if not kind.lasting else 3 if kind == READ_ONLY else 2)
    written = (tmp_path / "disk" / ("a" if kind.lasting else "b")).exists()
    assert written == kind.lasting
    if kind.lasting:
        size = (tmp_path / "disk" / "a").stat().st_size
        assert size == (4 if kind.code == errno.ENOSPC else 0)


def test_differences_are_found(small_run: cgan.Run, plain_run: cgan.Run, tmp_path: Path) -> None:
    found = differences(small_run.folder, small_run.folder)
    assert found == ["best.safetensors is missing"]
    found = differences(small_run.folder, plain_run.folder)
    assert found[0] == "state.safetensors differs from that of a run that was never stopped"
    assert temporary_files(small_run.folder) == []
    assert unreadable_files(small_run.folder) == []
    (tmp_path / ".a.png.abc").touch()
    (tmp_path / "a.png").write_bytes(small_run.generator.read_bytes()[:100])
    assert temporary_files(tmp_path) == [".a.png.abc"]
    assert unreadable_files(tmp_path)[0].startswith("a.png is not complete")


def test_mutations_come_from_a_seed(small_run: cgan.Run) -> None:
    content = small_run.generator.read_bytes()
    changed = [mutate_safetensors(Random(seed), content) for seed in range(20)]
    assert changed == [mutate_safetensors(Random(seed), content) for seed in range(20)]
    assert content not in changed
    assert len(set(changed)) == 20
    assert mutate_yaml(Random(1), b"a: 1\n") != b"a: 1\n"


def test_code_that_runs_is_noticed(tmp_path: Path) -> None:
    def run() -> None:
        watch = Watch(tmp_path)
        watch.armed = True
        exec("1")
        (tmp_path / "inside").touch()
        open("/dev/null", "w").close()
        (tmp_path.parent / "outside").write_text("")
        watch.armed = False
        print(*watch.seen, sep="\n")

    lines = in_child(run, tmp_path).said.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["the", "event", "compile"],
        ["the", "event", "exec"],
        ["writes", str(tmp_path.parent / "outside")],
    ]


def test_budget() -> None:
    assert Budget(None).allows(199, 200)
    assert not Budget(None).allows(200, 200)
    assert Budget(0).allows(0, 200)
    assert not Budget(0).allows(1, 200)
    assert Budget(0).allows(2, 200, least=3)
    assert Budget(60).allows(199, 200)


def test_each_part_replaces_its_rows_only(tmp_path: Path) -> None:
    path, page = tmp_path / "reliability.json", tmp_path / "reliability.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n")
    about = {"machine": "one core", "cgan": "0.2.0", "seed": 1, "seconds": 90.0}
    soak, kills = Row("rounds", figures={"slope": "0.0 MiB/hour"}), Row("kill -9", full=200)
    soak.add(1.5, 600)
    kills.add(2.25, 500.04)
    kills.fail("lost\n a state")
    merge(path, "soak", about, [soak])
    merge(path, "kills", about, [Row("old")])
    figures = merge(path, "kills", about, [kills])
    assert list(figures) == ["kills", "soak"] == list(json.loads(path.read_text()))
    write_page(page, to_table(figures))
    assert page.read_text().splitlines() == [
        "before",
        "<!-- table -->",
        "| part | what was done | count | failed | worst time | peak memory |",
        "|---|---|--:|--:|--:|--:|",
        "| kills | kill -9 | 1 of 200 | 1 | 2.2 s | 500 MiB |",
        "| soak | rounds; slope 0.0 MiB/hour | 1 | 0 | 1.5 s | 600 MiB |",
        "",
        "Failures:",
        "",
        "- kills, kill -9: `lost a state`",
        "",
        "Measured on:",
        "",
        "- kills: 1.5 minutes, seed 1, cgan 0.2.0, one core",
        "- soak: 1.5 minutes, seed 1, cgan 0.2.0, one core",
        "<!-- end of table -->",
        "after",
    ]
