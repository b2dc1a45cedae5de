"""How the threads of OpenMP wait for each other. It must be set before torch is imported.

By default they keep their cores for milliseconds while they wait (GNU's libgomp, in the wheels for
Linux), or for 200 ms (LLVM's libomp and Intel's libiomp5, in those for macOS and Windows). Where
another program delays one thread, all others then waste their time, and take it from the program.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping

USERS_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SHORT_WAITS = {
    "GOMP_SPINCOUNT": "10000",  # turns of a loop
    "KMP_BLOCKTIME": "1",  # milliseconds
}


def shorten_waits(environ: MutableMapping[str, str]) -> None:
    """Let waiting threads give up their cores soon; what the user has set stays.

    It does nothing if torch is imported already.
    """
    if "torch" not in sys.modules and not any(name in environ for name in USERS_CHOICES):
        environ.update(SHORT_WAITS)
