"""The examples run as they stand, here for fewer steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SHORT = {
    "update_schemes.py": ("6400", "method one"),
    "own_loop.py": ("20", "own_loop.png"),
    "train_and_sample.py": ("6400", "the same picture: True"),
    "batch_sizes.py": ("0.34", "batch_sizes.png"),
    "noise_outside.py": ("0.01", "noise_outside.png"),
}


def test_every_example_is_tried_and_short() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SHORT)
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60


NEED_MNIST = {"batch_sizes.py", "noise_outside.py"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.mnist) if n in NEED_MNIST else n for n in SHORT]
)
def test_example(name: str, tmp_path: Path) -> None:
    count, words = SHORT[name]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), count],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
