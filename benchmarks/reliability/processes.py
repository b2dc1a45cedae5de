"""Several processes: two at the same folder, and two ranks of which one is killed."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability.children import Child, Ended, command, fault_of
from benchmarks.reliability.report import Budget, Row
from benchmarks.reliability.runs import (
    cache_judge,
    differences,
    temporary_files,
    train_reference,
    train_words,
    unreadable_files,
)
from cgan.storage.paths import has_state

FULL_KILLS = 50
FULL_PAIRS = 20
SETTINGS = {"images": 640, "eval_every_images": 320}
RANK_SETTINGS = {"images": 1_280}
WITHIN = 1.2
"""Seconds after the start within which a rank is killed, or the second of a pair begins."""
CONNECT_SECONDS = 5.0
"""How long a rank waits for the others at the start, here; otherwise 60 s."""
BOUND = 20.0
"""Seconds after a kill within which the other rank must end."""


def measure(budget: Budget, work: Path, seed: int) -> list[Row]:
    """One row for each kind of pair, and one for killed ranks."""
    cache_judge(work)
    chance = random.Random(seed)
    ranks = Ranks(work, chance)
    rows = [
        Row(f"two processes at once: {what}", full=FULL_PAIRS) for what in PAIRS
    ]  # fmt: skip
    reference = train_reference(work / "alone", **SETTINGS)
    half = train_reference(work / "half", **{**SETTINGS, "images": 320})
    for _ in range(10 * FULL_KILLS):  # a rank that ends before its kill does not count
        if budget.allows(ranks.row.count, FULL_KILLS):
            ranks.kill_one()
        for row, pair in zip(rows, PAIRS.values(), strict=True):
            if budget.allows(row.count, FULL_PAIRS):
                folder = work / "pair"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                pair(folder, row, chance, half if pair is not train_both else reference)
    ranks.finish()
    return [*rows, ranks.row]


def start_both(
    words: list[str], folder: Path, row: Row, chance: random.Random
) -> tuple[Ended, Ended]:
    """Run the same command twice, the second a random time after the first."""
    first = Child(command(*words), folder / "first.txt")
    first.has_ended(chance.uniform(0, 0.3))
    second = Child(command(*words), folder / "second.txt")
    ended = first.wait(), second.wait()
    row.add(max(one.seconds for one in ended), max(one.peak_mib for one in ended))
    for one in ended:
        if fault := fault_of(one):
            row.fail(fault)
        if one.status == 2 and "in use by another process" not in one.said:
            row.fail(f"the loser says: {one.said}")
    if all(one.status for one in ended):
        row.fail(f"both lose: {ended[0].said}")
    return ended


def train_both(folder: Path, row: Row, chance: random.Random, reference: Path) -> None:
    """Two new runs with the same ``--out``: each that ends has a folder of its own."""
    ended = start_both(train_words(folder / "run", **SETTINGS), folder, row, chance)
    runs = [run for run in folder.iterdir() if run.is_dir() and has_state(run)]
    if len(runs) != sum(one.status == 0 for one in ended):
        row.fail(f"{len(runs)} runs of {[one.status for one in ended]}")
    _check(runs, reference, row)


def resume_both(folder: Path, row: Row, chance: random.Random, half: Path) -> None:
    """Resume one run twice."""
    shutil.copytree(half, folder / "run")
    words = [*train_words(folder / "run", **SETTINGS), "--resume"]
    start_both(words, folder, row, chance)
    reference = half.with_name("resumed")
    if not reference.exists():  # another learning-rate schedule than that of a run at once
        shutil.copytree(half, reference)
        Child(command(*train_words(reference, **SETTINGS), "--resume"), folder / "said.txt").wait()
    _check([folder / "run"], reference, row)


def write_both(folder: Path, row: Row, chance: random.Random, half: Path) -> None:
    """Write one data set twice."""
    words = ["generate", str(half), "--count", "4000", "--out", str(folder / "set")]
    start_both(words, folder, row, chance)
    reference = half.with_name("set")
    if not reference.exists():
        Child(command(*words[:-1], reference), folder / "said.txt").wait()
    for path in reference.iterdir():
        if (folder / "set" / path.name).read_bytes() != path.read_bytes():
            row.fail(f"{path.name} differs")
    for name in temporary_files(folder / "set"):
        row.fail(f"{name} remains")


PAIRS: dict[str, Callable[[Path, Row, random.Random, Path], None]] = {
    "train --out": train_both,
    "train --resume --out": resume_both,
    "generate --count --out": write_both,
}


def _check(runs: list[Path], reference: Path, row: Row) -> None:
    for run in runs:
        for problem in [*differences(run, reference), *temporary_files(run)]:
            row.fail(f"{run.name}: {problem}")


class Ranks:
    """Two ranks train one run; one of them is killed, and both start again.

    Args:
        work: a folder.
        chance: chooses the rank and the instant.
    """

    def __init__(self, work: Path, chance: random.Random) -> None:
        self.work, self.chance, self.folder = work, chance, work / "ranks"
        self.row = Row("kill -9 of one of two ranks (gloo), both resumed", full=FULL_KILLS)
        self.restarts = self.runs = 0
        self.longest = 0.0
        ended = [child.wait() for child in self._start(work / "together")]
        if any(one.status for one in ended):
            raise RuntimeError(f"the campaign cannot go on: {ended[0].said} {ended[1].said}")

    def _start(self, folder: Path) -> list[Child]:
        """Start both ranks; the run is resumed if it has a state."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        words = train_words(folder, **RANK_SETTINGS)
        words += ["--resume"] if has_state(folder) else []
        return [
            Child(lambda rank=rank: _train_rank(rank, port, words), self.work / f"rank-{rank}.txt")
            for rank in range(2)
        ]

    def kill_one(self) -> None:
        """Start both ranks and kill one; the other must end by itself, with a sentence."""
        children = self._start(self.folder)
        killed = self.chance.randrange(2)
        if not children[killed].has_ended(self.chance.uniform(0, WITHIN)):
            children[killed].kill()
        other = children[1 - killed].wait(BOUND + WITHIN)
        ended = children[killed].wait()
        if ended.status != -9:  # it was over before
            self._look_at_ended([ended, other])
            return
        self.row.add(other.seconds, max(other.peak_mib, ended.peak_mib))
        self.longest = max(self.longest, other.seconds - ended.seconds)
        when = f"rank {killed} killed after {ended.seconds:.3f} s"
        if fault := fault_of(other):
            self.row.fail(f"{when}: the other {fault}")
        for problem in unreadable_files(self.folder) if self.folder.exists() else ():
            self.row.fail(f"{when}: {problem}")
        if not has_state(self.folder):
            self.restarts += 1
            shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self) -> None:
        """Resume the last run until its end."""
        if self.folder.exists():
            self._look_at_ended([child.wait() for child in self._start(self.folder)])
        self.row.figures = {
            "runs compared": self.runs,
            "started again": self.restarts,
            "the other ended within": f"{self.longest:.1f} s",
        }

    def _look_at_ended(self, ended: list[Ended]) -> None:
        self.runs += 1
        for fault in (fault_of(one, (0,)) for one in ended):
            if fault:
                self.row.fail(f"resumed: {fault}")
        _check([self.folder], self.work / "together", self.row)
        shutil.rmtree(self.folder, ignore_errors=True)


def _train_rank(rank: int, port: str, words: list[str]) -> None:
    """In a child: one rank, as torchrun would start it."""
    from cgan.runtime import distributed

    distributed.CONNECT_SECONDS = CONNECT_SECONDS
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    command(*words)()
