"""An older revision of cgan beside this one, for ratios that are measured in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@contextmanager
def checkout(revision: str | None) -> Iterator[dict[str, Path]]:
    """Folders by name: this one, ``new``, and the revision's, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        trees = {"new": ROOT}
        if revision:
            old = Path(folder, "old")
            git = ("git", "-C", str(ROOT), "worktree")
            subprocess.run([*git, "add", "--detach", str(old), revision], check=True, stdout=2)
            trees = {revision: old, **trees}
        try:
            yield trees
        finally:
            if revision:
                subprocess.run([*git, "remove", "--force", str(old)], check=True, stdout=2)


def environment(tree: Path) -> dict[str, str]:
    """The environment of a process that imports cgan from this folder."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def speed_ratios(results: dict[str, Any], revision: str, words: list[str]) -> str:
    """A Markdown table: medians of ``benchmarks speed`` here, at the revision, and their ratio.

    Args:
        results: what was measured here, just now.
        revision: measured now, with ``words`` as its arguments.
        words: configs and options that the revision knows.
    """
    with checkout(revision) as trees, tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "benchmarks", "speed", *words, "--out", out]
        tree = trees[revision]
        subprocess.run(command, check=True, cwd=tree, env=environment(tree), stdout=2)
        (path,) = Path(out).glob("*.json")
        old = json.loads(path.read_text())
    rows = [f"|  | {revision} | new | ratio |", "|---|--:|--:|--:|"]
    for config, found in results["configs"].items():
        for key in ("bare_images_per_s", "whole_images_per_s", "drawn_per_s"):
            new, before = found[key].median, old["configs"][config][key]["median"]
            rows.append(f"| {config}, {key} | {before:,.0f} | {new:,.0f} | {new / before:.2f} |")
    for process, spread in results["starting"].items():
        if process in old["starting"]:
            before = old["starting"][process]["median"]
            ratio = spread.median / before
            rows.append(f"| {process}, s | {before:.2f} | {spread.median:.2f} | {ratio:.2f} |")
    return "\n".join(rows)
