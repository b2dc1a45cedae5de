"""Every change on disk fails once: old files stay, one sentence says why, a second try works.

For each command, each of its writes, fsyncs, renames … fails in five ways. Training writes its
state after every step here, so that the number of changes does not depend on the time.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from benchmarks.reliability.children import (
    Child,
    Ended,
    fault_of,
    must_work,
)
from benchmarks.reliability.faults import KINDS, READ_ONLY, REMOVALS, Faults, Kind
from benchmarks.reliability.report import Budget, Row
from benchmarks.reliability.runs import (
    cache_judge,
    differences,
    is_hidden,
    temporary_files,
    unreadable_files,
)
from benchmarks.reliability.scenes import SLOW, Scene, in_small, make_scenes
from cgan.storage.paths import STATE_FILES, has_state


def measure(budget: Budget, work: Path, seed: int) -> list[Row]:
    """One row per command."""
    cache_judge(work)
    scenes = make_scenes(work)
    if budget.is_least:
        scenes = [scene for scene in scenes if scene.what not in SLOW]
    for scene in scenes:
        rehearse(scene, work)
    cases = [
        (scene, at, kind)
        for scene in scenes
        for at in range(scene.calls)
        for kind in KINDS
    ]  # fmt: skip
    rows = {
        scene.what: Row(scene.what, full=scene.calls * len(KINDS)) for scene in scenes
    }  # fmt: skip
    random.Random(seed).shuffle(cases)
    for done, (scene, at, kind) in enumerate(cases):
        if not budget.allows(done, len(cases), least=len(scenes)):
            break
        try_case(scene, at, kind, work / "now", rows[scene.what])
    return list(rows.values())


def rehearse(scene: Scene, work: Path) -> None:
    """Run a command without faults: count its changes, and keep its files as the reference."""
    if scene.what in SLOW:
        scene.start(warm := work / "warm")
        must_work(*scene.words(warm))
        shutil.rmtree(warm)
    folder = work / "references" / scene.what.replace(" ", "_")
    folder.parent.mkdir(exist_ok=True)
    scene.start(folder)
    counted = work / "calls.json"

    def count() -> None:
        faults = Faults(folder)
        try:
            in_small(scene.words(folder), faults)()
        finally:
            faults.real_open(counted, "w").write(json.dumps(faults.calls))

    ended = Child(count, work / "said.txt").wait()
    if ended.status:
        raise RuntimeError(f"{scene.what} fails without faults: {ended.said}")
    scene.calls, scene.reference = len(json.loads(counted.read_text())), folder


def try_case(scene: Scene, at: int, kind: Kind, folder: Path, row: Row) -> None:
    """Fail one change, look at the folder, and run the command again without faults."""
    shutil.rmtree(folder, ignore_errors=True)
    scene.start(folder)
    before = _contents(folder)
    said = folder.with_suffix(".txt")
    failed_call = folder.with_suffix(".call")

    def fail() -> None:
        faults = Faults(folder, at, kind)
        try:
            in_small(scene.words(folder), faults)()
        finally:
            call = faults.calls[at] if at < len(faults.calls) else "nothing"
            faults.real_open(failed_call, "w").write(call)

    ended = Child(fail, said).wait(120)
    call = failed_call.read_text() if failed_call.exists() else "?"
    row.add(ended.seconds, ended.peak_mib)
    problems = _problems(scene, folder, before, ended)
    # What cannot be removed stays: the next run in its folder removes it, that of one file stays.
    stuck = call.split()[0] in REMOVALS or kind == READ_ONLY
    if not stuck:
        problems += [f"{name} remains" for name in temporary_files(folder)]
    again = Child(in_small(scene.again(folder)), said).wait(120)
    row.worst_seconds = max(row.worst_seconds, round(again.seconds, 2))
    if again.status:
        last = (again.said.strip().splitlines() or [""])[-1]
        problems.append(f"a second try ends with status {again.status}: {last}")
    else:
        wrong = _wrong_results(scene, folder)
        places = _runs(folder) if scene.trains else [] if stuck else [folder]
        wrong += [f"{name} remains" for place in places for name in temporary_files(place)]
        problems += [f"after a second try {what}" for what in wrong]
    if problems:
        row.fail(f"change {at}, {call}, {kind.name}: {'; '.join(problems)}")


def _problems(scene: Scene, folder: Path, before: dict[str, bytes], ended: Ended) -> list[str]:
    """What is wrong after a failed change: the sentence, and the files that existed before."""
    problems = [fault] if (fault := fault_of(ended)) else []
    lines = ended.said.strip().splitlines() or [""]
    if ended.status == 2 and str(folder) not in lines[-1]:
        problems.append(f"the sentence does not name the file: {lines[-1]}")
    now, wanted = _contents(folder), _contents(scene.reference or folder)
    if scene.trains:
        if before and not any((folder / "run" / name).exists() for name in STATE_FILES):
            problems.append("the state is lost")
        return problems + unreadable_files(folder)
    problems += [f"{name} is lost" for name in before if name not in now]
    return problems + [
        f"{name} is neither old nor new"
        for name, content in now.items()
        if content not in (before.get(name), wanted.get(name))
    ]


def _wrong_results(scene: Scene, folder: Path) -> list[str]:
    assert scene.reference is not None
    if scene.trains:
        runs = _runs(folder)
        found = [what for run in runs for what in differences(run, scene.reference / "run")]
        return found if runs else ["there is no run"]
    now, wanted = _contents(folder), _contents(scene.reference)
    names = now.keys() | wanted.keys()
    return [f"{name} differs" for name in sorted(names) if now.get(name) != wanted.get(name)]


def _runs(folder: Path) -> list[Path]:
    """The runs in a folder that hold a state; one that failed before its first state may stay."""
    return [run for run in folder.iterdir() if has_state(run)]


def _contents(folder: Path) -> dict[str, bytes]:
    """All visible files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_hidden(path, folder)
    }
