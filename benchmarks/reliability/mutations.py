"""Mutated files: each is read, or refused in one sentence; none crashes, hangs or runs code.

A forked child reads a batch of inputs with a limited address space and ten seconds for each. What
ends a child, or fails for want of memory, is read again by a child of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.reliability.children import MEBIBYTE, Child
from benchmarks.reliability.inputs import KINDS, Kind, make_originals
from benchmarks.reliability.report import Budget, Row
from benchmarks.reliability.runs import cache_judge

PARTS = 50
SECONDS = 10
"""Time for one input."""
MEMORY = 768 * MEBIBYTE
"""Address space that reading one batch may take, in bytes, in addition to what is in use."""
FINDINGS = Path("runs") / "reliability"
"""Inputs that fail are kept here."""

FORBIDDEN = (
    "subprocess.", "socket.", "pickle.", "ctypes.dlopen", "os.system", "os.exec", "os.fork",
    "os.posix_spawn", "os.spawn", "pty.", "exec", "compile", "marshal.loads",
)  # fmt: skip
"""Audit events of code that runs, and of the network."""


class Watch:
    """Notes forbidden events, and files opened for writing outside a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.armed = str(folder), False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, words: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event.startswith(FORBIDDEN) and not _is_import():
            self.seen.append(f"the event {event} {words!r}"[:300])
        elif event == "open" and isinstance(words[0], str) and words[2] & os.O_ACCMODE:
            path = os.path.abspath(words[0])
            if not path.startswith((self.folder, "/dev/null")):
                self.seen.append(f"writes {path}")


def _is_import() -> bool:
    """Whether this is the import of a module, or a template of the report."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or "/jinja2/" in name:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


@dataclass
class Batch:
    """What a child has told about its inputs: one JSON object per line of a file."""

    told: Path
    begun: int | None = None
    results: dict[int, dict[str, Any]] = field(default_factory=dict)

    def read(self) -> Batch:
        """Read the file."""
        for line in self.told.read_text().splitlines():
            entry = json.loads(line)
            if "seconds" in entry:
                self.results[entry["number"]] = entry
                self.begun = None
            else:
                self.begun = entry["number"]
        return self


def read_batch(kind: Kind, seed: int, numbers: list[int], work: Path, told: Path) -> None:
    """In a child: read the original, then every input, and tell how each ended."""
    watch = Watch(work)
    original, folder = work / "originals" / kind.name, work / "now" / "input"
    for number in (0, 1):  # imports all that reading it needs
        _copy(original, folder)
        if trouble := read_input(kind, folder, number):
            raise RuntimeError(f"the original {kind.name} fails: {trouble}")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with open(told, "a", buffering=1) as file:
        for number in numbers:
            _copy(original, folder)
            kind.change(folder, seed, number)
            file.write(json.dumps({"number": number}) + "\n")
            began, watch.armed = time.monotonic(), True
            signal.setitimer(signal.ITIMER_REAL, SECONDS)  # its signal ends the child
            trouble = read_input(kind, folder, number)
            signal.setitimer(signal.ITIMER_REAL, 0)
            watch.armed = False
            if watch.seen:
                trouble = trouble or watch.seen[0]
                watch.seen.clear()
            entry = {"number": number, "seconds": time.monotonic() - began, "trouble": trouble}
            file.write(json.dumps(entry) + "\n")


def _copy(original: Path, folder: Path) -> None:
    """A fresh copy of the original files, in a parent folder with nothing else."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(original, folder)


def read_input(kind: Kind, folder: Path, number: int) -> str | None:
    """Run the commands that read an input; returns what went wrong."""
    for words in kind.commands(folder, number):
        try:
            _shell().main(words, prog_name="cgan")
        except SystemExit as ended:
            if ended.code not in (None, 0, 2):
                return f"cgan {words[0]} ends with status {ended.code}"
        except BaseException as error:  # a panic of a Rust library is no Exception
            return _describe(error, words[0])
    return None


@cache
def _shell() -> Any:
    """The ``cgan`` command; typer compiles annotations while it builds it."""
    from typer.main import get_command

    from cgan.cli import app

    return get_command(app)


