"""SIGKILL at random instants of a training run, which then resumes until it ends.

A killed attempt is followed by another one in the same folder, so that one run is killed several
times. Its final files must be those of a run that was never stopped, bit for bit.
"""

from __future__ import annotations

import mmap
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reliability.children import Child, command, fault_of, program
from benchmarks.reliability.report import Budget, Row
from benchmarks.reliability.runs import (
    cache_judge,
    differences,
    temporary_files,
    train_reference,
    train_words,
    unreadable_files,
)
from cgan.errors import RunError
from cgan.storage.atomic import lock
from cgan.storage.paths import has_state
from cgan.storage.run_files import read_metrics

FULL = 200
"""Kills in all; every tenth is one of a process that imports everything itself."""

SETTINGS = {"images": 2_560}
PHASES = ("start", "step", "save", "look", "end")
"""What a run does: load data and open its folder, step, save, sample or evaluate, end."""

WITHIN = {"start": 0.05, "step": 0.01, "save": 0.006, "look": 0.06, "end": 0.08}
"""Seconds within which a kill follows the beginning of a phase: about its length."""

PROCESS_SECONDS = 4.0
"""A kill of a whole process comes within this time of its start."""


class Kills:
    """Kills the attempts of one run after another.

    Args:
        work: an empty folder.
        seed: of the instants.
    """

    def __init__(self, work: Path, seed: int) -> None:
        self.random, self.work, self.folder = random.Random(seed), work, work / "run"
        cache_judge(work)
        self.reference = train_reference(work / "reference", **SETTINGS)
        self.shared = mmap.mmap(-1, 1 + len(PHASES))
        self.killed_in: Counter[str] = Counter()
        self.restarts = self.runs = 0
        self.forked = Row("kill -9 of a training run, resumed to its end", full=FULL * 9 // 10)
        self.processes = Row("the same with processes of their own", full=FULL // 10)

    def attempt(self, phase: str) -> None:
        """Start or resume the run, and kill it in this phase, if that comes again."""
        self.shared[:] = bytes(len(self.shared))
        child = Child(self._watched(self._words()), self.work / "said.txt")
        index, nth = 1 + PHASES.index(phase), self.random.randint(1, 20 if phase == "step" else 3)
        while phase != "start" and self.shared[index] < nth and not child.has_ended(0.0005):
            pass
        if not child.has_ended(self.random.uniform(0, WITHIN[phase])):
            child.kill()
        ended = child.wait()
        if ended.status == -9:
            self.forked.add(ended.seconds, ended.peak_mib)
            self.killed_in[PHASES[self.shared[0]]] += 1
            self._look_at_killed(self.forked, f"killed in {PHASES[self.shared[0]]}")
        else:
            self._look_at_ended(fault_of(ended, (0,)))

    def attempt_process(self) -> None:
        """The same with ``python -m cgan``, at any instant."""
        delay = self.random.uniform(0, PROCESS_SECONDS)
        child = Child(program(*self._words()), self.work / "said.txt")
        if not child.has_ended(delay):
            child.kill()
        ended = child.wait()
        if ended.status == -9:
            self.processes.add(ended.seconds)
            self._look_at_killed(self.processes, f"killed {delay:.3f} s after its start")
        else:
            self._look_at_ended(fault_of(ended, (0,)))

    def finish(self) -> None:
        """Resume the last run until its end."""
        if self.folder.exists():
            ended = Child(command(*self._words()), self.work / "said.txt").wait()
            self._look_at_ended(fault_of(ended, (0,)))

    def _words(self) -> list[str]:
        return [
            *train_words(self.folder, **SETTINGS),
            *(["--resume"] if has_state(self.folder) else []),
        ]

    def _look_at_killed(self, row: Row, when: str) -> None:
        """All files that a reader may open are whole; without a state, the run starts again."""
        for problem in unreadable_files(self.folder):
            row.fail(f"{when}: {problem}")
        if not has_state(self.folder):
            self.restarts += 1
            shutil.rmtree(self.folder, ignore_errors=True)

    def _look_at_ended(self, fault: str | None) -> None:
        """A run that ended is what it would be without kills."""
        self.runs += 1
        problems = [fault] if fault else differences(self.folder, self.reference)
        problems += [f"{name} remains" for name in temporary_files(self.folder)]
        if not fault and _logged(self.folder) != _logged(self.reference):
            problems.append(f"metrics.jsonl has only the lines {_logged(self.folder)}")
        try:
            with lock(self.folder):
                pass
        except RunError as error:
            problems.append(str(error))
        for problem in problems:
            self.forked.fail(problem)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _watched(self, words: list[str]) -> Callable[[], None]:
        """The action of a command that tells its phase in shared memory."""

        def run() -> None:
            from cgan.training.loop import TrainLoop
            from cgan.training.state import TrainState
            from cgan.training.step import TrainStep

            self._tell(TrainStep, "__call__", "step")
            self._tell(TrainState, "save", "save")
            for name in ("prepare_evaluation", "save_samples", "evaluate"):
                self._tell(TrainLoop, name, "look")
            self._tell(TrainLoop, "final_evaluation", "end")
            command(*words)()

        return run

    def _tell(self, kind: type, name: str, phase: str) -> None:
        """Note each call of a method as the beginning of a phase."""
        real, index = getattr(kind, name), PHASES.index(phase)

        def call(*words: Any, **named: Any) -> Any:
            self.shared[0] = index
            self.shared[1 + index] = min(self.shared[1 + index] + 1, 255)
            return real(*words, **named)

        setattr(kind, name, call)


def _logged(folder: Path) -> list[tuple[float, bool]]:
    """The lines of a log: images seen, and whether it is an evaluation; repeated ones once."""
    rows = ((row["images_seen"], "control_accuracy" in row) for row in read_metrics(folder))
    return list(dict.fromkeys(rows))


def measure(budget: Budget, work: Path, seed: int) -> list[Row]:
    """One row for forked processes, and one for whole ones."""
    kills = Kills(work, seed)
    for number in range(10 * FULL):  # an attempt that ends before its kill does not count
        done = kills.forked.count + kills.processes.count
        if not budget.allows(done, FULL, least=3):
            break
        if number % 10 == 9:
            kills.attempt_process()
        else:
            kills.attempt(kills.random.choice(PHASES))
    kills.finish()
    where = ", ".join(f"{kills.killed_in[phase]} in {phase}" for phase in PHASES)
    kills.forked.figures = {
        "killed": where, "runs compared": kills.runs, "started again": kills.restarts,
    }  # fmt: skip
    return [kills.forked, kills.processes]
