"""An older revision of cgan beside this one, for ratios that are measured in the same run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