def _describe(error: BaseException, command: str) -> str:
    """The type, the place in cgan and the message of an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if "/cgan/" in frame.filename] or frames
    place = f"cgan/{inside[-1].filename.rpartition('/cgan/')[2]}:{inside[-1].lineno}"
    message = " ".join(str(error).split())[:200]
    return f"cgan {command}: {type(error).__name__} in {place}: {message}"


def read_all(kind: Kind, seed: int, numbers: list[int], work: Path, row: Row) -> Iterator[str]:
    """Read inputs in children; yields a line for each finding."""
    queue = [numbers]
    while queue:
        numbers, told = queue.pop(), work / "told.jsonl"
        told.write_text("")
        action = partial(read_batch, kind, seed, numbers, work, told)
        ended = Child(action, work / "said.txt").wait(SECONDS * (len(numbers) + 10))
        batch, alone = Batch(told).read(), len(numbers) == 1
        if batch.begun is None and len(batch.results) < len(numbers):
            raise RuntimeError(f"the campaign cannot go on: {ended.said}")
        again = [] if batch.begun is None or alone else [batch.begun]
        for number, entry in batch.results.items():
            trouble = entry["trouble"]
            if trouble and "Memory" in trouble and not alone:
                again.append(number)
                continue
            row.add(entry["seconds"], ended.peak_mib)
            if trouble:
                yield _keep(kind, seed, number, work, trouble)
        if batch.begun is not None and alone:
            row.add(ended.seconds, ended.peak_mib)
            over = ended.timed_out or ended.status == -signal.SIGALRM
            how = f"takes more than {SECONDS} s" if over else f"ends with status {ended.status}"
            yield _keep(kind, seed, batch.begun, work, how)
        queue += [[number] for number in again]
        if rest := [n for n in numbers if n not in batch.results and n != batch.begun]:
            queue.append(rest)


def _keep(kind: Kind, seed: int, number: int, work: Path, trouble: str) -> str:
    """Store an input that fails, with what it does."""
    name = f"{kind.name.replace(' ', '-')}-{seed}-{number}"
    folder = work / "kept" / "input"
    _copy(work / "originals" / kind.name, folder)
    changed = kind.change(folder, seed, number)
    place = FINDINGS / name
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(changed, place)
    words = kind.commands(Path("FOLDER"), number)
    commands = "\n".join(f"cgan {' '.join(line)}" for line in words)
    about = f"{trouble}\n\nchanged: {changed.relative_to(folder)}\n{commands}\n"
    (place / "finding.txt").write_text(about)
    return f"{trouble} [{name}]"


def measure(budget: Budget, work: Path, seed: int) -> list[Row]:
    """One row per kind of input."""
    cache_judge(work)
    (work / "originals").mkdir()
    make_originals(work / "originals")
    rows = {kind.name: Row(f"mutated {kind.name}", full=kind.count) for kind in KINDS}
    found: dict[str, list[str]] = {kind.name: [] for kind in KINDS}
    # A fiftieth of each kind at a time, so that a budget cuts all alike.
    for done, (part, kind) in enumerate(itertools.product(range(PARTS), KINDS)):
        if budget.allows(done, PARTS * len(KINDS), least=len(KINDS)):
            size = kind.count // PARTS if not budget.is_least else 3
            numbers = list(range(part * size, part * size + size))
            found[kind.name] += read_all(kind, seed, numbers, work, rows[kind.name])
    for name, row in rows.items():
        _group(row, found[name])
    with contextlib.suppress(OSError):
        FINDINGS.rmdir()  # if it is empty
    return list(rows.values())


def _group(row: Row, findings: list[str]) -> None:
    """One line for all findings of the same type at the same place."""
    groups: dict[str, list[str]] = {}
    for finding in findings:
        kind = ": ".join(finding.partition(" [")[0].split(": ")[:2])
        groups.setdefault(kind, []).append(finding)
    for group in sorted(groups.values(), key=len, reverse=True):
        row.fail(f"{len(group)} ×, {group[0]}")
    row.failed = len(findings)
